"""Ablations and deterministic peers, trained, measured and shown side by side."""
