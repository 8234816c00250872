"""Sources of recordings, one layout each: a class with its settings, and what it makes of them."""
