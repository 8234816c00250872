"""What runs and in which order: Prefect flows, and the recipes beside them."""
