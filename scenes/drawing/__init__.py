"""What the drawn world is made of: noise fields, objects, places, styles."""
