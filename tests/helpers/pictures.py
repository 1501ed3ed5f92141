"""What tests look for in pictures [H, W, 3]: light, and pixels of a colour."""

from __future__ import annotations

import numpy as np


def lightness(picture: np.ndarray) -> np.ndarray:
    return np.asarray(picture.astype(float) @ (0.299, 0.587, 0.114))


def near(picture: np.ndarray, colour: tuple[int, int, int], tolerance: int = 40) -> np.ndarray:
    """[H, W] bool, pixels of about this colour."""
    return np.asarray(np.abs(picture.astype(int) - colour).max(axis=-1) <= tolerance)
