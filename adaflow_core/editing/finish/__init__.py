"""What is done to the decoded edit: its outlines, its flicker, and the source shown where nothing changed."""
