"""Content-addressed Parquet: fingerprints, shards, artifacts, snapshots, and the store that holds them."""
