"""Finds the pictures of a video in a folder; reading the video and its digest use the same ones."""

from __future__ import annotations

from pathlib import Path

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


def has_the_name_of_a_picture(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures in a folder, sorted by name, without hidden files, such as those of macOS (._1.png)."""
    found = (path for path in folder.iterdir() if has_the_name_of_a_picture(path) and not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())
