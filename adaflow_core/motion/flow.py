"""The source's motion: optical flow between neighbouring frames, chained between distant ones, and warping along it."""

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

AGREE = 1.0  # pixels by which the flow there and back may miss its starting point
EDGE = 1.5  # pixels by which motions within a 5x5 window may differ
PIXELS = 2**21, 2**24  # pixels of all frames whose flow is loaded at a time, on a CPU and elsewhere
HALF = 2  # flow is stored at 1 / HALF of the resolution
WHOLE = 2**17  # up to so many pixels, flow is estimated at a frame's own size, above at half: both take as long
# Patch stride in pixels and variational refinements per level, for frames up to WHOLE and for larger ones. The second
# take 0.6 of the time of the first, for an error of 0.222 instead of 0.220 pixels on drawn scenes; they would cost a
# small edit 0.1 dB.
STRIDES, REFINED = (4, 5), (5, 2)
_own = threading.local()


@dataclass
class _Uses:
    """How many `one_opencv_thread` blocks are open in this process, and OpenCV's threads before the first."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    count: int = 0
    before: int = 0


_uses = _Uses()


def flow_is_known(video: Video, cache: Cache) -> bool:
    """Return whether `source_flow` only has to read the flow from the cache."""
    videos = [video] if video.part_of is None else [video, video.part_of[0]]
    return any(cache.find("flow", _key(some)) is not None for some in videos)


def _key(video: Video) -> str:
    return cache_key(video=video.digest, search=(STRIDES, REFINED))


def source_flow(video: Video, cache: Cache, monitor: Monitor) -> np.ndarray:
    """Return the motion in pixels (x, y) between neighbouring frames: [T - 1, 2, H / 2, W / 2, 2] float16.

    [t, 0] goes from frame t to t + 1, [t, 1] back. The array is memory-mapped. If `video` is a part of a
    video whose flow is cached, a part of that is returned.
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
    """Keep OpenCV from starting threads beside those of `in_threads`, for which the model's would have to wait.

    Blocks of several threads may overlap; the last to end restores OpenCV's number of threads.
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
    """Return the flow [2, H / 2, W / 2, 2] float32, there and back, between frames [H, W, 3] uint8.

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
    """Return this thread's search. Its buffers are reused: the system is slow to allocate new ones for many threads."""
    if not hasattr(_own, "search"):
        import cv2

        _own.search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    found: cv2.DISOpticalFlow = _own.search
    return found


def trusted(
    there: Tensor,  # [F, 2, H, W] pixels, from these frames to the others
    back: Tensor,  # [F, 2, H, W] pixels, from the others to these
    grid: Tensor,  # [2, H, W]
) -> Tensor:
    """Return [F, 1, H, W], 1 where pictures may be carried along the flow, else 0."""
    miss = (there + warp(back, there, grid)).square().sum(dim=1, keepdim=True).sqrt()
    spread = _largest_around(there) + _largest_around(-there)  # largest minus smallest motion around
    found = (miss < AGREE) & (spread.amax(dim=1, keepdim=True) < EDGE)
    H, W = there.shape[2:]
    x, y = (grid + there).split(1, dim=1)
    found &= (x >= 0) & (x <= W - 1) & (y >= 0) & (y <= H - 1)
    return found.to(there.dtype)


def without_lines(trust: Tensor) -> Tensor:
    """Remove what is narrower than 5 pixels from `trust` [F, 1, H, W] 0..1, and soften its edges.

    The motion of single pixels is sometimes consistent by chance, and a hard edge between two pictures would show as a
    line.
    """
    all_around = -_largest_around(-trust)
    return F.avg_pool2d(F.pad(_largest_around(all_around), (2, 2, 2, 2), mode="replicate"), 5, stride=1)


def _largest_around(x: Tensor) -> Tensor:
    """Return the maximum of the 5x5 pixels around each, [F, C, H, W]: on a CPU in a tenth of `max_pool2d`'s time."""
    x = F.pad(x, (2, 2, 2, 2), mode="replicate")
    for dim, size in ((2, x.shape[2] - 4), (3, x.shape[3] - 4)):
        two = torch.maximum(x.narrow(dim, 0, size + 3), x.narrow(dim, 1, size + 3))
        four = torch.maximum(two.narrow(dim, 0, size + 1), two.narrow(dim, 2, size + 1))
        x = torch.maximum(four.narrow(dim, 0, size), x.narrow(dim, 4, size))
    return x


