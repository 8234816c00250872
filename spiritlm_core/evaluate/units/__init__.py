"""Judging speech tokenizers on held-out speech, without training a language model."""
