"""The source's motion: optical flow between neighbouring frames, step by step between others, and warps along it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adaflow_core.model.memory import to_device
from adaflow_core.progress import THREADS, Monitor, in_threads
from adaflow_core.storage.cache import Cache, cache_key
from adaflow_core.video.types import Video

if TYPE_CHECKING:
    import cv2

AGREE = 1.0  # pixels by which the flow there and back may miss its origin
EDGE = 1.5  # pixels by which motions within 5 pixels of each other may differ
PIXELS = 2**21, 2**24  # of all frames whose motion lies on a CPU or another device at a time
HALF = 2  # flow is kept at half the resolution
WHOLE = 2**17  # pixels of frames up to which it is estimated at their own, of larger ones at half: as long for both
# Pixels from one patch to the next and refinements of each level, of such frames and of larger ones: six tenths of the
# time for 0.222 instead of 0.220 pixels of error on drawn scenes, and for a tenth of a decibel of a small edit.
STRIDES, REFINED = (4, 5), (5, 2)
_own = threading.local()


@dataclass
class _Uses:
    """Of `one_opencv_thread` in this process, and the number of threads before the first."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    count: int = 0
    before: int = 0


_uses = _Uses()


def flow_is_known(video: Video, cache: Cache) -> bool:
    """Whether `source_flow` has nothing to do but read."""
    videos = [video] if video.part_of is None else [video, video.part_of[0]]
    return any(cache.find("flow", _key(some)) is not None for some in videos)


def _key(video: Video) -> str:
    return cache_key(video=video.digest, search=(STRIDES, REFINED))


