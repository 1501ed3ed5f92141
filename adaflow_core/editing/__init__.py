"""The edit: inversion, the joint pass over keyframes, propagation, and what keeps the source."""
