"""Long-range consistency: the colours of one surface point in frames far apart.

The change between neighbouring frames does not show whether a film drifts, or whether frames far apart look different.
Here the world's true correspondence compares frames at any distance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from scenes.flow import flow_between
from scenes.motion import pose
from scenes.world import SceneBatch


def spread_pairs(frames: int, *, sampled: int = 6, keyframes: Sequence[int] = ()) -> list[tuple[int, int]]:
    """All pairs (earlier, later) of an even sample of `sampled` frames, and all pairs of the keyframes."""
    even = np.linspace(0, frames - 1, min(sampled, frames)).round().astype(int).tolist()
    pairs = {(a, b) for some in (even, sorted(keyframes)) for i, a in enumerate(some) for b in some[i + 1 :]}
    return sorted(pairs)


def far_flows(
    batch: SceneBatch, times: np.ndarray, pairs: Sequence[tuple[int, int]], size: int, chunk: int = 8
) -> tuple[np.ndarray, np.ndarray]:  # [P, 2, H, W] pixels, [P, H, W] bool
    """The true flow of one clip (a batch of one row) between frames of `times` [T], and where it holds."""
    device = batch.seed.device
    found = []
    for start in range(0, len(pairs), chunk):
        first, second = (torch.tensor(side, device=device) for side in zip(*pairs[start : start + chunk], strict=True))
        moments = torch.as_tensor(times, dtype=torch.float32, device=device)
        rows = torch.zeros(len(first), dtype=torch.long, device=device)
        found.append(flow_between(pose(batch, rows, moments[first]), pose(batch, rows, moments[second]), size))
    flows, visible = (torch.cat(parts).cpu().numpy() for parts in zip(*found, strict=True))
    return flows, visible


def long_range_error(
    frames: np.ndarray,  # [T, H, W, 3] uint8
    pairs: Sequence[tuple[int, int]],
    flows: np.ndarray,  # [P, 2, H, W] pixels (x, y) from the first frame of a pair to its second
    visible: np.ndarray,  # [P, H, W] bool
) -> float:
    """Mean absolute difference, 0..255, of the same surface points; pairs that share none are left out.

    Bilinear sampling; nan if no pair shares a point. Each pair counts alike. Divide by the true film's.
    """
    from scipy.ndimage import map_coordinates

    rows, columns = np.mgrid[0 : frames.shape[1], 0 : frames.shape[2]]
    errors = []
    for (first, second), flow, mask in zip(pairs, flows, visible, strict=True):
        if not mask.any():
            continue
        where = [(rows + flow[1])[mask], (columns + flow[0])[mask]]
        later = frames[second].astype(np.float32)
        found = np.stack([map_coordinates(later[..., c], where, order=1, mode="nearest") for c in range(3)], axis=-1)
        errors.append(np.abs(found - frames[first][mask]).mean())
    return float(np.mean(errors)) if errors else float("nan")
