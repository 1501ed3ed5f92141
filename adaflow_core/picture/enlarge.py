"""An edit at the working size, laid over the source frame at the source's own size.

Around each pixel, the change of colours by the edit is fitted as an affine map of the source's colours (guided filter,
He et al., arXiv 1505.00996). The same map is applied to the detail that the source has beyond its enlarged working
picture, so that a recoloured thing stays as sharp as it was. Where no such map explains the edit, it shows something
else than the source, whose detail would appear as a ghost. There the edited picture alone is enlarged, and its edges
are made steeper.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import gcd
from typing import NamedTuple

import cv2
import numpy as np

# Chosen on the drawn world's validation scenes. Lengths in pixels of the working size, colours in levels of 0..255.
RADIUS = 1  # of the windows in which the map is fitted
NOISE = 5.0  # variance of a colour below which it says little about the edit
FLAT = 30.0  # variance of the edited picture below which the map need not explain it
DOUBT = 10.0  # weight of the variance that the map leaves unexplained
NEAR = 1  # pixels on each side of an edge in which its darkest and brightest colours are looked for
STEEPER = 0.8  # slope of a steepened edge, as a part of a perfect edge's
FAINT, CLEAR = 16.0, 48.0  # contrasts: up to the first an edge stays as it is, from the second on it is made steeper
UNLIKE = 25.0  # levels by which a steeper picture, made small again, may differ from the edited one
MARGIN = 8  # pixels around a pixel on which it depends
TILE = 640  # side of the tiles that are made at a time, in pixels of the source's size: a tile must fit a core's cache

_SUM = np.ones((1, 3), np.float32)


class Cut(NamedTuple):
    """A range of rows or columns, in pixels of the working size and of the source's size."""

    small: slice
    full: slice


def lay_over(
    source: np.ndarray,  # [H, W, 3] uint8
    small: np.ndarray,  # [h, w, 3] uint8, the same frame at the working size
    edited: np.ndarray,  # [h, w, 3] uint8
    bounds: np.ndarray | None = None,  # [h, w] 0 outside the region that was edited
) -> np.ndarray:
    """Return the source frame with the edit laid over it, [H, W, 3] uint8.

    It is the source, byte for byte, except where `edited` differs from `small` and in the pixels beside those. Outside
    `bounds`, the pixels beside are the source's too.
    """
    out, changed = source.copy(), _most(cv2.absdiff(small, edited))
    inside = None if bounds is None else ((bounds > 0) | (changed > 0)).astype(np.uint8)
    for (rows, near_rows), (columns, near_columns) in _tiles(changed, *source.shape[:2]):
        near = near_rows.small, near_columns.small
        where = _linear(_spread(changed[near]).astype(np.float32), _size(near_rows, near_columns))
        if inside is not None:
            where *= _blocks(inside[near], _size(near_rows, near_columns))
        made = _enlarged(small[near], edited[near], source[near_rows.full, near_columns.full], where)
        out[rows.full, columns.full] = made[
            _within(rows.full, near_rows.full), _within(columns.full, near_columns.full)
        ]
    return out


def _size(rows: Cut, columns: Cut) -> tuple[int, int]:
    """Return (width, height) in pixels of the source's size."""
    return columns.full.stop - columns.full.start, rows.full.stop - rows.full.start


def _within(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)


def _tiles(changed: np.ndarray, height: int, width: int) -> Iterator[tuple[tuple[Cut, Cut], tuple[Cut, Cut]]]:
    """Yield the rows and columns of tiles that cover `changed` [h, w], each with those from which they are made.

    They begin and end on a border of pixels at both sizes, so that a tile is enlarged as it is within the whole frame.
    """
    h, w = changed.shape
    near = _spread(_spread(changed))
    tall, wide = _side(h, height), _side(w, width)
    for top, left in product(range(0, h, tall), range(0, w, wide)):
        inside = near[top : top + tall, left : left + wide]
        if inside.any():
            (first, last), (begin, end) = (np.flatnonzero(inside.any(axis=axis))[[0, -1]].tolist() for axis in (1, 0))
            rows = _with_margin(top + first, top + last + 1, h, height)
            yield rows, _with_margin(left + begin, left + end + 1, w, width)


def _side(small: int, full: int) -> int:
    """Return the side of a tile of about `TILE` pixels at the source's size, in pixels of the working size."""
    step = small // gcd(small // 2, full)
    return step * max(1, round(TILE * small / full / step))


def _with_margin(first: int, end: int, small: int, full: int) -> tuple[Cut, Cut]:
    inner = _cut(first, end, small, full)
    return inner, _cut(inner.small.start - MARGIN, inner.small.stop + MARGIN, small, full)


