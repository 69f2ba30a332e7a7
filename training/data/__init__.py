"""Slices to learn from."""
