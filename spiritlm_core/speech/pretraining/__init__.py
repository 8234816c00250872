"""Pre-training a HuBERT on the corpus itself."""
