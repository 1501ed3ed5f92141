"""Plans and edits for people and programs: pictures, files, scores."""
