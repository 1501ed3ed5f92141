"""The window around a region that is edited instead of whole frames; it has a fixed size and follows the region.

As its size is fixed, its frames are a film of their own. Its corners lie on the latents' grid, so that a thing that
stands still is cut into latents in the same way wherever the window lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from adaflow_core.storage.arrays import scratch
from adaflow_core.team.team import ALONE, Team

CONTEXT = 32  # pixels around the region and its feather that the model sees too
SIDE = 64  # pixels; a window's sides are multiples of it, which halve evenly down the UNet, or the frame's sides
STEP = 8  # pixels by which a window moves
CALM = 6.0  # frames, deviation of the Gaussian that smooths its path
LARGEST = 0.5  # share of a frame's area: larger windows gain too little
# The least side of a window, in sizes that the model was trained at. Chosen by `benchmarks.picture.regions crops`.
LEAST = {"auto": 1.0, "small": 0.5}


@dataclass(frozen=True)
class Window:
    """A window of a fixed size, and where it lies in every frame."""

    size: tuple[int, int]  # (width, height) in pixels
    corners: np.ndarray  # [T, 2] int64, y and x of its upper left corner
    frame: tuple[int, int]  # (width, height) of the whole frame

    def at(self, frames: slice | np.ndarray) -> Window:
        """Return the window in some frames only."""
        return Window(self.size, self.corners[frames], self.frame)

    @property
    def share(self) -> float:
        """Share of the frame's area."""
        return self.size[0] * self.size[1] / (self.frame[0] * self.frame[1])

    @property
    def text(self) -> str:
        return f"{self.size[0]}x{self.size[1]}"

    def as_json(self) -> dict[str, Any]:
        return {"width": self.size[0], "height": self.size[1], "share": round(self.share, 4)}

    def cut(self, values: np.ndarray) -> np.ndarray:
        """Cut the window out of `values` [T, H, W, ...]: [T, h, w, ...]."""
        width, height = self.size
        out = scratch(values.dtype, (len(values), height, width, *values.shape[3:]))
        for t, (y, x) in enumerate(self.corners):
            out[t] = values[t, y : y + height, x : x + width]
        return out

    def lay(self, inside: np.ndarray, over: np.ndarray, team: Team = ALONE) -> np.ndarray:
        """Return `over` [T, H, W, 3] uint8 with `inside` [T, h, w, 3] in the window. The `team` shares the frames."""
        width, height = self.size
        out = team.scratch(over.dtype, over.shape)
        for t in range(len(out))[team.own(len(out))]:
            y, x = self.corners[t]
            out[t] = over[t]
            out[t, y : y + height, x : x + width] = inside[t]
        team.wait()
        return out


def find_window(weights: np.ndarray, cuts: np.ndarray, least: int) -> Window | None:
    """Find the window around what is not 0 in `weights` [T, H, W]; None if it is too large to gain anything.

    It moves calmly within a shot. `cuts` [C]: frames that begin a new shot. `least`: pixels of its sides at least.
    """
    least = -(-least // SIDE) * SIDE
    H, W = weights.shape[1:]
    sides, starts = [], []
    for axis, length in ((1, H), (2, W)):
        low, high = _extent(weights, axis, length, cuts)
        side = min(length, max(least, -(-int((high - low).max()) // SIDE) * SIDE))
        sides.append(side)
        starts.append(_way(low, high, side, length, cuts))
    found = Window((sides[1], sides[0]), np.stack(starts, axis=1), (W, H))
    return found if found.share <= LARGEST else None


def _extent(weights: np.ndarray, axis: int, length: int, cuts: np.ndarray) -> tuple[NDArray[np.int64], ...]:
    """Return [T] each: the first and the end pixel along `axis` that the model must see, on the grid of `STEP`.

    In frames without the region they are interpolated between frames of the shot that show it.
    """
    T = len(weights)
    low, high = np.full(T, -1), np.full(T, -1)
    for t, frame in enumerate(weights):
        (inside,) = np.nonzero(frame.any(axis=2 - axis))
        if len(inside):
            low[t] = max(0, int(inside[0]) - CONTEXT) // STEP * STEP
            high[t] = min(length, -(-(int(inside[-1]) + 1 + CONTEXT) // STEP) * STEP)
    for shot in np.split(np.arange(T), cuts):
        known = shot[low[shot] >= 0]
        if len(known) == 0:
            known, low[shot[:1]], high[shot[:1]] = shot[:1], length // 2 // STEP * STEP, length // 2 // STEP * STEP
        for ends in (low, high):
            ends[shot] = np.round(np.interp(shot, known, ends[known]) / STEP) * STEP
    return low, high


def _way(
    low: NDArray[np.int64], high: NDArray[np.int64], side: int, length: int, cuts: np.ndarray
) -> NDArray[np.int64]:
    """Return [T], where a window of `side` pixels begins so that it contains `low` to `high`, of `length` pixels."""
    first, last = np.maximum(0, high - side), np.minimum(length - side, low)
    middle, reach = np.clip((low + high - side) / 2, first, last), 2 * round(3 * CALM) + 1
    calm = [
        cv2.GaussianBlur(shot[:, None], (1, reach), sigmaX=1, sigmaY=CALM, borderType=cv2.BORDER_REPLICATE)[:, 0]
        for shot in np.split(middle, cuts)
    ]
    return np.clip(np.round(np.concatenate(calm) / STEP) * STEP, first, last).astype(np.int64)
