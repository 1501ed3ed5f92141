"""Flicker smoothed away: the decoded edit, filtered in time along the source's motion.

A recursive filter runs over it forwards and backwards; where the source's flow cannot be trusted, at a cut, at the
edges of what moves and where something comes into sight, it begins anew. What it carries from frame to frame is the
edit's change of the decoded source, which keeps what the edit leaves alone as it is, and the picture itself, each the
more the nearer it comes to the next frame: the change of a thing that is gone holds its outline, which never lies quite
right. Where neither comes near, what was edited moves otherwise than the source, and less is carried.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adaflow_core.model.memory import to_device
from adaflow_core.progress import Monitor, in_threads
from adaflow_core.storage.arrays import allocated, scratch
from adaflow_core.storage.cache import Cache, cache_key
from adaflow_core.video.types import Video

AGREE = 1.0  # pixels by which the flow there and back may miss its origin
EDGE = 1.5  # pixels by which motions within 5 pixels of each other may differ
HALF = 2  # flow is kept at half the resolution, at which DIS estimates it
BLOCK = 8  # frames whose changes and flow are on the device at a time
FORGOTTEN = 1e-4  # the part of the past that counts as nothing
# In levels of 0..255, chosen on the plain model's validation clips and the bundled ones: where what is carried misses
# the frame by this much, a third of it is taken; in a place that is renewed it is taken less readily.
MISSED, MISSED_RENEWED = 64.0, 32.0
UNSEEN = 2.0  # a change that misses by much less is carried alone
RENEWED = 0.05  # from here on a place counts as renewed


def source_flow(video: Video, cache: Cache, monitor: Monitor) -> np.ndarray:
    """[T - 1, 2, H / 2, W / 2, 2] float16, memory-mapped: the motion in pixels (x, y) between frames t and t + 1.

    [:, 0] goes from t to t + 1, [:, 1] back.
    """
    T, (width, height) = len(video), video.size

    def build(folder: Path) -> dict[str, Any]:
        out = allocated(folder / "flow.npy", np.float16, (T - 1, 2, height // HALF, width // HALF, 2))

        def work(t: int) -> int:
            out[t] = flow_between(video.frames[t], video.frames[t + 1])
            return 1

        with monitor.stage("flow", T - 1) as stage:
            in_threads(work, range(T - 1), stage.advance)
        return {}

    folder, _, _ = cache.get("flow", cache_key(video=video.digest), build, monitor.note)
    return np.load(folder / "flow.npy", mmap_mode="r")


@contextmanager
def flow_ahead(video: Video, cache: Cache) -> Iterator[None]:
    """The source's flow goes into the cache beside the work of the block, which leaves the processor idle.

    `source_flow` finds it there afterwards, or waits for what is missing by computing it itself.
    """
    ends = threading.Event()
    thread = ThreadPoolExecutor(1, "flow_ahead")
    found = thread.submit(source_flow, video, cache, Monitor(stop=ends.is_set))
    try:
        yield
        found.result()
    finally:
        ends.set()
        thread.shutdown()


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


def smooth_edit(
    pictures: Callable[[np.ndarray], tuple[Tensor, Tensor]],  # frames [F] -> decoded edit, source [F, 3, H, W] float32
    flow: np.ndarray,  # [T - 1, 2, H / 2, W / 2, 2]
    strength: float,  # 0..1, the part that the filter takes from its past
    cuts: np.ndarray,  # frames that begin a new shot
    write: Callable[[np.ndarray, Tensor], None],  # takes frames [F] and their smoothed pictures [F, 3, H, W]
    monitor: Monitor,
    renewed: Callable[[np.ndarray], Tensor] | None = None,  # frames -> where a thing takes another's [F, 1, H, W] 0..1
    part: slice = slice(None),  # the frames to smooth
) -> None:
    """Filters some of T frames; those around are taken into account as far as the filter remembers.

    Pictures are on a scale of 0..255 and on the device. Memory does not grow with T, what is kept in between lies in a
    file. Each frame is asked for twice, before it is written.
    """
    T = len(flow) + 1
    own = range(*part.indices(T))
    around = reach(own, T, strength)
    borders = {int(cut) for cut in cuts}
    forward: np.ndarray | None = None

    def filtered(frames: np.ndarray, step: int, state: _State | None) -> tuple[Tensor, Tensor, _State]:
        """`frames`, which follow each other by -step, as they are and as filtered from `state` on."""
        now, source = pictures(frames)
        grid = pixel_grid(now.shape[-2], now.shape[-1], now.device)
        pairs = flow[np.clip(np.minimum(frames, frames + step), 0, T - 2)]
        there, back = (full_size(way, now) for way in (pairs[:, 0], pairs[:, 1])[::step])
        share = strength * trusted(there, back, grid)
        place = None if renewed is None else renewed(frames) >= RENEWED
        found = []
        for i, t in enumerate(frames.tolist()):
            if state is None or (t if step < 0 else t + 1) in borders:
                found.append(now[i])
            else:
                past, taken = _carried(state, now[i], source[i], there[i], grid, None if place is None else place[i])
                found.append(torch.lerp(now[i], past, share[i] * taken))
            state = _State(found[-1], source[i])
        assert state is not None
        return now, torch.stack(found), state

    with monitor.stage("smooth", 2 * len(around)) as stage:
        state = None
        for frames in _blocks(around):
            now, found, state = filtered(frames, -1, state)
            if forward is None:
                forward = scratch(np.float16, (len(around), *found.shape[1:]))
            forward[frames - around.start] = (found - now).half().cpu().numpy()
            stage.advance(len(frames))
        state = None
        for frames in _blocks(around[::-1]):
            now, found, state = filtered(frames, 1, state)
            mine = np.isin(frames, own)
            assert forward is not None
            if mine.any():
                before = to_device(forward[frames - around.start], now.device).float()
                smooth = (before + found + strength * now) / (1 + strength)
                write(frames[mine], smooth[torch.from_numpy(mine).to(now.device)])
            stage.advance(len(frames))


class _State(NamedTuple):
    """What the filter takes along from a frame."""

    picture: Tensor  # [3, H, W] as filtered
    source: Tensor  # [3, H, W]


def _carried(
    state: _State,
    now: Tensor,  # [3, H, W]
    source: Tensor,  # [3, H, W]
    flow: Tensor,  # [2, H, W]
    grid: Tensor,
    renewed: Tensor | None,  # [1, H, W] bool
) -> tuple[Tensor, Tensor]:
    """The past as this frame would have it [3, H, W], and how readily it is taken [1, H, W] 0..1."""
    picture, old = warp(torch.cat(state)[None], flow[None], grid)[0].chunk(2)
    change = picture + (source - old)  # of the source, added to what the source is now
    change_misses, picture_misses = _miss(change, now), _miss(picture, now)
    # Each weighs as much as the other misses, as estimates do that err by so much.
    share = change_misses / (change_misses + picture_misses + UNSEEN**2)
    limit: Tensor | float = MISSED
    if renewed is not None:
        share = share.masked_fill(renewed, 1.0)
        limit = torch.full_like(share, MISSED).masked_fill(renewed, MISSED_RENEWED)
    past = torch.lerp(change, picture, share)
    return past, torch.exp(-_miss(past, now) / limit**2)


def _miss(picture: Tensor, other: Tensor) -> Tensor:
    """[1, H, W]: the mean square difference of [3, H, W] over 3x3 pixels."""
    square = (picture - other).square().mean(dim=0, keepdim=True)
    return F.avg_pool2d(square[None], 3, stride=1, padding=1, count_include_pad=False)[0]


def reach(own: range, T: int, strength: float) -> range:
    """`own` frames with those around them that the filter takes into account."""
    far = math.ceil(math.log(FORGOTTEN) / math.log(strength)) if 0 < strength < 1 else T
    return range(max(0, own.start - far), min(T, own.stop + far))


def _blocks(frames: range) -> Iterable[np.ndarray]:
    return (np.array(frames[i : i + BLOCK]) for i in range(0, len(frames), BLOCK))


def trusted(
    there: Tensor,  # [F, 2, H, W] pixels, from these frames to the others
    back: Tensor,  # and from the others to these
    grid: Tensor,  # [2, H, W]
) -> Tensor:
    """[F, 1, H, W] 0 or 1: where anything may be carried along the flow."""
    miss = (there + warp(back, there, grid)).square().sum(dim=1, keepdim=True).sqrt()
    spread = F.max_pool2d(there, 5, 1, 2) + F.max_pool2d(-there, 5, 1, 2)  # largest less smallest
    found = (miss < AGREE) & (spread.amax(dim=1, keepdim=True) < EDGE)
    size = torch.tensor(there.shape[2:], device=there.device).flip(0)[:, None, None]  # width, height
    where = grid + there
    found &= ((where >= 0) & (where <= size - 1)).all(dim=1, keepdim=True)
    return found.to(there.dtype)


def full_size(flow: np.ndarray, like: Tensor) -> Tensor:
    """Half-size flow [F, h, w, 2] as [F, 2, H, W] float32 on the device of `like` [F, C, H, W]."""
    small = to_device(np.asarray(flow), like.device).float().permute(0, 3, 1, 2)
    return F.interpolate(small, like.shape[2:], mode="bilinear", align_corners=False)


def pixel_grid(height: int, width: int, device: torch.device) -> Tensor:
    """[2, H, W] float32: x and y of every pixel."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=torch.float32),
        torch.arange(width, device=device, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack([x, y])


def warp(pictures: Tensor, flow: Tensor, grid: Tensor) -> Tensor:
    """`pictures` [F, C, H, W] looked up at every pixel plus `flow` [F, 2, H, W], bilinear; beyond the edge its last."""
    H, W = pictures.shape[-2:]
    size = torch.tensor([W, H], device=flow.device, dtype=flow.dtype)[:, None, None]
    where = (2 * (grid + flow) + 1) / size - 1
    return F.grid_sample(
        pictures, where.permute(0, 2, 3, 1), mode="bilinear", padding_mode="border", align_corners=False
    )
