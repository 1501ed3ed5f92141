"""What an edit will take on this machine: measurements of its pieces, and arithmetic over them."""
