"""The engine on several GPUs."""
