"""The plan: features, keyframes, kept tokens, correspondences."""
