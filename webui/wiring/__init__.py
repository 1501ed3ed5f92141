"""Which event calls which handler, and the event's name in the API: a file for each step of the page."""
