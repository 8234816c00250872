"""What goes into a corpus: listing, hashing and grouping recordings, texts and rows."""
