"""An edit at the working size, laid over the source frame at the source's own size.

What the edit did to the colours around a place is fitted there as an affine map of the source's colours (guided filter,
He et al., arXiv 1505.00996). The same map takes the detail that the source has and its enlarged working picture has not,
so that a recoloured thing is as sharp as it was. Where no such map explains the edit, something else is shown than in
the source, whose detail would be a ghost: there the edited picture alone is enlarged, and its edges are made steeper.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import gcd
from typing import NamedTuple

import cv2
import numpy as np

# Chosen on the drawn world's validation scenes. Lengths in pixels of the working size, colours in levels of 0..255.
RADIUS = 1  # of the windows in which the map is fitted
NOISE = 20.0  # variance of a colour under which it tells little of the edit
FLAT = 30.0  # variance of the edited picture under which the map need not explain it
DOUBT = 4.0  # how much the variance counts that the map leaves unexplained
NEAR = 2  # reach of the enlargement, and of the darkest and brightest colour around an edge
STEEPER = 0.6  # of a perfect edge's slope
FAINT, CLEAR = 16.0, 48.0  # contrasts: up to the first an edge stays as it is, from the second on it is made steeper
UNLIKE = 15.0  # levels by which a steeper picture, made small again, may differ from the edited one
MARGIN = 8  # pixels around that a pixel depends on
BAND = 48  # rows made at a time, so that what they need stays in the processor's cache


class Cut(NamedTuple):
    """The same stretch of a side in pixels of the working size and of the source's."""

    small: slice
    full: slice


def lay_over(
    source: np.ndarray,  # [H, W, 3] uint8
    small: np.ndarray,  # [h, w, 3] uint8, the same frame at the working size
    edited: np.ndarray,  # [h, w, 3] uint8
    pool: ThreadPoolExecutor,
) -> np.ndarray:
    """[H, W, 3] uint8: the source, byte for byte, but where `edited` differs from `small`."""
    out = source.copy()

    def make(band: tuple[Cut, Cut, Cut]) -> None:
        inner, rows, columns = band
        part = rows.small, columns.small
        made = _enlarged(small[part], edited[part], source[rows.full, columns.full])
        first, end = inner.full.start - rows.full.start, inner.full.stop - rows.full.start
        out[inner.full, columns.full] = made[first:end]

    list(pool.map(make, _bands((small != edited).any(axis=-1), source.shape[0], source.shape[1])))
    return out


