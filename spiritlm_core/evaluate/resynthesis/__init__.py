"""Judging vocoders on held-out speech: audio to units and back, without a language model."""
