"""Storage on disk: the cache, and arrays in files."""
