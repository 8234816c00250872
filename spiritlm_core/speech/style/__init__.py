"""Style units: the coder, a classifier, and fitting clusters."""
