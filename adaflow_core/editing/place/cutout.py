"""Cuts a thing out of frames: turns a coarse and vague map of where it is into a mask with the frames' own edges.

The mask is refined by the colours that the map covers, and at last by a graph cut (GrabCut, Rother et al. 2004, by
OpenCV).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]

LEVELS = 128  # bins of the map's histogram, from which the Otsu threshold is found
BINS = 16  # of a histogram, in each of three channels
RARE = 2e-4  # added to all densities, so that colours with a smaller share of the pixels have little influence
MOST = 4.0  # the largest log odds of a colour
UNCLEAR = 1.0  # subtracted from the log odds of a colour: those below count as none
LEARN = 0.1  # the weight of a new frame in the running mean of the densities
THRESHOLD = 1.15  # of the map, as a multiple of the Otsu threshold
COLOUR = 0.6  # the weight of the colours' log odds beside the map's
SLOPE = 2.0  # the factor from the logarithm of the map to log odds of being inside
ROUNDS = 3  # rounds in which colours are learned from the masks; between them the masks are found by the colours
# Multiples of the Otsu threshold: below OUTSIDE a pixel is fixed as background, above INSIDE as foreground; GrabCut
# decides only between them. Chosen on the plain model's validation clips.
OUTSIDE, INSIDE = 0.6, 4.0
CUTS = 4  # iterations of GrabCut
SMALLEST = 0.002  # of the frame's area: smaller pieces and holes are taken for errors


@dataclass(frozen=True)
class Cutout:
    """The look of a thing, learned from some frames [F, H, W, 3] uint8 and maps of it [F, h, w]."""

    parting: float  # the Otsu threshold of the maps
    colours: Colours

    @classmethod
    def learned(cls, frames: np.ndarray, maps: np.ndarray) -> Cutout:
        parting = otsu(maps)
        priors = [_prior(frame, one, parting) for frame, one in zip(frames, maps, strict=True)]
        masks = [probability(prior) for prior in priors]
        colours = _colours(frames, masks)
        for _ in range(ROUNDS - 1):
            masks = [_found(frame, prior, colours) for frame, prior in zip(frames, priors, strict=True)]
            colours = _colours(frames, masks)
        return cls(parting, colours)

    def mask(self, frame: np.ndarray, one: np.ndarray) -> Bools:
        """Return the thing's mask [H, W] in a frame [H, W, 3] uint8, given its map [h, w]."""
        found = _found(frame, _prior(frame, one, self.parting), self.colours) > 0.5
        cut = _graph_cut(frame, found, cv2.resize(one.astype(np.float32), frame.shape[1::-1]) / self.parting)
        return cleaned(cut, SMALLEST * cut.size)


def _prior(frame: np.ndarray, one: np.ndarray, parting: float) -> Floats:
    """Return [H, W] log odds of being inside, from a map [h, w]."""
    found = SLOPE * np.log(np.maximum(one, 1e-3) / (THRESHOLD * parting))
    return np.asarray(cv2.resize(found.astype(np.float32), frame.shape[1::-1]).clip(-4, 4))


def _colours(frames: np.ndarray, masks: list[Floats]) -> Colours:
    parts = [np.stack([mask > 0.7, mask < 0.3, mask < 0.3]) for mask in masks]
    return Colours(np.mean([densities(bins(f), part) for f, part in zip(frames, parts, strict=True)], axis=0), 0)


def _found(frame: np.ndarray, prior: Floats, colours: Colours) -> Floats:
    return guided(frame, probability(prior + COLOUR * colours.odds(frame)))


