"""Checkpoints from the Hugging Face Hub: a name or id becomes a folder on this machine."""
