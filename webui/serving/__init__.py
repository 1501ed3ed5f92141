"""The page on an address: the server, the log, and the deletion of old files."""
