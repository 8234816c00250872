"""Talking with a model: sound comes and goes over one WebSocket, and whoever speaks interrupts the answer."""
