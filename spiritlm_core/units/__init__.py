"""Speech units: HuBERT, pitch and style streams, and fitting their models."""
