"""Corpora: their layouts, their splits, and the demo ones."""
