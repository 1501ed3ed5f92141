"""Image files that are sent to browsers, and small copies of videos that browsers cannot play, each written once.

Gradio rewrites an array's file under the same name each time it is shown, so a browser that is downloading it at that
moment gets a broken file. Here equal images share one file, which is renamed into place when it is complete.
"""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from pathlib import Path
from typing import Literal

import numpy as np
from gradio.utils import get_upload_folder
from PIL import Image

from adaflow_core.storage.digests import quick_digest
from adaflow_core.video.decode import decode_video
from adaflow_core.video.types import VideoInfo
from adaflow_core.video.write import write_video

# What every browser plays; the suffix tells the browser which container to expect.
_IN_MP4 = ("h264", "vp9", "av1")
_PLAYED = {".mp4": _IN_MP4, ".m4v": _IN_MP4, ".webm": ("vp8", "vp9", "av1")}
# Pixel formats of H.264 that browsers play; most show nothing for more bits or less chroma subsampling.
_PIXELS = ("yuv420p", "yuvj420p")
_COPIED_SECONDS, _COPIED_SIDE = 10, 256  # of a small copy: its length, and pixels of its shorter side


def serve_image(image: np.ndarray, file_format: Literal["webp", "png"] = "webp", name: str = "") -> str:
    """Write an image [H, W, 3] uint8 where Gradio may serve it from, and return its path.

    "webp" is lossy and small, for frames; "png" is for plots. `name`: the download's name without suffix.
    """
    content = io.BytesIO()
    Image.fromarray(image).save(content, file_format.upper(), **({"quality": 90} if file_format == "webp" else {}))
    digest = hashlib.blake2b(content.getvalue(), digest_size=16).hexdigest()
    folder = os.path.join(get_upload_folder(), "pictures", *([digest] if name else []))
    path = os.path.join(folder, f"{name or digest}.{file_format}")
    try:
        os.utime(path)  # files are deleted by age: one that is shown again must not expire
    except FileNotFoundError:
        os.makedirs(folder, exist_ok=True)
        part = f"{path}.{uuid.uuid4().hex}"
        with open(part, "wb") as file:
            file.write(content.getvalue())
        os.replace(part, path)
    return path


def is_playable(info: VideoInfo) -> bool:
    """Whether a browser plays the file as it is."""
    played = info.codec in _PLAYED.get(info.path.suffix.lower(), ())
    return played and (info.codec != "h264" or info.pixels in _PIXELS)


def serve_copy(info: VideoInfo) -> str:
    """Write a small copy of a video's first seconds where Gradio may serve it from, and return its path."""
    folder = Path(get_upload_folder()) / "copies"
    path = folder / f"{quick_digest(info.path)}.mp4"
    if path.exists():
        os.utime(path)  # deleted by age, as pictures are
        return str(path)
    chosen = slice(0, max(1, round(_COPIED_SECONDS * info.fps)))
    small = decode_video(info.path, size=_COPIED_SIDE, frames=chosen)
    return str(write_video(path, small.frames, small.fps, times=small.times, transfer=small.transfer))
