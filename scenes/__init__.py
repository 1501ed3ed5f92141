"""The drawn world: films whose true edits and true correspondences are known."""
