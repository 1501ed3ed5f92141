"""A mask carried from the frames on which it was painted to all frames.

From frame to frame it goes along the source's optical flow, there and back from every painted frame. Where the flow
cannot be trusted and at the mask's edge colours decide: how much more often a colour occurs inside the mask than
outside, in the painted frames and in those just passed. So a thing that comes into sight again, or stands in another
shot, is found again, unless its surroundings have its colours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from adaflow_core.progress import Stage
from adaflow_core.storage.arrays import scratch

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

BINS = 16  # of a histogram, in each of three channels
RARE = 2e-4  # the share of pixels that a colour must have to say something
MOST = 4.0  # log odds that a colour may say
UNCLEAR = 1.0  # log odds up to which a colour says nothing
CERTAIN = 5.0  # log odds at which a carried mask is held
DOUBT = -1.0  # log odds of being inside where nothing was carried
BAND = 1 / 50  # of the shorter side: how far from the mask's edge colours count in full
FLAT = 0.15  # what they count for elsewhere
LEARN = 0.1  # what a frame adds to the colours that were seen
LIKE = 24.0  # levels of 0..255 by which a pixel may differ from that from which its mask comes
MISS = 1.0  # pixels by which the flow there and back may miss its origin
DISTINCT = 0.5  # IoU that colours alone must reach on the painted frames to find a thing in another shot
SMALLEST = 0.004  # of the painted area: pieces and holes below it are taken for errors


@dataclass(frozen=True)
class Source:
    """The frames along which a mask is carried, and their motion."""

    frames: np.ndarray  # [T, H, W, 3] uint8
    flow: np.ndarray  # [T - 1, 2, H / 2, W / 2, 2], as `source_flow` gives it

    def motion(self, t: int, other: int) -> tuple[Floats, Floats]:
        """[H, W, 2] pixels (x, y) from frame `t` to its neighbour `other`, and from there to `t`."""
        pair = self.flow[min(t, other)].astype(np.float32)
        size = self.frames.shape[2], self.frames.shape[1]
        there, back = (cv2.resize(way, size) for way in (pair if other > t else pair[::-1]))
        return there, back


class Colours:
    """Densities of colours [3, BINS ** 3] inside, outside and just around: as painted, and in frames just passed."""

    def __init__(self, painted: Floats, unclear: float = UNCLEAR) -> None:
        self._painted, self._recent, self._unclear = painted, painted.copy(), unclear
        self._known = self._table()

    @classmethod
    def of(cls, frames: np.ndarray, painted: Mapping[int, Bools]) -> Colours:
        return cls(np.mean([densities(bins(frames[t]), sides(inside)) for t, inside in painted.items()], axis=0))

    def again(self) -> Colours:
        """Without what was seen since the painted frames."""
        return Colours(self._painted, self._unclear)

    def odds(self, frame: np.ndarray) -> Floats:
        """[H, W] log odds by which a pixel's colour is one of the region's."""
        return cv2.blur(self._table()[bins(frame)], (3, 3)).astype(np.float32)

    def learn(self, frame: np.ndarray, mask: Floats) -> None:
        """Take in the colours of a frame; those that are known to be of one side are not learned for the other."""
        where = bins(frame)
        known, inside = self._known[where], mask > 0.5
        right = (known >= 0) & (mask > 0.9), (known <= 0) & (mask < 0.1)
        weights = sides(inside) & np.stack([right[0], right[1], right[1]])
        if weights.any(axis=(1, 2)).all():
            self._recent += LEARN * (densities(where, weights) - self._recent)

    def _table(self) -> Floats:
        """[BINS ** 3] log odds; 0 where a colour is not clearly of one side."""
        mixed = (self._painted + self._recent) / 2 + RARE
        odds = np.log(mixed[0] / mixed[1:].max(axis=0))
        return np.sign(odds) * (np.abs(odds) - self._unclear).clip(0, MOST)


def sides(inside: Bools) -> Bools:
    """[3, H, W]: inside, outside, and the part of it around the mask that is about as large as the mask."""
    width = 2 * max(2, round(0.25 * float(np.sqrt(inside.sum())))) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    return np.stack([inside, ~inside, (cv2.dilate(inside.astype(np.uint8), kernel) > 0) & ~inside])


def bins(frame: np.ndarray) -> NDArray[np.int32]:
    """[H, W] the bin of each pixel's colour."""
    lab = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2LAB).astype(np.int32) * BINS // 256
    return (lab[..., 0] * BINS + lab[..., 1]) * BINS + lab[..., 2]


def densities(
    where: NDArray[np.int32],  # [H, W]
    weights: np.ndarray,  # [N, H, W]
) -> Floats:
    """[N, BINS ** 3], each summing to 1, smoothed over neighbouring bins."""
    found = []
    for weight in weights:
        counts: np.ndarray = np.bincount(where.ravel(), weight.ravel(), BINS**3).reshape(BINS, BINS, BINS)
        for axis in range(3):
            padded = np.pad(counts, [(1, 1) if a == axis else (0, 0) for a in range(3)])
            low, middle, high = (np.take(padded, np.arange(BINS) + i, axis) for i in range(3))
            counts = (low + 2 * middle + high) / 4
        found.append(counts.ravel() / counts.sum().clip(min=1))
    return np.stack(found).astype(np.float32)


