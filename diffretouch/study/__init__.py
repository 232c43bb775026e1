"""Blinded pairs for people to judge."""
