"""A source in, masked Mentions out. Knows the schemas and nothing of the pipeline but its errors, metrics and settings."""
