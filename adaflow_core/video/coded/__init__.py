"""Coded files: the containers that are opened, and what their packets say before any is decoded."""
