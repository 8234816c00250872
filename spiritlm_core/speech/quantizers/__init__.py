"""Quantizers: features to phonetic units, and fitting them."""
