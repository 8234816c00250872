"""Error rates, distances and confidence intervals. Imports nothing above it."""
