"""The source's motion, and what is carried along it."""
