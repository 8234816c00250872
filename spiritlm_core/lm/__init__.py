"""The language model: configuration, training, scoring and generation."""
