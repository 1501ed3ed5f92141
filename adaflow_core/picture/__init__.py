"""Editing the picture itself: regions, keyframes edited by hand, delivery at the source's size."""
