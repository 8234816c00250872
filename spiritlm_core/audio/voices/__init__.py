"""Engines that make speech of text, and what is done to the sound afterwards."""
