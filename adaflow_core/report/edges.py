"""Rims: wrong colours, mostly left over from the source, along the edge of what an edit changed.

No picture of the right result is needed. Across a clean edge, colours go from those inside to those outside, so each
pixel of the edge is between the two. A rim is not: it may be the orange outline of a balloon between a rocket and the
sea. Rims are looked for where the source has an outline, as they are what is left of one; a mean over the frame would
hide them.

On seven pairs of the drawn world, three frames each, true edits have 1 to 15 % of `rims`, and 16 to 32 % with one pixel
of the source left along the edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adaflow_core.progress import Monitor
from adaflow_core.report.canvas import PLACE, Picture, at_least

CHANGED = 8.0  # levels of 0..255: root mean square change of the colours from which a pixel counts as changed
RIM = 16.0  # levels: a colour this far from between those on both sides can be seen
OUTLINE = 12.0  # levels per pixel: gradient of the source from which it is an outline
LARGEST_PART = 0.97  # if more of the frame changed, there is no edge to look at
_SAMPLE = 32  # most frames that are looked at


@dataclass(frozen=True)
class Edges:
    """The edges of what an edit changed, over the frames that were looked at."""

    error: float  # levels of 0..255: how far the edge's colours are from between inside and outside; see `edge_errors`
    rims: float  # 0..1, share of the edge's pixels that are a visible rim
    worst: int  # the frame with most rims


def edges(
    frames: np.ndarray, source: np.ndarray, edited: Sequence[int] | None = None, *, monitor: Monitor
) -> Edges | None:
    """Look for rims in `frames` [T, H, W, 3] uint8, an edit of `source`, among those that are `edited` (default: all).

    None if the change has no edge. Not for an edit of the style, which has no edge either: this cannot tell one.
    """
    ids = np.arange(len(frames)) if edited is None else np.asarray(edited, np.int64)
    sample = ids[np.unique(np.linspace(0, len(ids) - 1, min(_SAMPLE, len(ids))).round().astype(int))]
    square, seen, pixels, worst, most = 0.0, 0, 0, 0, -1
    with monitor.stage("score", len(sample)) as stage:
        for t in sample:
            found = edge_errors(frames[t], source[t])
            stage.advance()
            if found is None:
                continue
            edge, error = found
            rim = int((error >= RIM).sum())
            square, seen, pixels = square + float(np.square(error).sum()), seen + rim, pixels + int(edge.sum())
            if rim > most:
                worst, most = int(t), rim
    return Edges(float(np.sqrt(square / pixels)), seen / pixels, worst) if pixels else None


def edge_errors(frame: Picture, source: Picture) -> tuple[np.ndarray, np.ndarray] | None:
    """Return where the edge of what changed in `frame` is an outline of `source`, and how wrong its colours are.

    The edge is [H, W] bool. The errors are [H, W] float32 in levels of 0..255: how far a colour is from between those
    inside and outside, less what the source itself has there; 0 off the edge. None if there is no edge.
    """
    import cv2

    reach = max(2, round(min(frame.shape[:2]) / 100))
    window = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    change = np.sqrt(np.square(frame.astype(np.float32) - source).mean(axis=-1))
    changed = (change >= CHANGED).astype(np.uint8)
    changed = cv2.morphologyEx(changed, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    changed = cv2.morphologyEx(changed, cv2.MORPH_CLOSE, window)  # thin unchanged lines inside do not count as outside
    inside, outside = cv2.erode(changed, window) > 0, cv2.dilate(changed, window) == 0
    edge = ~inside & ~outside & _near(inside, 3 * reach) & _near(outside, 3 * reach) & _outline(source)
    if not edge.any() or changed.mean() > LARGEST_PART:
        return None
    beside, own = (_beside(picture, inside, outside, 3 * reach) for picture in (frame, source))
    error = np.sqrt(np.clip(np.square(beside) - np.square(own), 0, None))
    return edge, np.where(edge, error, 0).astype(np.float32)


def rim_picture(frame: Picture, source: Picture, side: int = 320) -> Picture:
    """Return `frame` with its rims outlined, enlarged to at least `side` pixels."""
    import cv2

    found = edge_errors(frame, source)
    picture = at_least(frame, side).copy()
    if found is not None:
        height, width = picture.shape[:2]
        rims = cv2.resize((found[1] >= RIM).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        around = cv2.dilate(rims, np.ones((9, 9), np.uint8)) - cv2.dilate(rims, np.ones((5, 5), np.uint8))
        picture[around > 0] = PLACE
    return picture


def _near(mask: np.ndarray, reach: int) -> np.ndarray:
    import cv2

    return np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8)) > 0)


def _outline(picture: Picture) -> np.ndarray:
    import cv2

    colours = picture.astype(np.float32)
    across, down = (cv2.Sobel(colours, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1)))
    return _near(np.sqrt((across**2 + down**2).mean(axis=-1)) >= OUTLINE, 1)


def _beside(picture: Picture, inside: np.ndarray, outside: np.ndarray, reach: int) -> np.ndarray:
    """Return [H, W] float32, how far each colour is from the line between the mean colours nearby on either side."""
    import cv2

    def mean(mask: np.ndarray) -> np.ndarray:
        weight = mask.astype(np.float32)
        size = (2 * reach + 1, 2 * reach + 1)
        total = cv2.blur(picture.astype(np.float32) * weight[..., None], size)
        return np.asarray(total / np.maximum(cv2.blur(weight, size), 1e-6)[..., None])

    first, second = mean(inside), mean(outside)
    line, own = second - first, picture.astype(np.float32) - first
    along = ((own * line).sum(axis=-1) / np.maximum(np.square(line).sum(axis=-1), 1e-6)).clip(0, 1)
    return np.asarray(np.sqrt(np.square(own - along[..., None] * line).mean(axis=-1)))
