"""What is on disk: the cache, and arrays in files."""
