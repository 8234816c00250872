"""A corpus in the formats of other programs: its recordings with words, text and speech units."""
