"""Pitch units: F0, the coder, and fitting it."""
