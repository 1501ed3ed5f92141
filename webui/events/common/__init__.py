"""What several events share: following jobs, rows of prompts, regions and keyframes by hand, words of a prompt."""
