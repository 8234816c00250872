"""What is spoken by machines, and by which voices: texts, draws, and the address of an utterance."""