def _cut(first: int, end: int, small: int, full: int) -> Cut:
    """Return the least `Cut` with `first` to `end` in it, of a side of `small` pixels that is enlarged to `full`."""
    parts = gcd(small // 2, full)
    step = small // parts
    first, end = max(first // step, 0), min(-(-end // step), parts)
    return Cut(slice(first * step, end * step), slice(first * (full // parts), end * (full // parts)))


def _enlarged(small: np.ndarray, edited: np.ndarray, source: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return a part of a frame, [H, W, 3] uint8; `where` [H, W] 0..1 is how far it is changed."""
    size = source.shape[1], source.shape[0]
    was, now = (cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC) for picture in (small, edited))
    gains, doubt = _fit(small.astype(np.float32), edited.astype(np.float32))
    change = cv2.subtract(now, was, dtype=cv2.CV_32F)
    detail = cv2.subtract(source, was, dtype=cv2.CV_32F)
    for gain, colour in zip(gains, cv2.split(detail), strict=True):
        cv2.accumulateProduct(_linear(gain, size), _three(colour), change)
    if doubt.any():
        steep, share = _steeper(edited, now)
        share *= _three(_linear(doubt, share.shape[1::-1]))
        cv2.accumulateProduct(_linear(share, size), cv2.subtract(steep, now, dtype=cv2.CV_32F), change)
    return cv2.add(source, cv2.multiply(change, _three(where), dst=change), dtype=cv2.CV_8U)


def _fit(was: np.ndarray, now: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Fit the change as an affine map of the source's colours, in windows of 6x6 pixels.

    Returns what a level of the source's red, green and blue adds to the change, three [h/2, w/2, 3], and the doubt in
    them, [h/2, w/2] 0..1.
    """
    change = now - was
    mean, mean_change, mean_now = _window(was), _window(change), _window(now)
    planes, means = [_three(c) for c in cv2.split(was)], [_three(c) for c in cv2.split(mean)]
    shared = [_window(c * change) - m * mean_change for c, m in zip(planes, means, strict=True)]
    variance = [cv2.split(_window(c * was) - m * mean) for c, m in zip(planes, means, strict=True)]
    inverse = [[_three(weight) for weight in row] for row in _inverse(variance)]
    gains = [sum(weight * part for weight, part in zip(row, shared, strict=True)) for row in inverse]
    explained = sum(gain * part for gain, part in zip(gains, shared, strict=True))
    rest = cv2.transform(_window(change * change) - mean_change * mean_change - explained, _SUM).clip(0)
    seen = cv2.transform(_window(now * now) - mean_now * mean_now, _SUM).clip(0) + FLAT
    trust = _box(seen / (seen + DOUBT * rest))
    for i, gain in enumerate(gains := [_box(gain) * _three(trust) for gain in gains]):
        gain[..., i] -= 1 - trust  # where in doubt, the source's own detail is taken out: a gain of -1
    return gains, 1 - trust


def _inverse(m: list[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
    """Invert symmetric 3x3 matrices, with `NOISE` added to their diagonals."""
    (a, b, c), (_, d, e), (_, _, f) = m
    a, d, f = a + NOISE, d + NOISE, f + NOISE
    p, q, r, s, t, u = d * f - e * e, c * e - b * f, b * e - c * d, a * f - c * c, b * c - a * e, a * d - b * b
    p, q, r, s, t, u = (x / determinant for determinant in [a * p + b * q + c * r] for x in (p, q, r, s, t, u))
    return [[p, q, r], [q, s, t], [r, t, u]]


def _steeper(edited: np.ndarray, enlarged: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the enlarged picture [H, W, 3] with steeper edges, and how far to trust it, [h, w, 3] 0..1.

    A colour is moved away from the middle between the darkest and the brightest around it, at most to one of these. The
    result is trusted where it matches the edited picture [h, w, 3] when reduced again.
    """
    (h, w), size = edited.shape[:2], (enlarged.shape[1], enlarged.shape[0])
    reach = np.ones((2 * NEAR + 1, 2 * NEAR + 1), np.uint8)
    low, high = _box(cv2.erode(edited, reach)), _box(cv2.dilate(edited, reach))
    slope = max(STEEPER * size[0] / w, 1)
    darkest, brightest = _linear(low, size), _linear(high, size)
    middle = cv2.addWeighted(darkest, 0.5, brightest, 0.5, 0)
    steep = cv2.addWeighted(enlarged, slope, middle, 1 - slope, 0)
    steep = cv2.min(cv2.max(steep, darkest), brightest)
    error = _most(cv2.absdiff(cv2.resize(steep, (w, h), interpolation=cv2.INTER_AREA), edited))
    contrast = cv2.subtract(high, low, dtype=cv2.CV_32F)
    likeness = 1 - _box(error.astype(np.float32)) / UNLIKE
    return steep, _three(likeness.clip(0, 1)) * ((contrast - FAINT) / (CLEAR - FAINT)).clip(0, 1)


def _most(picture: np.ndarray) -> np.ndarray:
    """Return the largest of each pixel's three colours."""
    red, green, blue = cv2.split(picture)
    return cv2.max(cv2.max(red, green), blue)


def _spread(changed: np.ndarray) -> np.ndarray:
    """Return 1 where a pixel, or one beside it, is not 0, else 0."""
    return cv2.dilate(np.minimum(changed, 1), np.ones((3, 3), np.uint8))


def _box(picture: np.ndarray) -> np.ndarray:
    return cv2.blur(picture, (2 * RADIUS + 1, 2 * RADIUS + 1), borderType=cv2.BORDER_REFLECT)


def _window(picture: np.ndarray) -> np.ndarray:
    """Return means over windows of 6x6 pixels, at half the size."""
    h, w = picture.shape[:2]
    return _box(cv2.resize(picture, (w // 2, h // 2), interpolation=cv2.INTER_AREA))


def _linear(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)


def _blocks(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge [h, w] so that each pixel fills exactly the block that it covers."""
    # Not by OpenCV: it rounds its steps, so that a block on the right begins a pixel early.
    columns, rows = ((2 * np.arange(n) + 1) * m // (2 * n) for n, m in zip(size, picture.shape[::-1], strict=True))
    return picture[:, columns][rows]


def _three(plane: np.ndarray) -> np.ndarray:
    return cv2.merge([plane, plane, plane])
