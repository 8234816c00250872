"""The network of the language model, its loading and its adapters."""
