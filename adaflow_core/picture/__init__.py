"""What people do with an edit over the picture: regions, keyframes by hand, delivery at the source's size."""
