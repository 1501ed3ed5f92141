"""Memory of device and host: copies between them, work in chunks that fit, and the peak use."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from adaflow_core.errors import AdaFlowError
from adaflow_core.storage.arrays import put_rows

logger = logging.getLogger(__name__)


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes; on Linux without mapped files, which the system may drop."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    except FileNotFoundError:  # not Linux
        # psutil comes with accelerate and peft. `resource` has other units on macOS, and does not exist on Windows.
        import psutil

        told = psutil.Process().memory_info()
        return int(getattr(told, "private", told.rss))  # private: on Windows
    return 0


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch's work on the CPU within the block to this thread.

    For work that synchronises its threads often, such as an eigenvalue solver: on a busy CPU each one waits until the
    last thread is scheduled. Beside the search for motion 0.1 s became 10 s (640 channels, 16 cores).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def on_device(device: torch.device) -> AbstractContextManager[None]:
    """Make `device` this thread's current GPU within the block: Triton's kernels run on the current one."""
    chosen = device.type == "cuda" and device.index is not None
    return cast("AbstractContextManager[None]", torch.cuda.device(device)) if chosen else nullcontext()


class PeakMemory:
    """Measure the peak memory of a block, of the GPU on CUDA, else of the process: `with PeakMemory(device) as peak`.

    `peak.bytes` has it after the block.
    """

    def __init__(self, device: torch.device, interval: float = 0.05) -> None:
        self.device, self.interval = device, interval
        self.bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device)
        else:
            self._done.set()
            self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(self.interval):
            self.bytes = max(self.bytes, resident_bytes())
        self.bytes = max(self.bytes, resident_bytes())


def in_chunks(count: int, size: int, work: Callable[[slice], None]) -> int:
    """Call `work` on slices of at most `size` covering range(count), in order; return the size of the last ones.

    On out-of-memory the size is halved and the slice is repeated, so `work` must be repeatable. Raises AdaFlowError if
    not even one row fits.
    """
    return _shrinking(count, size, lambda start, size: work(slice(start, min(start + size, count))))


def even(count: int, size: int) -> int:
    """Return the chunk size that splits `count` into the fewest chunks of at most `size`, all about equally large."""
    return -(-count // -(-count // size)) if count else size


class Sent:
    """A result that is copied to the host while the device goes on with the next work.

    The copy is queued on the device's stream: `array` waits for the work queued before it, not after it. It then calls
    `check`, which may raise.
    """

    def __init__(self, result: Tensor, check: Callable[[], None] | None = None) -> None:
        self._check = check
        self._there: torch.cuda.Event | None = None
        pinned = _pinned_like(result) if result.is_cuda else None
        if pinned is None:
            self._host = result.cpu()
            return
        self._host = pinned.copy_(result, non_blocking=True)
        self._there = torch.cuda.Event()
        self._there.record(torch.cuda.current_stream(result.device))

    def array(self) -> np.ndarray:
        if self._there is not None:
            self._there.synchronize()
        if self._check is not None:
            self._check()
        return self._host.numpy()


def _pinned_like(result: Tensor) -> Tensor | None:
    """Return pinned host memory for an asynchronous copy, or None if the result is larger than `PINNED`.

    PyTorch never gives pinned memory back to the system.
    """
    if result.nbytes > PINNED:
        return None
    try:
        return torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
    except RuntimeError:  # the system has a limit
        return None


@contextmanager
def writing(out: np.ndarray) -> Iterator[Callable[[slice | np.ndarray, Sent], None]]:
    """Yield `put(rows, sent)`, which writes a result to `out[rows]` at the next call, so that the GPU works meanwhile.

    The last result is written when the `with` block ends.
    """
    waiting: list[tuple[slice | np.ndarray, Sent]] = []

    def write() -> None:
        rows, sent = waiting.pop()
        put_rows(out, rows, sent.array())

    def put(rows: slice | np.ndarray, sent: Sent) -> None:
        if waiting:
            write()
        waiting.append((rows, sent))

    yield put
    if waiting:
        write()


def in_passes(frames: np.ndarray, rows: int, work: Callable[[np.ndarray, int], None]) -> None:
    """Call `work(ids [rows], count)` along `frames` [F], `rows` at a time; the last pass is filled up.

    Only the first `count` of `ids` are new: after them the last frame is repeated.

    Kernels choose their order of summation by the batch size. With passes of one size, a frame's bits do not depend on
    which other frames there are. `rows` is halved on out-of-memory, as by `in_chunks`.
    """

    def run(start: int, rows: int) -> None:
        part = frames[start : start + rows]
        work(np.pad(part, (0, rows - len(part)), mode="edge"), len(part))

    _shrinking(len(frames), rows, run)


def _shrinking(count: int, size: int, run: Callable[[int, int], None]) -> int:
    """Call `run(start, size)` along range(count), halving `size` on out-of-memory; return the last size."""
    start = 0
    while start < count:
        try:
            run(start, size)
        except torch.OutOfMemoryError:
            size //= 2
        else:
            start += size
            continue
        # Not in the handler: there the exception keeps the tensors of the failed call alive.
        if not size:
            raise AdaFlowError("not even one frame fits the device's memory; choose a smaller size or fewer keyframes")
        torch.cuda.empty_cache()
        logger.warning("out of memory; going on with %d frames at a time", size)
    return size


# Rows of a batch that a feed-forward takes at once: its first product is eight times as wide as its input.
FEED_FORWARD_ROWS = 64


def feed_forward_part(rows: int, limit: int) -> int:
    """Return how many rows a feed-forward takes at once: a divisor of the batch, as chunks must be equal."""
    divisors = [part for part in range(1, rows + 1) if rows % part == 0]
    small = [part for part in divisors if part <= limit]
    if small[-1] * 4 >= min(rows, limit):
        return small[-1]
    return divisors[len(small)]  # e.g. a large prime: rather chunks above the limit than many tiny ones


class FeedForwards:
    """Sets, before each pass, the chunk size of the feed-forward in the UNet's transformer blocks."""

    def __init__(self, unet: Any) -> None:
        self._blocks = [module for module in unet.modules() if hasattr(module, "set_chunk_feed_forward")]
        self._part: int | None = None

    def cut(self, rows: int | None, limit: int | None = None) -> None:
        """Set it for a batch of `rows`, with at most about `limit` at once; None: no chunks, as before."""
        limit = limit or FEED_FORWARD_ROWS
        part = None if rows is None or rows <= limit else feed_forward_part(rows, limit)
        if part != self._part:
            for block in self._blocks:
                block.set_chunk_feed_forward(part, 0)
            self._part = part


