"""Checkpoints on the disk: what they must be, and how folders, single files and what is added to them are read."""
