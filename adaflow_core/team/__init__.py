"""Several processes that work on one film together, each with a GPU of its own."""
