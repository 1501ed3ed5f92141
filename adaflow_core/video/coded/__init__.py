"""Coded packets, looked into before they are decoded."""
