"""Ablations and deterministic peers, trained, measured and shown side by side (METHOD sections 3 and 7)."""
