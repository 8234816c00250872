"""What a trained model can do on held-out recordings, and the folder that is published."""
