"""What people do with an edit over time: drafts, prompts on ranges of frames, retakes, and projects to open again."""
