"""How good each segment is, which ones hold the same sound, and which a recipe leaves out."""
