"""Flicker smoothed away: the change that an edit makes, filtered in time along the source's motion.

Change is the decoded edit less the decoded source. A recursive filter runs over it forwards and backwards; where the
source's flow cannot be trusted, at a cut, at the edges of what moves and where something comes into sight, it begins
anew. Where a thing takes another's place nothing is filtered: the source's motion there is that of what is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adaflow_core.model.memory import to_device
from adaflow_core.progress import Monitor
from adaflow_core.storage.arrays import allocated, scratch
from adaflow_core.storage.cache import Cache, cache_key
from adaflow_core.video.types import Video

AGREE = 1.0  # pixels by which the flow there and back may miss its origin
EDGE = 1.5  # pixels by which motions within 5 pixels of each other may differ
HALF = 2  # flow is kept at half the resolution, at which DIS estimates it


def source_flow(video: Video, cache: Cache, monitor: Monitor) -> np.ndarray:
    """[T - 1, 2, H / 2, W / 2, 2] float16, memory-mapped: the motion in pixels (x, y) between frames t and t + 1.

    [:, 0] goes from t to t + 1, [:, 1] back.
    """
    T, (width, height) = len(video), video.size

    def build(folder: Path) -> dict[str, Any]:
        out = allocated(folder / "flow.npy", np.float16, (T - 1, 2, height // HALF, width // HALF, 2))
        with monitor.stage("flow", T - 1) as stage:
            for t in range(T - 1):
                out[t] = flow_between(video.frames[t], video.frames[t + 1])
                stage.advance()
        return {}

    folder, _, _ = cache.get("flow", cache_key(video=video.digest), build, monitor.note)
    return np.load(folder / "flow.npy", mmap_mode="r")


def flow_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[2, H / 2, W / 2, 2] float32, there and back, of frames [H, W, 3] uint8.

    Dense inverse search (Kroeger et al. 2016), by OpenCV.
    """
    import cv2

    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    a, b = (cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in (first, second))
    size = first.shape[1] // HALF, first.shape[0] // HALF
    flows = (search.calc(*pair, None) for pair in ((a, b), (b, a)))  # type: ignore[call-overload]
    return np.stack([cv2.resize(flow, size, interpolation=cv2.INTER_AREA) for flow in flows])


def smooth_change(
    change: Callable[[int], Tensor],  # frame -> its change [3, H, W] float32 on the device
    flow: np.ndarray,  # [T - 1, 2, H / 2, W / 2, 2]
    strength: float,  # 0..1, the part that the filter takes from its past
    cuts: np.ndarray,  # frames that begin a new shot
    write: Callable[[int, Tensor], None],  # takes a frame and its smoothed change [3, H, W]
    monitor: Monitor,
    renewed: Callable[[int], Tensor] | None = None,  # frame -> where a thing takes another's place [1, H, W] 0..1
) -> None:
    """Filters the change of T frames; memory does not grow with T, what is kept in between lies in a file."""
    T = len(flow) + 1
    first = change(0)
    forward = scratch(np.float16, (T, *first.shape))
    borders = {int(cut) for cut in cuts}
    grid = pixel_grid(first.shape[1], first.shape[2], first.device)

    def mix(t: int, now: Tensor, state: Tensor, step: int) -> Tensor:
        """The filter's next state: `strength` of that of frame t + step, where the flow can be trusted."""
        pair = flow[min(t, t + step)]
        there, back = (full_size(way, now) for way in (pair if step > 0 else pair[::-1]))
        share = strength * trusted(there, back, grid, None if renewed is None else renewed(t))
        return torch.lerp(now, warp(state, there, grid), share)

    with monitor.stage("smooth", 2 * T) as stage:
        state = first
        for t in range(T):
            now = change(t)
            state = now if t == 0 or t in borders else mix(t, now, state, -1)
            forward[t] = state.half().cpu().numpy()
            stage.advance()
        for t in reversed(range(T)):
            now = change(t)
            state = now if t == T - 1 or t + 1 in borders else mix(t, now, state, 1)
            before = to_device(forward[t], now.device).float()
            write(t, (before + state - (1 - strength) * now) / (1 + strength))
            stage.advance()


def trusted(
    there: Tensor,  # [2, H, W] pixels, from this frame to the other
    back: Tensor,  # and from the other to this
    grid: Tensor,  # [2, H, W]
    renewed: Tensor | None = None,  # [1, H, W] 0..1
) -> Tensor:
    """[1, H, W] 0 or 1: where a change may be carried along the flow."""
    miss = (there + warp(back, there, grid)).square().sum(dim=0, keepdim=True).sqrt()
    spread = F.max_pool2d(there[None], 5, 1, 2) + F.max_pool2d(-there[None], 5, 1, 2)  # largest less smallest
    found = (miss < AGREE) & (spread[0].amax(dim=0, keepdim=True) < EDGE)
    size = torch.tensor(there.shape[1:], device=there.device).flip(0)[:, None, None]  # width, height
    where = grid + there
    found &= ((where >= 0) & (where <= size - 1)).all(dim=0, keepdim=True)
    if renewed is not None:
        found &= renewed < 0.05
    return found.to(there.dtype)


def full_size(flow: np.ndarray, like: Tensor) -> Tensor:
    """A half-size flow [h, w, 2] as [2, H, W] float32 on the device of `like` [C, H, W]."""
    small = to_device(np.asarray(flow, np.float32), like.device).permute(2, 0, 1)[None]
    return F.interpolate(small, like.shape[1:], mode="bilinear", align_corners=False)[0]


def pixel_grid(height: int, width: int, device: torch.device) -> Tensor:
    """[2, H, W] float32: x and y of every pixel."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=torch.float32),
        torch.arange(width, device=device, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack([x, y])


def warp(picture: Tensor, flow: Tensor, grid: Tensor) -> Tensor:
    """`picture` [C, H, W] looked up at every pixel plus `flow` [2, H, W], bilinear; beyond the edge its last pixel."""
    _, H, W = picture.shape
    size = torch.tensor([W, H], device=flow.device, dtype=flow.dtype)[:, None, None]
    where = (2 * (grid + flow) + 1) / size - 1
    return F.grid_sample(
        picture[None], where.permute(1, 2, 0)[None], mode="bilinear", padding_mode="border", align_corners=False
    )[0]
