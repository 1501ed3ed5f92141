"""What several events share: jobs that are followed, rows of prompts, what lies over the picture, words of a prompt."""
