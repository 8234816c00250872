"""Where bytes lie: a folder or an S3 prefix, as a flat space of named objects."""
