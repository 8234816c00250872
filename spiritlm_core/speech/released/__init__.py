"""Reading the checkpoint files that the authors of Spirit LM distribute, into this project's own layout."""