def source_flow(video: Video, cache: Cache, monitor: Monitor) -> np.ndarray:
    """[T - 1, 2, H / 2, W / 2, 2] float16, memory-mapped: the motion in pixels (x, y) between frames t and t + 1.

    [:, 0] goes from t to t + 1, [:, 1] back. Of a part of a video whose motion is known, a part of that.
    """
    if video.part_of is not None:
        whole, first = video.part_of
        if flow_is_known(whole, cache):
            return source_flow(whole, cache, monitor)[first : first + len(video) - 1]
    T, (width, height) = len(video), video.size
    own = range(T - 1)[cache.own(T - 1)]

    def build(folder: Path) -> dict[str, Any]:
        out = cache.array(folder / "flow.npy", np.float16, (T - 1, 2, height // HALF, width // HALF, 2))

        def work(t: int) -> int:
            out[t] = flow_between(video.frames[t], video.frames[t + 1])
            return 1

        with monitor.stage("flow", len(own)) as stage, one_opencv_thread():
            in_threads(work, own, stage.advance)
        return {}

    folder, _, _ = cache.get("flow", _key(video), build, monitor.note, together=True)
    return np.load(folder / "flow.npy", mmap_mode="r")


@contextmanager
def one_opencv_thread() -> Iterator[None]:
    """Within the block OpenCV starts no threads beside those of `in_threads`: the model's would have to wait.

    Blocks of several threads may overlap; after the last one OpenCV has as many as before the first.
    """
    import cv2

    with _uses.lock:
        if not _uses.count:
            _uses.before = cv2.getNumThreads()
            if THREADS > 1:
                cv2.setNumThreads(1)
        _uses.count += 1
    try:
        yield
    finally:
        with _uses.lock:
            _uses.count -= 1
            if not _uses.count:
                cv2.setNumThreads(_uses.before)


def flow_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[2, H / 2, W / 2, 2] float32, there and back, of frames [H, W, 3] uint8.

    Dense inverse search (Kroeger et al. 2016), by OpenCV.
    """
    import cv2

    search, large = _search(), int(first.shape[0] * first.shape[1] > WHOLE)
    search.setFinestScale(large)
    search.setPatchStride(STRIDES[large])
    search.setVariationalRefinementIterations(REFINED[large])
    a, b = (cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in (first, second))
    size = first.shape[1] // HALF, first.shape[0] // HALF
    flows = (search.calc(*pair, None) for pair in ((a, b), (b, a)))  # type: ignore[call-overload]
    return np.stack([cv2.resize(flow, size, interpolation=cv2.INTER_AREA) for flow in flows])


def _search() -> cv2.DISOpticalFlow:
    """This thread's, whose buffers serve for all frames: the system takes long to give new ones to many threads."""
    if not hasattr(_own, "search"):
        import cv2

        _own.search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    found: cv2.DISOpticalFlow = _own.search
    return found


def trusted(
    there: Tensor,  # [F, 2, H, W] pixels, from these frames to the others
    back: Tensor,  # and from the others to these
    grid: Tensor,  # [2, H, W]
) -> Tensor:
    """[F, 1, H, W] 0 or 1: where anything may be carried along the flow."""
    miss = (there + warp(back, there, grid)).square().sum(dim=1, keepdim=True).sqrt()
    spread = _largest_around(there) + _largest_around(-there)  # largest less smallest
    found = (miss < AGREE) & (spread.amax(dim=1, keepdim=True) < EDGE)
    H, W = there.shape[2:]
    x, y = (grid + there).split(1, dim=1)
    found &= (x >= 0) & (x <= W - 1) & (y >= 0) & (y <= H - 1)
    return found.to(there.dtype)


def without_lines(trust: Tensor) -> Tensor:
    """What can be trusted [F, 1, H, W] 0..1 without what is narrower than 5 pixels, and with soft edges.

    A pixel's motion is consistent by chance here and there; and where one picture ends and another begins abruptly, a
    line shows.
    """
    all_around = -_largest_around(-trust)
    return F.avg_pool2d(F.pad(_largest_around(all_around), (2, 2, 2, 2), mode="replicate"), 5, stride=1)


def _largest_around(x: Tensor) -> Tensor:
    """The largest value of 5x5 pixels around each, [F, C, H, W]: on a CPU a tenth of the time of `max_pool2d`."""
    x = F.pad(x, (2, 2, 2, 2), mode="replicate")
    for dim, size in ((2, x.shape[2] - 4), (3, x.shape[3] - 4)):
        two = torch.maximum(x.narrow(dim, 0, size + 3), x.narrow(dim, 1, size + 3))
        four = torch.maximum(two.narrow(dim, 0, size + 1), two.narrow(dim, 2, size + 1))
        x = torch.maximum(four.narrow(dim, 0, size), x.narrow(dim, 4, size))
    return x


def full_size(flow: Tensor, like: Tensor) -> Tensor:
    """Half-size flow [F, h, w, 2] as [F, 2, H, W] float32, of the size of `like` [F, C, H, W]."""
    return F.interpolate(flow.float().permute(0, 3, 1, 2), like.shape[2:], mode="bilinear", align_corners=False)


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
    return look_up(pictures, places(flow, grid))


def places(flow: Tensor, grid: Tensor) -> Tensor:
    """Every pixel plus `flow` [F, 2, H, W], as `look_up` takes it: [F, H, W, 2]."""
    H, W = flow.shape[-2:]
    x, y = (2 * (grid + flow) + 1).unbind(1)
    return torch.stack([x / W - 1, y / H - 1], dim=-1)  # by numbers: a tensor of them would wait for the device


def look_up(pictures: Tensor, where: Tensor) -> Tensor:
    """`pictures` [F, C, H, W] at `places` [F, H, W, 2], bilinear; beyond the edge its last pixel."""
    if pictures.device.type == "mps":  # which knows nothing to take there but zeros
        return F.grid_sample(pictures, within(where), mode="bilinear", padding_mode="zeros", align_corners=False)
    return F.grid_sample(pictures, where, mode="bilinear", padding_mode="border", align_corners=False)


def within(where: Tensor) -> Tensor:
    """`places` [F, H, W, 2] of which those beyond the edge are its last pixel's."""
    H, W = where.shape[1:3]
    edge = where.new_tensor([1 - 1 / W, 1 - 1 / H])
    return where.clamp(-edge, edge)


def frames_at_once(size: tuple[int, int], device: torch.device) -> int:
    """From the first to the last, how many frames of (H, W) pixels the motion of may lie on the device at a time."""
    return PIXELS[device.type != "cpu"] // (size[0] * size[1])


class FlowBetween:
    """The flow between frames that lie close to each other: that of all from the first to the last is on the device."""

    def __init__(
        self,
        flow: np.ndarray,  # [T - 1, 2, H / 2, W / 2, 2], of neighbouring frames
        first: int,
        last: int,
        size: tuple[int, int],  # (H, W) pixels
        device: torch.device,
    ) -> None:
        self.first, self.last, self.grid = first, last, pixel_grid(*size, device)
        like = torch.empty(1, 1, *size, device=device)
        # To the next frame, and to the one before.
        there, back = (full_size(to_device(flow[first:last, i], device), like) for i in (0, 1))
        ways = [torch.cat([a, trusted(a, b, self.grid)], dim=1) for a, b in ((there, back), (back, there))]
        self._steps = torch.cat(ways)  # [2 * pairs of neighbours, 3, H, W]

    def __call__(self, frames: np.ndarray, others: np.ndarray) -> tuple[Tensor, Tensor]:
        """From every pixel of `frames` [F] to where it is in `others` [F], step by step.

        Pixels (x, y) [F, 2, H, W] float32, and where every step can be trusted [F, 1, H, W] 0..1.
        """
        device, size, count = self.grid.device, self.grid.shape[1:], self.last - self.first
        found = torch.zeros(len(frames), 2, *size, device=device)
        trust = torch.ones(len(frames), 1, *size, device=device)
        distance, way = np.abs(others - frames), np.sign(others - frames)
        for k in range(int(distance.max(initial=0))):
            going = np.flatnonzero(distance > k)
            backwards = way[going] < 0
            pairs = frames[going] + k * way[going] - backwards - self.first + backwards * count
            rows, piece = to_device(going, device), self._steps[to_device(pairs, device)]
            if k:
                piece = warp(piece, found[rows], self.grid)
            found[rows] += piece[:, :2]
            trust[rows] *= piece[:, 2:]
        return found, trust


def flow_between_chosen(
    out: np.ndarray,  # [F - 1, 2, H / 2, W / 2, 2] float16
    flow: np.ndarray,  # [T - 1, 2, H / 2, W / 2, 2]
    frames: np.ndarray,  # [F] ascending
    size: tuple[int, int],  # (H, W) pixels
    device: torch.device,
    monitor: Monitor,
    own: slice = slice(None),  # of the gaps between them
) -> None:
    """Writes the flow of a film that holds only `frames`."""
    gaps = np.arange(len(frames) - 1)[own]
    with monitor.stage("flow", len(gaps)) as stage:
        while len(gaps):
            near = frames[gaps + 1] - frames[gaps[0]] < frames_at_once(size, device)
            part = gaps[: max(1, int(near.sum()))]
            first, second = frames[part], frames[part + 1]
            between = FlowBetween(flow, int(first[0]), int(second[-1]), size, device)
            there, _ = between(np.append(first, second), np.append(second, first))
            small = F.avg_pool2d(there, HALF).permute(0, 2, 3, 1).half().cpu().numpy()
            out[part, 0], out[part, 1] = small[: len(part)], small[len(part) :]
            gaps = gaps[len(part) :]
            stage.advance(len(part))
