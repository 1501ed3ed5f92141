"""The version, and that of what edits make."""

__version__ = "0.1.0"
MADE = 7  # changes whenever an edit with the same settings comes out otherwise: what is kept of others is not taken up
