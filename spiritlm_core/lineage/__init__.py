"""What was made with which recordings: taking recordings back, and asking a model where it comes from."""
