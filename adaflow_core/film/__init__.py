"""What people do with an edit over time: drafts of its keyframes, and projects that can be saved and opened again."""