def full_size(flow: Tensor, like: Tensor) -> Tensor:
    """Enlarge half-size flow [F, h, w, 2] to [F, 2, H, W] float32, the size of `like` [F, C, H, W]."""
    return F.interpolate(flow.float().permute(0, 3, 1, 2), like.shape[2:], mode="bilinear", align_corners=False)


def pixel_grid(height: int, width: int, device: torch.device) -> Tensor:
    """Return [2, H, W] float32: x and y of every pixel."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=torch.float32),
        torch.arange(width, device=device, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack([x, y])


def warp(pictures: Tensor, flow: Tensor, grid: Tensor) -> Tensor:
    """Sample `pictures` [F, C, H, W] at every pixel plus `flow` [F, 2, H, W]: bilinear, clamped at the edge."""
    return look_up(pictures, places(flow, grid))


def places(flow: Tensor, grid: Tensor) -> Tensor:
    """Return every pixel plus `flow` [F, 2, H, W] as positions [F, H, W, 2] for `look_up`."""
    H, W = flow.shape[-2:]
    x, y = (2 * (grid + flow) + 1).unbind(1)
    return torch.stack([x / W - 1, y / H - 1], dim=-1)  # by numbers: making a tensor would wait for the device


def look_up(pictures: Tensor, where: Tensor) -> Tensor:
    """Sample `pictures` [F, C, H, W] at `places` [F, H, W, 2]: bilinear, clamped at the edge."""
    if pictures.device.type == "mps":  # which supports no padding but zeros
        return F.grid_sample(pictures, within(where), mode="bilinear", padding_mode="zeros", align_corners=False)
    return F.grid_sample(pictures, where, mode="bilinear", padding_mode="border", align_corners=False)


def within(where: Tensor) -> Tensor:
    """Clamp `places` [F, H, W, 2] to the centres of the outermost pixels."""
    H, W = where.shape[1:3]
    edge = where.new_tensor([1 - 1 / W, 1 - 1 / H])
    return where.clamp(-edge, edge)


def frames_at_once(size: tuple[int, int], device: torch.device) -> int:
    """Return over how many consecutive frames of (H, W) pixels the flow may be loaded on the device at a time."""
    return PIXELS[device.type != "cpu"] // (size[0] * size[1])


class FlowBetween:
    """The flow between any frames from `first` to `last`; the flow along all of them is on the device."""

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
        # Flow to the next frame, and to the previous one.
        there, back = (full_size(to_device(flow[first:last, i], device), like) for i in (0, 1))
        ways = [torch.cat([a, trusted(a, b, self.grid)], dim=1) for a, b in ((there, back), (back, there))]
        self._steps = torch.cat(ways)  # [2 * pairs of neighbours, 3, H, W]

    def __call__(self, frames: np.ndarray, others: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the flow from every pixel of `frames` [F] to `others` [F], chained from frame to frame.

        It is [F, 2, H, W] float32 in pixels (x, y), with a map [F, 1, H, W] 0..1 of where every step can be trusted.
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
    frame_ids: np.ndarray,  # [F] ascending
    size: tuple[int, int],  # (H, W) pixels
    device: torch.device,
    monitor: Monitor,
    own: slice = slice(None),  # which gaps between frames to fill in
) -> None:
    """Write to `out` the flow of a film that holds only the frames `frame_ids`."""
    gaps = np.arange(len(frame_ids) - 1)[own]
    with monitor.stage("flow", len(gaps)) as stage:
        while len(gaps):
            near = frame_ids[gaps + 1] - frame_ids[gaps[0]] < frames_at_once(size, device)
            part = gaps[: max(1, int(near.sum()))]
            first, second = frame_ids[part], frame_ids[part + 1]
            between = FlowBetween(flow, int(first[0]), int(second[-1]), size, device)
            there, _ = between(np.append(first, second), np.append(second, first))
            small = F.avg_pool2d(there, HALF).permute(0, 2, 3, 1).half().cpu().numpy()
            out[part, 0], out[part, 1] = small[: len(part)], small[len(part) :]
            gaps = gaps[len(part) :]
            stage.advance(len(part))
