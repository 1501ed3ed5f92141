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
OFF = 1 / 16  # pixels of the source's size by which a tile may be moved where the sides share few factors
APART = 16  # pairs of pixels of the working size among which a tile's beginning is looked for there

_SUM = np.ones((1, 3), np.float32)


class Cut(NamedTuple):
    """A range of rows or columns, in pixels of the working size and of the source's size."""

    small: slice
    full: slice

    def within(self, whole: Cut) -> slice:
        """Return the range in pixels of the source's size, counted from the beginning of `whole`."""
        return slice(self.full.start - whole.full.start, self.full.stop - whole.full.start)


class Grid:
    """Where tiles can begin and end along one side of a frame, of `small` pixels that are enlarged to `full`.

    A tile is enlarged as it is within the whole frame if pixels of both sizes begin where it begins. Of the working
    size, that must be an even pixel, as the map is fitted at half that size. Where the two sides share so few factors
    that such places are far apart, tiles also begin where the pixels miss each other by next to nothing.
    """

    def __init__(self, small: int, full: int) -> None:
        self.small, self.full = small, full
        parts = gcd(small // 2, full)
        self.places = np.arange(parts + 1) * (small // parts)  # ascending, of the working size
        if full / parts > TILE / 2:
            even = np.arange(0, small, 2)
            off = np.abs(even * full / small - np.rint(even * full / small))
            best = [start + int(off[start : start + APART].argmin()) for start in range(0, len(even), APART)]
            self.places = np.append(even[[place for place in best if off[place] <= OFF]], small)

    @property
    def tiles(self) -> list[slice]:
        """Ranges of about `TILE` pixels at the source's size, in pixels of the working size."""
        parts = len(self.places) - 1
        at_once = max(1, round(TILE * parts / self.full))
        firsts = range(0, parts, at_once)
        return [slice(*self.places[[first, min(first + at_once, parts)]].tolist()) for first in firsts]

    def cut(self, first: int, end: int) -> Cut:
        """Return the least `Cut` in which the pixels `first` to `end` - 1 of the working size are."""
        begin = np.searchsorted(self.places, max(first, 0), "right") - 1
        stop = np.searchsorted(self.places, min(end, self.small))
        small = slice(int(self.places[begin]), int(self.places[stop]))
        return Cut(small, slice(*(round(place * self.full / self.small) for place in (small.start, small.stop))))

    def with_margin(self, cut: Cut) -> Cut:
        """Return `cut` with the pixels around it on which its pixels depend."""
        return self.cut(cut.small.start - MARGIN, cut.small.stop + MARGIN)

    def blocks(self, cut: Cut) -> np.ndarray:
        """Return which of the cut's pixels of the working size covers each one of the source's size, [N]."""
        # Not by OpenCV: it rounds its steps, so that a block on the right begins a pixel early.
        middles = 2 * np.arange(cut.full.start, cut.full.stop) + 1
        return middles * self.small // (2 * self.full) - cut.small.start


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
    down, across = (Grid(*sides) for sides in zip(changed.shape, source.shape[:2], strict=True))
    for rows, columns in _tiles(_spread(_spread(changed)), down, across):
        near_rows, near_columns = down.with_margin(rows), across.with_margin(columns)
        near, part = (near_rows.small, near_columns.small), source[near_rows.full, near_columns.full]
        where = _linear(_spread(changed[near]).astype(np.float32), part.shape[1::-1])
        if inside is not None:
            where *= inside[near][:, across.blocks(near_columns)][down.blocks(near_rows)]
        made = _enlarged(small[near], edited[near], part, where)
        out[rows.full, columns.full] = made[rows.within(near_rows), columns.within(near_columns)]
    return out


def _tiles(near: np.ndarray, down: Grid, across: Grid) -> Iterator[tuple[Cut, Cut]]:
    """Yield the rows and columns of tiles that cover what is not 0 of `near` [h, w]."""
    for tall, wide in product(down.tiles, across.tiles):
        inside = near[tall, wide]
        if inside.any():
            (first, last), (begin, end) = (np.flatnonzero(inside.any(axis=axis))[[0, -1]].tolist() for axis in (1, 0))
            rows = down.cut(tall.start + first, tall.start + last + 1)
            yield rows, across.cut(wide.start + begin, wide.start + end + 1)


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


def _three(plane: np.ndarray) -> np.ndarray:
    return cv2.merge([plane, plane, plane])
