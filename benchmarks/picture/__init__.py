"""What is done over the picture, against rendered truth: delivery at the source's size (`full_size`)."""
