"""The bundled example clips, from which a visitor can start."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from adaflow_core.video.decode import thumbnails

CLIPS = Path(__file__).resolve().parents[2] / "assets" / "clips"


def load_clips(folder: Path = CLIPS) -> list[dict[str, str]]:
    """file, title, kind, source_prompt and prompt of each clip; an empty list if the folder has none."""
    index = folder / "clips.json"
    if not index.is_file():
        return []
    clips = json.loads(index.read_text(encoding="utf-8"))
    return [{**clip, "file": str(folder / clip["file"])} for clip in clips if (folder / clip["file"]).is_file()]


def moving(folder: Path = CLIPS) -> str | None:
    """A finished edit beside its source, as a video; None if the folder has none."""
    path = folder / "moving.mp4"
    return str(path) if path.is_file() else None


def poster(clip: dict[str, str]) -> tuple[Any, str]:
    """The clip's middle frame and its title, for a gallery."""
    return _middle_frame(clip["file"]), clip["title"]


@cache
def _middle_frame(file: str) -> np.ndarray:
    """[160, w, 3] uint8. Kept, since opening a video starts a process: a page that is built again starts none."""
    _, pictures = thumbnails(file, 3, height=160)
    return pictures[len(pictures) // 2]
