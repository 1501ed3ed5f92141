"""The source's motion, cuts, and carrying edits along the motion."""
