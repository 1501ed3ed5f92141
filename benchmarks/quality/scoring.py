"""Scores one edit from files, in processes of its own that use neither the device nor a model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.metrics import by_region, psnr, warp_error

TILE, CAPTION = 192, 22  # pixels
ERROR_GAIN = 4  # by which pictures of errors are brightened
SHEET_FRAMES = 4


@dataclass(frozen=True)
class Folder:
    """The frames and arrays of one edit of one clip, as files that are written once and read by every score."""

    path: Path

    def save(self, name: str, values: np.ndarray) -> Path:
        self.path.mkdir(parents=True, exist_ok=True)
        np.save(self.path / f"{name}.npy", values)
        return self.path / f"{name}.npy"

    def load(self, name: str) -> np.ndarray:
        return np.load(self.path / f"{name}.npy", mmap_mode="r")


def lower_priority() -> None:
    """Run a scoring process at a lower priority than the one that feeds the device."""
    os.nice(10)


def score(folder: Folder, name: str, near: str | None = None, keep: bool = False) -> dict[str, float]:
    """All scores of the frames saved as `name`; `near`: other frames to measure the distance to.

    The frames are removed unless they are to be kept.
    """
    frames, truth = folder.load(name), folder.load("truth")
    scores = {
        "psnr": psnr(frames, truth),
        **by_region(frames, truth, folder.load("region")),
        "temporal": warp_error(frames, folder.load("flows"), folder.load("visible")),
    }
    if near is not None:
        scores["psnr_near"] = psnr(frames, folder.load(near))
    if not keep:
        (folder.path / f"{name}.npy").unlink()
    return scores


def distances(folder: Folder, name: str, near: str, keep: bool = False) -> dict[str, float]:
    """PSNR to the truth and to other frames, for sweeps."""
    frames = folder.load(name)
    found = {"psnr": psnr(frames, folder.load("truth")), "psnr_near": psnr(frames, folder.load(near))}
    if not keep:
        (folder.path / f"{name}.npy").unlink()
    return found


# --- pictures -------------------------------------------------------------------------------------


def _error(frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The error of each pixel as a grey picture, brightened."""
    size = np.abs(frames.astype(np.int16) - truth).max(axis=-1, keepdims=True)
    return np.broadcast_to((size * ERROR_GAIN).clip(0, 255).astype(np.uint8), frames.shape)


def _tile(picture: np.ndarray, pixels: int) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(picture)).resize((pixels, pixels), Image.Resampling.LANCZOS)


def film(folder: Folder, names: dict[str, str], path: Path, fps: float) -> None:
    """Source, truth and edits side by side, the errors of the edits beneath them, as a small mp4.

    `names`: name under which frames are saved -> their label.
    """
    from fractions import Fraction

    from adaflow_core.video.write import write_video

    videos = [np.array(folder.load(name)) for name in names]
    truth = videos[list(names).index("truth")]
    errors = [_error(v, truth) if n not in ("source", "truth") else None for n, v in zip(names, videos, strict=True)]
    width, height = TILE * len(names), CAPTION + 2 * TILE
    head = Image.new("RGB", (width, height), (24, 24, 27))
    pen = ImageDraw.Draw(head)
    for column, label in enumerate(names.values()):
        pen.text((column * TILE + TILE // 2, CAPTION // 2), label, fill="white", font_size=13, anchor="mm")
    pen.multiline_text(
        (TILE, CAPTION + TILE * 1.5), f"error to the truth,\n{ERROR_GAIN} times as bright", fill=(160, 160, 170),
        font_size=12, anchor="mm", align="center",
    )  # fmt: skip
    out = np.empty((len(truth), height, width, 3), np.uint8)
    for t in range(len(truth)):
        page = head.copy()
        for column, (video, error) in enumerate(zip(videos, errors, strict=True)):
            page.paste(_tile(video[t], TILE), (column * TILE, CAPTION))
            if error is not None:
                page.paste(_tile(error[t], TILE), (column * TILE, CAPTION + TILE))
        out[t] = np.asarray(page)
    write_video(path, out, Fraction(fps).limit_denominator(1001))


def sheet(folder: Folder, name: str, path: Path) -> None:
    """A few frames of source, truth and one edit, and its error: one row each, as a JPEG."""
    source, truth, frames = (np.array(folder.load(n)) for n in ("source", "truth", name))
    rows = [source, truth, frames, _error(frames, truth)]
    shown = np.linspace(0, len(truth) - 1, min(SHEET_FRAMES, len(truth))).round().astype(int)
    pixels = TILE * 2 // 3
    page = Image.new("RGB", (pixels * len(shown), pixels * len(rows)))
    for row, video in enumerate(rows):
        for column, t in enumerate(shown):
            page.paste(_tile(video[t], pixels), (column * pixels, row * pixels))
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, quality=82)


def pictures(folder: Folder, names: dict[str, str], main: str, media: Path, stem: str, fps: float, films: bool) -> None:
    """The sheet of the main edit and, if asked, the film of all."""
    sheet(folder, main, media / f"{stem}.jpg")
    if films:
        film(folder, names, media / f"{stem}.mp4", fps)
