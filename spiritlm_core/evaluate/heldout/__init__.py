"""What a trained model can do on held-out recordings."""
