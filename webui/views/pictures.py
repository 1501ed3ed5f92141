"""Pictures within the page's HTML, and as items of its galleries."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from adaflow_core.report.canvas import Picture, resize
from adaflow_core.report.overlays import tile

Item = tuple[Picture, str]  # picture and caption in a gallery


def image(picture: Picture, words: str) -> str:
    return f'<img class="af-strip" src="{data_url(picture)}" alt="{escape(words)}">'


def strip(frames: np.ndarray, chosen: Sequence[int], height: int = 96) -> Picture:
    """Some of the frames [T, H, W, 3], small, beside each other."""
    width = max(1, round(height * frames.shape[2] / frames.shape[1]))
    return tile([resize(np.asarray(frames[t]), width, height) for t in chosen])


def data_url(picture: Picture) -> str:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
