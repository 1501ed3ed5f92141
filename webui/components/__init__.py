"""The components of the page's three steps: `video`, `plan` and `edit`."""
