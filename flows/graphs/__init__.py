"""One file per kind of run: the graph of its stages, read from top to bottom."""