def carry(source: Source, cuts: np.ndarray, painted: Mapping[int, Bools], stage: Stage) -> NDArray[np.uint8]:
    """[T, H, W] uint8, 255 inside: the masks of all frames. The stage counts frames twice."""
    T, H, W, _ = source.frames.shape
    out = scratch(np.uint8, (T, H, W))
    colours = Colours.of(source.frames, painted)
    smallest = SMALLEST * float(np.mean([inside.sum() for inside in painted.values()]))
    distinct = np.mean([iou(alone(colours, source.frames[t]) > 0.5, inside) for t, inside in painted.items()])
    for begin, end in pairwise([0, *(int(cut) for cut in cuts), T]):
        shot = range(begin, end)
        known: dict[int, Floats] = {t: painted[t].astype(np.float32) for t in shot if t in painted}
        if not known and distinct >= DISTINCT:
            _pass(source, colours.again(), shot, {begin: alone(colours, source.frames[begin])}, out, stage)
            best = begin + int(np.argmax([(out[t] > 127).sum() for t in shot]))
            known = {best: out[best] / np.float32(255)}
        if not known:
            out[begin:end] = 0
            continue
        _pass(source, colours.again(), shot, known, out, stage)
        _pass(source, colours.again(), shot[::-1], known, out, stage)
        for t in shot:
            out[t] = np.where(cleaned(painted[t] if t in painted else out[t] > 127, smallest), 255, 0)
    return out


def _pass(
    source: Source, colours: Colours, shot: range, known: Mapping[int, Floats], out: NDArray[np.uint8], stage: Stage
) -> None:
    """One way through a shot. The way back is laid over what is there, by the distances to what is known."""
    frames, state, places = source.frames, None, np.array(sorted(known))
    for t in shot:
        stage.advance()
        if t in known:
            state, colours = known[t], colours.again()
        elif state is not None:
            other = t - shot.step
            state = step(colours, frames[t], frames[other], state, *source.motion(t, other))
            colours.learn(frames[t], state)
        if state is None:
            continue
        before, after = places[places <= t], places[places >= t]
        share = 1.0
        if shot.step < 0 and len(before):  # else this way alone has come here
            share = (t - before[-1]) / max(after[0] - before[-1], 1)
        out[t] = ((1 - share) * out[t] + share * 255 * state).round() if share < 1 else (255 * state).round()


def step(
    colours: Colours,
    frame: np.ndarray,  # [H, W, 3] uint8
    other: np.ndarray,  # [H, W, 3] its neighbour
    mask: Floats,  # [H, W] 0..1, that of the neighbour
    there: Floats,  # [H, W, 2] the flow to the neighbour
    back: Floats,  # and from it
) -> Floats:
    """[H, W] 0..1: the mask of `frame`."""
    H, W = mask.shape
    x, y = np.meshgrid(np.arange(W, dtype=np.float32), np.arange(H, dtype=np.float32))
    u, v = x + there[..., 0], y + there[..., 1]
    carried, returned, looked = (
        cv2.remap(picture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for picture in (mask, back, np.ascontiguousarray(other))
    )
    found = (np.square(there + returned).sum(-1) < MISS**2) & (u >= 0) & (v >= 0) & (u <= W - 1) & (v <= H - 1)
    differs = cv2.blur(np.square(frame.astype(np.float32) - looked).mean(-1), (3, 3))
    trust = found * np.exp(-differs / LIKE**2)

    prior = np.clip(np.log((carried + 1e-3) / (1 - carried + 1e-3)), -CERTAIN, CERTAIN)
    prior = trust * prior + (1 - trust) * (DOUBT + 0.3 * prior)
    width = 2 * max(1, round(BAND * min(H, W))) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    inside = (carried > 0.5).astype(np.uint8)
    band = cv2.dilate(inside, kernel) > cv2.erode(inside, kernel)
    share = np.maximum(np.maximum(band, 1 - trust), FLAT)
    return guided(frame, probability(prior + share * colours.odds(frame)))


def alone(colours: Colours, frame: np.ndarray) -> Floats:
    """[H, W] 0..1: the mask of a frame of which nothing is known but its colours."""
    return guided(frame, probability(DOUBT + colours.odds(frame)))


def probability(odds: np.ndarray) -> Floats:
    return (1 / (1 + np.exp(-odds))).astype(np.float32)


def guided(frame: np.ndarray, mask: Floats, radius: int = 3, least: float = 1e-3) -> Floats:
    """`mask` with the edges of `frame`: guided filter (He et al. 2010), of which `least` is the regularisation."""
    guide = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2LAB).astype(np.float32) / 255
    radius = max(1, round(radius * min(mask.shape) / 256))
    window = 2 * radius + 1, 2 * radius + 1

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, window)

    products = mean((guide[..., :, None] * guide[..., None, :]).reshape(*mask.shape, 9)).reshape(*mask.shape, 3, 3)
    m, p = mean(guide), mean(mask)
    spread = products - m[..., :, None] * m[..., None, :] + least * np.eye(3, dtype=np.float32)
    slope = np.linalg.solve(spread, (mean(guide * mask[..., None]) - m * p[..., None])[..., None])[..., 0]
    offset = p - (slope * m).sum(-1)
    return ((mean(slope) * guide).sum(-1) + mean(offset)).clip(0, 1).astype(np.float32)


def cleaned(inside: Bools, smallest: float) -> Bools:
    """`inside` [H, W] without pieces and holes of less than `smallest` pixels."""
    for value in (True, False):
        _, labels, stats, _ = cv2.connectedComponentsWithStats((inside == value).astype(np.uint8), connectivity=4)
        small = stats[:, cv2.CC_STAT_AREA] < smallest
        small[0] = False  # all else
        inside = np.where(small[labels], not value, inside)
    return inside


def iou(found: Bools, true: Bools) -> float:
    """Intersection over union; 1 where both are empty."""
    union = (found | true).sum()
    return float((found & true).sum() / union) if union else 1.0
