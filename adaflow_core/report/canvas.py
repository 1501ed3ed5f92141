"""Tools to draw pictures with: a small palette, a smooth canvas, resizing, a heat map's colours."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from adaflow_core.errors import AdaFlowError

Picture: TypeAlias = np.ndarray  # [H, W, 3] uint8 RGB
Colour: TypeAlias = tuple[int, int, int]
Points: TypeAlias = Sequence[tuple[float, float]]
PAPER: Colour = (255, 255, 255)
INK: Colour = (28, 33, 43)
MUTED: Colour = (88, 96, 110)  # 6.3:1 on paper
RULE: Colour = (222, 226, 233)
BAND: Colour = (240, 245, 250)  # every other segment
MEAN: Colour = (18, 92, 168)
WINDOW: Colour = (178, 76, 0)
RESIDUAL: Colour = (112, 62, 152)
KEYFRAME: Colour = (0, 104, 92)
CUT: Colour = (176, 22, 52)
PLACE: Colour = (214, 0, 132)  # rare in what cameras see
SAMPLED: Colour = (34, 116, 232)
# Anchors of the heat map: lightness rises all along, so that it reads in grey too.
_HEAT = ((15, 12, 60), (86, 22, 110), (158, 44, 98), (217, 82, 60), (245, 146, 28), (249, 242, 150))


class Canvas:
    """A PIL drawing at twice the size, reduced at the end: its lines come out smooth."""

    scale = 2

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width * self.scale, height * self.scale), PAPER)
        self.draw = ImageDraw.Draw(self.image)

    def _up(self, points: Points) -> list[tuple[float, float]]:
        return [(x * self.scale, y * self.scale) for x, y in points]

    def line(self, points: Points, colour: Colour, width: float = 1, dash: tuple[float, float] | None = None) -> None:
        pen = max(1, round(width * self.scale))
        if dash is None:
            self.draw.line(self._up(points), fill=colour, width=pen, joint="curve")
            return
        for start, end in _dashes(points, *dash):
            self.draw.line(self._up([start, end]), fill=colour, width=pen)

    def polygon(self, points: Points, fill: Colour) -> None:
        self.draw.polygon(self._up(points), fill=fill)

    def box(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        self.draw.rectangle(self._up([(left, top), (right, bottom)]), fill=fill)

    def text(self, x: float, y: float, text: str, colour: Colour = INK, size: int = 11, anchor: str = "la") -> float:
        """Draw `text`; returns its width."""
        font = ImageFont.load_default(size * self.scale)
        self.draw.text((x * self.scale, y * self.scale), text, fill=colour, font=font, anchor=anchor)
        return self.draw.textlength(text, font=font) / self.scale

    def paste(self, picture: Picture, left: float, top: float, width: float, height: float) -> None:
        size = (round(width * self.scale), round(height * self.scale))
        pasted = Image.fromarray(picture).resize(size, Image.Resampling.NEAREST)
        self.image.paste(pasted, (round(left * self.scale), round(top * self.scale)))

    def fit(self, picture: Picture, left: float, top: float, width: float, height: float) -> None:
        """Paste `picture` centred into a box, as large as fits with its aspect ratio kept."""
        h, w = picture.shape[:2]
        factor = min(width / w, height / h)
        wide, high = w * factor, h * factor
        drawn = resize(picture, round(wide * self.scale), round(high * self.scale))
        self.paste(drawn, left + (width - wide) / 2, top + (height - high) / 2, wide, high)

    def picture(self) -> Picture:
        return np.asarray(self.image.reduce(self.scale))


def _dashes(points: Points, on: float, off: float) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Return the drawn pieces of a polyline that is dashed along its whole length, over short segments too."""
    corners = np.asarray(points, dtype=float)
    along = np.concatenate([[0.0], np.hypot(*np.diff(corners, axis=0).T).cumsum()])

    starts = np.arange(0.0, along[-1], on + off)
    ends = np.minimum(starts + on, along[-1])

    def at(distances: np.ndarray) -> list[tuple[float, float]]:
        return list(zip(*(np.interp(distances, along, axis).tolist() for axis in corners.T), strict=True))

    passed, after = np.searchsorted(along, starts, "right"), np.searchsorted(along, ends, "left")
    bends = at(along)
    pieces: list[tuple[tuple[float, float], tuple[float, float]]] = []
    for first, begin, last, end in zip(at(starts), passed.tolist(), at(ends), after.tolist(), strict=True):
        pieces += pairwise([first, *bends[begin:end], last])
    return pieces


def resize(picture: Picture, width: int, height: int) -> Picture:
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def save_picture(picture: Picture, path: Path) -> Path:
    try:
        Image.fromarray(picture).save(path)
    except OSError as problem:
        raise AdaFlowError(f"{path} cannot be written; choose another folder ({problem.strerror})") from problem
    return path


def at_least(picture: Picture, side: int) -> Picture:
    """Return `picture`, enlarged if needed until its shorter side has `side` pixels."""
    h, w = picture.shape[:2]
    factor = max(1.0, side / min(h, w))
    return picture if factor == 1.0 else resize(picture, round(w * factor), round(h * factor))


def at_most(picture: Picture, side: float) -> Picture:
    """Return `picture`, reduced if needed until its shorter side has `side` pixels."""
    h, w = picture.shape[:2]
    factor = min(1.0, side / min(h, w))
    return picture if factor == 1.0 else resize(picture, round(w * factor), round(h * factor))


def spread(cells: np.ndarray, height: int, width: int) -> np.ndarray:
    """Enlarge cells [h, w] to [height, width]: every pixel gets the value of its cell."""
    h, w = cells.shape
    return cells[np.arange(height) * h // height][:, np.arange(width) * w // width]


def heat_colours(share: np.ndarray) -> np.ndarray:
    """Return the heat map's colours [..., 3] in 0..255 for `share` [...] in 0..1."""
    stops = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(share, stops, channel) for channel in zip(*_HEAT, strict=True)], axis=-1)
