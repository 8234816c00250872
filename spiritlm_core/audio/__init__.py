"""From recordings anywhere to segments of 16 kHz mono speech."""