def _graph_cut(frame: np.ndarray, mask: Bools, one: np.ndarray) -> Bools:
    """Move the `mask` [H, W] of a frame [H, W, 3] to the frame's own edges, where the map `one` leaves it open.

    `one`: [H, W] in multiples of the Otsu threshold.
    """
    labels = np.where(mask, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[one < OUTSIDE] = cv2.GC_BGD
    labels[one > INSIDE] = cv2.GC_FGD
    kinds = [(labels == kind).any() for kind in (cv2.GC_BGD, cv2.GC_PR_BGD, cv2.GC_FGD, cv2.GC_PR_FGD)]
    if not (kinds[0] or kinds[1]) or not (kinds[2] or kinds[3]):
        return mask
    cv2.setRNGSeed(0)  # its colours are clustered from random beginnings
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(np.ascontiguousarray(frame[..., ::-1]), labels, None, *models, CUTS, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    return np.asarray((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))


class Colours:
    """Densities of colours [3, BINS ** 3] inside a region, outside and just around it, in painted and recent frames."""

    def __init__(self, painted: Floats, unclear: float = UNCLEAR) -> None:
        self._painted, self._recent, self._unclear = painted, painted.copy(), unclear
        self._known = self._table()

    @classmethod
    def of(cls, frames: np.ndarray, painted: Mapping[int, Bools]) -> Colours:
        return cls(np.mean([densities(bins(frames[t]), sides(inside)) for t, inside in painted.items()], axis=0))

    def again(self) -> Colours:
        """The densities of the painted frames alone, without any that were learned since."""
        return Colours(self._painted, self._unclear)

    def odds(self, frame: np.ndarray) -> Floats:
        """Return [H, W] the log odds that a pixel is in the region, by its colour."""
        return cv2.blur(self._table()[bins(frame)], (3, 3)).astype(np.float32)

    def learn(self, frame: np.ndarray, mask: Floats) -> None:
        """Learn the colours of a frame; a colour that is known from one side is not learned for the other."""
        where = bins(frame)
        known, inside = self._known[where], mask > 0.5
        right = (known >= 0) & (mask > 0.9), (known <= 0) & (mask < 0.1)
        weights = sides(inside) & np.stack([right[0], right[1], right[1]])
        if weights.any(axis=(1, 2)).all():
            self._recent += LEARN * (densities(where, weights) - self._recent)

    def _table(self) -> Floats:
        """Return [BINS ** 3] log odds; 0 for a colour that is not clearly of one side."""
        mixed = (self._painted + self._recent) / 2 + RARE
        odds = np.log(mixed[0] / mixed[1:].max(axis=0))
        return np.sign(odds) * (np.abs(odds) - self._unclear).clip(0, MOST)


def sides(inside: Bools) -> Bools:
    """Return [3, H, W]: the mask, the outside, and a band of the outside around the mask, about as large as it."""
    width = 2 * max(2, round(0.25 * float(np.sqrt(inside.sum())))) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    return np.stack([inside, ~inside, (cv2.dilate(inside.astype(np.uint8), kernel) > 0) & ~inside])


def bins(frame: np.ndarray) -> NDArray[np.int32]:
    """Return [H, W] the histogram bin of each pixel's colour."""
    lab = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2LAB).astype(np.int32) * BINS // 256
    return (lab[..., 0] * BINS + lab[..., 1]) * BINS + lab[..., 2]


def densities(
    where: NDArray[np.int32],  # [H, W]
    weights: np.ndarray,  # [N, H, W]
) -> Floats:
    """Return [N, BINS ** 3] histograms that sum to 1 each, smoothed over neighbouring bins."""
    found = []
    for weight in weights:
        counts: np.ndarray = np.bincount(where.ravel(), weight.ravel(), BINS**3).reshape(BINS, BINS, BINS)
        for axis in range(3):
            padded = np.pad(counts, [(1, 1) if a == axis else (0, 0) for a in range(3)])
            low, middle, high = (np.take(padded, np.arange(BINS) + i, axis) for i in range(3))
            counts = (low + 2 * middle + high) / 4
        found.append(counts.ravel() / counts.sum().clip(min=1))
    return np.stack(found).astype(np.float32)


def probability(odds: np.ndarray) -> Floats:
    return (1 / (1 + np.exp(-odds))).astype(np.float32)


def guided(frame: np.ndarray, mask: Floats, radius: int = 3, least: float = 1e-3) -> Floats:
    """`mask` with the edges of `frame`: guided filter (He et al. 2010) with the regularisation `least`."""
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
        small[0] = False  # label 0 is everything else
        inside = np.where(small[labels], not value, inside)
    return inside


def otsu(values: np.ndarray) -> float:
    """The threshold that splits values into two groups with the least variance within each (Otsu 1979)."""
    counts, edges = np.histogram(values, LEVELS)
    centres = (edges[1:] + edges[:-1]) / 2
    below, weighted = counts.cumsum(), (counts * centres).cumsum()
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (weighted / below - (weighted[-1] - weighted) / above) ** 2
    # If there are no values between the groups, many thresholds are equally good; the middle one is taken.
    return float(centres[between >= np.nanmax(between) * (1 - 1e-6)].mean())


def iou(found: Bools, true: Bools) -> float:
    """Intersection over union; 1 where both are empty."""
    union = (found | true).sum()
    return float((found & true).sum() / union) if union else 1.0
