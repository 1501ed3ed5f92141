"""The command line: plan, edit, retake, batch, models, selfcheck."""
