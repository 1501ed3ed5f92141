"""Training of the models that know the drawn world, and of their judge."""
