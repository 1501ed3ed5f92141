"""The motion of a thing as a whole, for another thing that replaces it.

The source's flow ends at the old thing's outline. The new thing has an outline of its own, and moves as the old one
does. So the flow of what moves differently from the ground is fitted by one shift and one scale, and used all over the
place where the new thing is.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adaflow_core.model.memory import to_device

PAIRS = 64  # pairs of frames whose motion is on the device at a time
POINTS = 2048  # points of a frame, at most, to which a motion is fitted
ROUNDS = 12  # rounds of fitting, each weighted by what fitted in the round before
APART = 0.7  # pixels by which a thing's motion must differ from the ground's to be told from it
SURELY = 0.05  # value of `place` from which a pixel moves entirely with the thing
LEAST = 0.25  # pixels: a misfit below this counts as none


def move_as_one(
    out: np.ndarray,  # [T - 1, 2, H / 2, W / 2, 2] float16, filled in
    flow: np.ndarray,  # [T - 1, 2, H / 2, W / 2, 2] from `source_flow`
    place: np.ndarray,  # [T, h, w] 0..1, roughly where the thing is
    device: torch.device,
    own: slice = slice(None),  # the pairs of frames to fill in
) -> None:
    """Copy `flow` to `out` with one motion all over the place: the thing's motion between the two frames.

    The flow there and the flow back are fitted separately, each by the place in the frame where it begins.
    """
    pairs = np.arange(len(flow))[own]
    for some in np.split(pairs, range(PAIRS, len(pairs), PAIRS)):
        for way in (0, 1):
            field = to_device(np.ascontiguousarray(flow[some, way]), device).float()  # [P, H, W, 2]
            there = to_device(np.asarray(place[some + way], np.float32), device)[:, None]
            where = F.interpolate(there, field.shape[1:3], mode="bilinear", align_corners=False)[:, 0]
            out[some, way] = _as_one(field, where).half().cpu().numpy()


def _as_one(field: Tensor, place: Tensor) -> Tensor:  # [P, H, W, 2], [P, H, W] -> [P, H, W, 2]
    height, width = place.shape[1:]
    step = max(1, int((height * width / POINTS) ** 0.5))
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack([x, y], dim=-1).to(field)  # [H, W, 2]
    points = grid[::step, ::step].reshape(1, -1, 2).expand(len(field), -1, -1)
    motion = field[:, ::step, ::step].flatten(1, 2)
    weight = place[:, ::step, ::step].flatten(1)
    ground = _fitted(_affine(points), motion, (1 - 4 * weight).clamp(min=0) + 1e-6)
    apart = _misfit(_affine(points), motion, ground)
    thing = weight.square() * (1 - torch.exp(-((apart / APART) ** 2)) + 1e-4) + 1e-9
    found = _fitted(_shift_and_scale(points), motion, thing)
    rows = _shift_and_scale(grid.reshape(1, -1, 2))
    moved = torch.einsum("anxk,pk->pnx", rows, found[..., 0]).reshape(field.shape)
    return torch.lerp(field, moved, (place / SURELY).clamp(0, 1)[..., None])


def _affine(points: Tensor) -> Tensor:
    """Return rows [P, N, 1, 3] to fit each component of a motion as an affine function of points [P, N, 2]."""
    return torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)[:, :, None]


def _shift_and_scale(points: Tensor) -> Tensor:
    """Return rows [P, N, 2, 3] to fit x and y of a motion at points [P, N, 2] by one scale and two shifts."""
    shifts = torch.eye(2, device=points.device, dtype=points.dtype).expand(*points.shape[:2], 2, 2)
    return torch.cat([points[..., None], shifts], dim=-1)


def _misfit(rows: Tensor, motion: Tensor, found: Tensor) -> Tensor:
    """Return [P, N], the distance in pixels of a motion [P, N, 2] from the fitted one."""
    return (motion - _moved(rows, found)).norm(dim=-1)


def _moved(rows: Tensor, found: Tensor) -> Tensor:
    """Return the motion [P, N, 2] of rows [P, N, 1 or 2, k] and coefficients [P, k, 2 or 1]."""
    return torch.einsum("pnxk,pkc->pnxc", rows, found).flatten(2)


def _fitted(rows: Tensor, motion: Tensor, weight: Tensor) -> Tensor:
    """Return coefficients [P, k, 2 or 1] fitted to a motion [P, N, 2] by iteratively reweighted least squares.

    Rows [P, N, 1, k] are fitted to each component of the motion, rows [P, N, 2, k] to both together.
    """
    values = motion[:, :, None] if rows.shape[2] == 1 else motion[..., None]  # [P, N, 1 or 2, 2 or 1]
    small = 1e-6 * torch.eye(rows.shape[-1], device=rows.device, dtype=rows.dtype)
    taken = weight
    for _ in range(ROUNDS):
        weighed = taken[:, :, None, None] * rows
        normal = torch.einsum("pnxk,pnxl->pkl", weighed, rows)
        found = torch.linalg.solve(normal + small, torch.einsum("pnxk,pnxc->pkc", weighed, values))
        miss = _misfit(rows, motion, found)
        usual = ((taken * miss.square()).sum(1) / taken.sum(1)).sqrt().clamp(min=LEAST)
        taken = weight * torch.exp(-((miss / (1.5 * usual[:, None])) ** 2))
    return found
