"""Speech to tokens and back: encoders, quantizers, pitch, style, vocoders, and the folder that holds them."""
