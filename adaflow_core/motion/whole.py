"""The motion of a thing as a whole, for another that takes its place.

The source's flow ends at the old thing's outline. What is drawn there in its stead has an outline of its own, and moves
as the old thing does: the flow of what moves otherwise than the ground, as one shift and one scale, all over the place.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adaflow_core.model.memory import to_device

PAIRS = 64  # of frames whose motion is on the device at a time
POINTS = 2048  # of a frame at most, by which a motion is fitted
ROUNDS = 12  # of fitting, each by what fitted best in the one before
APART = 0.7  # pixels by which a thing's motion must part from the ground's to be told from it
SURELY = 0.05  # from here on a place moves as the thing does
LEAST = 0.25  # pixels: a misfit below this counts as none


def move_as_one(
    out: np.ndarray,  # [T - 1, 2, H / 2, W / 2, 2] float16, is filled in
    flow: np.ndarray,  # [T - 1, 2, H / 2, W / 2, 2] as `source_flow` gives it
    place: np.ndarray,  # [T, h, w] 0..1, where the thing is, vaguely
    device: torch.device,
    own: slice = slice(None),  # the pairs of frames to fill in
) -> None:
    """The flow, with one motion all over the place: that of the thing between the two frames.

    There and back are fitted by themselves, each by the place in the frame that it begins in.
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
    """[P, N, 2] -> [P, N, 1, 3]: both components of a motion as affine functions of the place."""
    return torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)[:, :, None]


def _shift_and_scale(points: Tensor) -> Tensor:
    """[P, N, 2] -> [P, N, 2, 3]: x and y of a motion by one scale and two shifts."""
    shifts = torch.eye(2, device=points.device, dtype=points.dtype).expand(*points.shape[:2], 2, 2)
    return torch.cat([points[..., None], shifts], dim=-1)


def _misfit(rows: Tensor, motion: Tensor, found: Tensor) -> Tensor:
    """[P, N] pixels by which a motion [P, N, 2] misses."""
    return (motion - _moved(rows, found)).norm(dim=-1)


def _moved(rows: Tensor, found: Tensor) -> Tensor:
    """[P, N, 2] of rows [P, N, 1 or 2, k] and what was found [P, k, 2 or 1]."""
    return torch.einsum("pnxk,pkc->pnxc", rows, found).flatten(2)


def _fitted(rows: Tensor, motion: Tensor, weight: Tensor) -> Tensor:
    """[P, k, 2 or 1]: least squares, weighed anew by what fits.

    Rows of one component are fitted to both components of the motion [P, N, 2], rows of two to it as one.
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
