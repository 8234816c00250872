"""Units back to a waveform."""
