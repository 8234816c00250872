"""Speech encoders: frames of features from waveforms."""
