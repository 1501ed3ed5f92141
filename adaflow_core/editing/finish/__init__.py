"""Finishes the decoded edit: smooths flicker, shows the source where nothing changed, and holds outlines."""
