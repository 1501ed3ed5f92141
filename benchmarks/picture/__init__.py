"""What people do with an edit over the picture, against the drawn world's truth."""
