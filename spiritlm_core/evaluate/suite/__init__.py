"""Zero-shot tasks: which of two sides does a model find more likely."""