def _bands(changed: np.ndarray, height: int, width: int) -> Iterator[tuple[Cut, Cut, Cut]]:
    """Rows to make, and the rows and columns to make them from, until all of `changed` [h, w] is covered.

    They begin and end between two pixels at both sizes, so that a part is enlarged as it is within the frame.
    """
    h, w = changed.shape
    near = _spread(changed, NEAR)
    step = h // gcd(h, height)
    step *= -(-BAND // step)
    for top in range(0, h, step):
        columns = np.flatnonzero(near[top : top + step].any(axis=0))
        if len(columns):
            inner = _cut(top, top + step, h, height)
            rows = _cut(top - MARGIN, top + step + MARGIN, h, height)
            yield inner, rows, _cut(int(columns[0]) - MARGIN, int(columns[-1]) + 1 + MARGIN, w, width)


def _cut(first: int, end: int, small: int, full: int) -> Cut:
    """The least stretch with `first` to `end` in it, of a side of `small` pixels that becomes one of `full`."""
    parts = gcd(small, full)
    step = small // parts
    first, end = max(first // step, 0), min(-(-end // step), parts)
    return Cut(slice(first * step, end * step), slice(first * (full // parts), end * (full // parts)))


def _enlarged(small: np.ndarray, edited: np.ndarray, source: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8 of a part of a frame."""
    size = source.shape[1], source.shape[0]
    where = _spread((small != edited).any(axis=-1), 1).astype(np.float32)
    was, now, full = (picture.astype(np.float32) for picture in (small, edited, source))
    gains, doubt = _fit(was, now)
    change = cv2.resize(now - was, size, interpolation=cv2.INTER_CUBIC)
    detail = full - cv2.resize(was, size, interpolation=cv2.INTER_CUBIC)
    for gain, colour in zip(gains, cv2.split(detail), strict=True):
        cv2.accumulateProduct(_linear(gain, size), _three(colour), change)
    doubt *= where
    if doubt.any():
        change += _steeper(edited, size) * _three(_linear(doubt, size))
    change *= _three(_linear(where, size))
    change += full
    return np.rint(change, out=change).clip(0, 255, out=change).astype(np.uint8)


def _fit(was: np.ndarray, now: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """What a level of the source's red, green and blue adds to the change: three [h, w, 3]; doubt of it [h, w] 0..1."""
    change = now - was
    mean, mean_change, mean_now = _box(was), _box(change), _box(now)
    planes, means = cv2.split(was), cv2.split(mean)
    shared = [_box(_three(c) * change) - _three(m) * mean_change for c, m in zip(planes, means, strict=True)]
    variance = {
        (i, j): _box(planes[i] * planes[j]) - means[i] * means[j] + (NOISE if i == j else 0)
        for i in range(3)
        for j in range(i, 3)
    }
    inverse = _inverse(variance)
    gains = [sum(_three(inverse[min(i, j), max(i, j)]) * shared[j] for j in range(3)) for i in range(3)]
    explained = sum((gain * part).sum(axis=-1) for gain, part in zip(gains, shared, strict=True))
    rest = np.maximum((_box(change**2) - mean_change**2).sum(axis=-1) - explained, 0)
    seen = np.maximum((_box(now**2) - mean_now**2).sum(axis=-1), 0) + FLAT
    trust = _box(seen / (seen + DOUBT * rest))
    gains = [_box(gain) for gain in gains]
    for i, gain in enumerate(gains):  # of the edited picture rather than of the change, which is as much as there is
        gain *= _three(trust)
        gain[..., i] -= 1 - trust
    return gains, 1 - trust


def _inverse(m: dict[tuple[int, int], np.ndarray]) -> dict[tuple[int, int], np.ndarray]:
    """Of symmetric matrices of three rows, given and returned as their upper triangles."""
    (a, b, c), (d, e), f = (m[0, 0], m[0, 1], m[0, 2]), (m[1, 1], m[1, 2]), m[2, 2]
    cofactors = {
        (0, 0): d * f - e * e, (0, 1): c * e - b * f, (0, 2): b * e - c * d,
        (1, 1): a * f - c * c, (1, 2): b * c - a * e, (2, 2): a * d - b * b,
    }  # fmt: skip
    determinant = a * cofactors[0, 0] + b * cofactors[0, 1] + c * cofactors[0, 2]
    return {place: value / determinant for place, value in cofactors.items()}


def _steeper(edited: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What makes the edges of the enlarged picture steeper [H, W, 3], where that agrees with the edited one [h, w, 3].

    A colour moves away from the middle between the darkest and the brightest around it, up to these.
    """
    h, w = edited.shape[:2]
    reach = np.ones((2 * NEAR + 1, 2 * NEAR + 1), np.uint8)
    low, high = (_box(x.astype(np.float32)) for x in (cv2.erode(edited, reach), cv2.dilate(edited, reach)))
    middle, half = _linear((low + high) / 2, size), _linear((high - low) / 2, size)
    enlarged = cv2.resize(edited.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    steep = (enlarged - middle) * (STEEPER * size[0] / w)
    steep = np.minimum(np.maximum(steep, -half, out=steep), half, out=steep) + middle
    error = np.abs(cv2.resize(steep, (w, h), interpolation=cv2.INTER_AREA) - edited).max(axis=-1)
    share = _three((1 - _box(error) / UNLIKE).clip(0, 1)) * ((high - low - FAINT) / (CLEAR - FAINT)).clip(0, 1)
    return (steep - enlarged) * _linear(share, size)


def _spread(mask: np.ndarray, reach: int) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))


def _box(picture: np.ndarray) -> np.ndarray:
    return cv2.blur(picture, (2 * RADIUS + 1, 2 * RADIUS + 1), borderType=cv2.BORDER_REFLECT)


def _linear(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)


def _three(plane: np.ndarray) -> np.ndarray:
    return cv2.merge([plane, plane, plane])
