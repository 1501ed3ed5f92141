"""A mask carried from the frames on which it was painted to all frames.

From frame to frame it goes along the source's optical flow, there and back from every painted frame. Where the flow
cannot be trusted and at the mask's edge colours decide: how much more often a colour occurs inside the mask than
outside, in the painted frame and in the frames just passed. So a thing that comes into sight again is found again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from adaflow_core.progress import Stage

Floats = NDArray[np.float32]

BINS = 16  # of a histogram, in each of three channels
RARE = 2e-4  # the share of pixels that a colour must have to say something
MOST = 4.0  # log odds that a colour may say
CERTAIN = 5.0  # log odds at which a carried mask is held
DOUBT = -1.0  # log odds of being inside where nothing was carried
EDGE = 5  # pixels around the mask's edge in which colours decide with
FLAT = 0.15  # what colours count for elsewhere
LEARN = 0.1  # what a frame adds to the colours that were seen
"""
"""


@dataclass
class Colours:
    """What colours a region has, and its surroundings: as painted, and as they were in the frames just passed."""

    painted: Floats  # [2, BINS ** 3] densities, outside and inside
    recent: Floats

    @classmethod
    def of(cls, frame: np.ndarray, inside: Floats) -> Colours:
        seen = densities(frame, inside)
        return cls(seen, seen.copy())

    def learn(self, frame: np.ndarray, inside: Floats) -> None:
        if 0.002 < inside.mean() < 0.998:
            self.recent += LEARN * (densities(frame, inside) - self.recent)

    def odds(self, frame: np.ndarray) -> Floats:
        """[H, W] log odds by which a pixel's colour is one of the region's."""
        mixed = (self.painted + self.recent) / 2 + RARE
        table = np.clip(np.log(mixed[1] / mixed[0]), -MOST, MOST)
        return cv2.blur(table[bins(frame)], (3, 3))


def bins(frame: np.ndarray) -> NDArray[np.int32]:
    lab = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2LAB).astype(np.int32) * BINS // 256
    return (lab[..., 0] * BINS + lab[..., 1]) * BINS + lab[..., 2]


def densities(frame: np.ndarray, inside: Floats) -> Floats:
    where = bins(frame).ravel()
    found = []
    for weight in (1 - inside, inside):
        counts = np.bincount(where, weight.ravel(), BINS**3).reshape(BINS, BINS, BINS)
        for axis in range(3):
            padded = np.pad(counts, [(1, 1) if a == axis else (0, 0) for a in range(3)])
            low, mid, high = (np.take(padded, np.arange(BINS) + i, axis) for i in range(3))
            counts = (low + 2 * mid + high) / 4
        found.append(counts.ravel() / max(counts.sum(), 1))
    return np.stack(found).astype(np.float32)


def step(colours: Colours, frame: np.ndarray, before: Floats | None, there: Floats | None, back: Floats | None) -> Floats:
    """[H, W] 0..1: the mask of `frame`, from that of the neighbouring frame and the flow to it and back."""
    evidence = colours.odds(frame)
    if before is None:
        odds = DOUBT + evidence
    else:
        carried, trust = along(before, there, back)
        prior = np.clip(np.log((carried + 1e-3) / (1 - carried + 1e-3)), -CERTAIN, CERTAIN)
        odds = trust * prior + (1 - trust) * (DOUBT + 0.3 * prior)
        inside = (carried > 0.5).astype(np.uint8)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * EDGE + 1,) * 2)
        band = (cv2.dilate(inside, kernel) > cv2.erode(inside, kernel)).astype(np.float32)
        odds += evidence * np.maximum(np.maximum(band, 1 - trust), FLAT)
    soft = 1 / (1 + np.exp(-odds))
    return guided(frame, soft.astype(np.float32))


def along(before: Floats, there: Floats, back: Floats) -> tuple[Floats, Floats]:
    """The neighbour's mask looked up along `there` [H, W, 2], and 0..1 where that may be trusted."""
    H, W = before.shape
    x, y = np.meshgrid(np.arange(W, dtype=np.float32), np.arange(H, dtype=np.float32))
    u, v = x + there[..., 0], y + there[..., 1]
    carried = cv2.remap(before, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    returned = cv2.remap(back, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    miss = np.hypot(*np.moveaxis(there + returned, 2, 0))
    trust = (miss < 1.0) & (u >= 0) & (v >= 0) & (u <= W - 1) & (v <= H - 1)
    return carried, trust.astype(np.float32)


def guided(frame: np.ndarray, mask: Floats, radius: int = 3, eps: float = 1e-3) -> Floats:
    """`mask` with the edges of the frame (guided filter, He et al. 2010)."""
    guide = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2LAB).astype(np.float32) / 255

    def mean(values: Floats) -> Floats:
        return cv2.blur(values, (2 * radius + 1,) * 2)

    m, p = mean(guide), mean(mask)
    cov = mean(guide * mask[..., None]) - m * p[..., None]  # [H, W, 3]
    outer = mean((guide[..., :, None] * guide[..., None, :]).reshape(*mask.shape, 9)).reshape(*mask.shape, 3, 3)
    outer = outer - m[..., :, None] * m[..., None, :] + eps * np.eye(3, dtype=np.float32)
    a = np.linalg.solve(outer, cov[..., None])[..., 0].astype(np.float32)
    b = p - (a * m).sum(-1)
    return ((mean(a) * guide).sum(-1) + mean(b)).clip(0, 1)