@contextmanager
def cut_feed_forwards(unet: Any) -> Iterator[FeedForwards]:
    """Yield the `FeedForwards` of a UNet, and take the chunks away after the block."""
    feed_forwards = FeedForwards(unet)
    try:
        yield feed_forwards
    finally:
        feed_forwards.cut(None)


@dataclass
class HostOutputs:
    """The keyframes' outputs in pinned host memory; a chunk of frames fetches the outputs of its few keyframes.

    Copies in both directions are queued on the device's stream, so the host does not wait for them.
    """

    buffers: dict[str, Tensor] = field(default_factory=dict)  # layer -> [edits, K, n, d], kept from step to step

    def keep(self, layer: str, outputs: Tensor) -> Tensor:  # [edits, K, n, d] -> the same on the host
        buffer = self.buffers.get(layer)
        if buffer is None or buffer.shape != outputs.shape:
            buffer = torch.empty(outputs.shape, dtype=outputs.dtype, pin_memory=outputs.device.type == "cuda")
            self.buffers[layer] = buffer
        # Metal does not order asynchronous copies with its work: the old content could be read.
        return buffer.copy_(outputs, non_blocking=outputs.device.type == "cuda")

    @staticmethod
    def fetch(kept: Tensor, used: list[int], device: torch.device) -> Tensor:
        """[edits, K, n, d] on the host -> [edits, len(used), n, d] on the device."""
        edits, _, n, d = kept.shape
        there = torch.empty(edits, len(used), n, d, device=device, dtype=kept.dtype)
        for source, target in zip(kept, there, strict=True):
            for place, keyframe in enumerate(used):
                target[place].copy_(source[keyframe], non_blocking=device.type == "cuda")
        return there


# Most bytes of a result that is copied to the host asynchronously: latents of 4,000 frames of 384x672.
PINNED = 2**28
BLOCK = 256  # frames' latents that go between a file and the device at a time: a long video's must not fill the memory


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Return a copy of `array` on `device`.

    To a GPU it goes through pinned memory: a copy from pageable memory waits for all queued work, and the GPU then
    idles until more is queued. NumPy fills the pinned memory, because torch would synchronise its threads, which waits
    on a busy CPU.
    """
    if device.type == "cuda":
        pinned = _pinned(array.dtype, array.shape)
        np.copyto(pinned.numpy(), array)
        return pinned.to(device, non_blocking=True)
    tensor = torch.from_numpy(np.array(array))
    if device.type == "mps" and tensor.dtype == torch.float64:
        tensor = tensor.float()  # Metal has no other
    return tensor.to(device)


def rows_to_device(array: np.ndarray, rows: np.ndarray, device: torch.device) -> Tensor:
    """Return `to_device(array[rows], device)` without the copy `array[rows]`; `rows` [F] must not be negative."""
    if device.type != "cuda":
        return to_device(array[rows], device)
    pinned = _pinned(array.dtype, (len(rows), *array.shape[1:]))
    np.take(array, rows, axis=0, out=pinned.numpy(), mode="clip")  # with other modes NumPy makes a copy first
    return pinned.to(device, non_blocking=True)


def _pinned(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype, pin_memory=True)
