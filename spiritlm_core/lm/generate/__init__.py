"""Using a language model: prompts, sampling, answers."""
