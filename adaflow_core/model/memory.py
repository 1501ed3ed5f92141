"""Memory: arrays on their way to the device and back, work in parts that fit, and how much it takes at its peak."""

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
    """Anonymous resident memory of this process; mapped files, which the system may drop, do not count on Linux."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    except FileNotFoundError:  # not Linux
        # It comes with accelerate and peft. `resource` says it in other units on macOS, and is not there on Windows.
        import psutil

        told = psutil.Process().memory_info()
        return int(getattr(told, "private", told.rss))  # private: on Windows
    return 0


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch's work on the processor within the block takes no other thread than this one.

    For what meets its threads again and again, such as an eigenvalue solver: where others keep the processor busy, each
    meeting waits until the last thread had its turn. Beside the search for motion 0.1 s became 10 (640 channels, 16
    cores).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def on_device(device: torch.device) -> AbstractContextManager[None]:
    """Within, work that goes to the current GPU, as Triton's kernels do, goes to this one; of a thread alone."""
    chosen = device.type == "cuda" and device.index is not None
    return cast("AbstractContextManager[None]", torch.cuda.device(device)) if chosen else nullcontext()


class PeakMemory:
    """`with PeakMemory(device) as peak:` ... `peak.bytes`: of the GPU on CUDA, else of the process."""

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
    """`work` on slices of at most `size` covering range(count), in order; returns the size that it ended with.

    Where the device's memory does not do, the size is halved and the slice begun again: `work` must leave nothing
    half done. Raises AdaFlowError where not even one fits.
    """
    return _shrinking(count, size, lambda start, size: work(slice(start, min(start + size, count))))


def even(count: int, size: int) -> int:
    """The size of as many parts of `count` as those of at most `size`, but about as large as each other."""
    return -(-count // -(-count // size)) if count else size


class Sent:
    """A result on its way to the host, for which the device does not wait with what it is given next.

    The copy is given to the device in order with its work: `array` waits for what was given before it, not after it.
    `check` is called then, and may raise.
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
    """Memory of the host for a copy beside other work; None where that is too much to be kept from being moved.

    PyTorch never gives such memory back.
    """
    if result.nbytes > PINNED:
        return None
    try:
        return torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
    except RuntimeError:  # the system has a limit
        return None


@contextmanager
def writing(out: np.ndarray) -> Iterator[Callable[[slice | np.ndarray, Sent], None]]:
    """`put(rows, sent)`: `out[rows]` is written once the next result is on its way, so that a GPU works meanwhile.

    All is written when the `with` block ends.
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
    """`work(ids [rows], count)` on all of `frames` [F] in order: the first `count` of `ids`, then the last one again.

    Kernels choose by the size of a batch in which order they add. In passes of one size a frame's bits do not depend on
    what other frames there are. Halves as `in_chunks`.
    """

    def run(start: int, rows: int) -> None:
        part = frames[start : start + rows]
        work(np.pad(part, (0, rows - len(part)), mode="edge"), len(part))

    _shrinking(len(frames), rows, run)


def _shrinking(count: int, size: int, run: Callable[[int, int], None]) -> int:
    """`run(start, size)` along range(count), `size` halved where memory does not do; returns the last one."""
    start = 0
    while start < count:
        try:
            run(start, size)
        except torch.OutOfMemoryError:
            size //= 2
        else:
            start += size
            continue
        # Here, not above: the exception keeps the tensors of the failed call alive.
        if not size:
            raise AdaFlowError("not even one frame fits the device's memory; choose a smaller size or fewer keyframes")
        torch.cuda.empty_cache()
        logger.warning("out of memory; going on with %d frames at a time", size)
    return size


# Rows of a batch that a feed-forward takes at once: its gate is eight times as wide as what goes in.
FEED_FORWARD_ROWS = 64


def feed_forward_part(rows: int, limit: int) -> int:
    """How many rows a feed-forward takes at once: parts must be equal, so a divisor of the batch."""
    divisors = [part for part in range(1, rows + 1) if rows % part == 0]
    small = [part for part in divisors if part <= limit]
    if small[-1] * 4 >= min(rows, limit):
        return small[-1]
    return divisors[len(small)]  # a large prime: rather one part that is too large than many that are too small


class FeedForwards:
    """The UNet's transformer blocks, told before each pass into what parts to cut their feed-forward."""

    def __init__(self, unet: Any) -> None:
        self._blocks = [module for module in unet.modules() if hasattr(module, "set_chunk_feed_forward")]
        self._part: int | None = None

    def cut(self, rows: int | None, limit: int | None = None) -> None:
        """For a batch of `rows`, of which `limit` may be taken at once; None: whole, as it was."""
        limit = limit or FEED_FORWARD_ROWS
        part = None if rows is None or rows <= limit else feed_forward_part(rows, limit)
        if part != self._part:
            for block in self._blocks:
                block.set_chunk_feed_forward(part, 0)
            self._part = part


@contextmanager
def cut_feed_forwards(unet: Any) -> Iterator[FeedForwards]:
    """For the time of the `with` block; whole again on the way out."""
    feed_forwards = FeedForwards(unet)
    try:
        yield feed_forwards
    finally:
        feed_forwards.cut(None)


@dataclass
class HostOutputs:
    """The keyframes' outputs in pinned host memory; a chunk of frames fetches those of its few keyframes.

    Copies both ways are given to the device in order with its work, so nothing waits for them here.
    """

    buffers: dict[str, Tensor] = field(default_factory=dict)  # layer -> [edits, K, n, d], kept from step to step

    def keep(self, layer: str, outputs: Tensor) -> Tensor:  # [edits, K, n, d] -> the same on the host
        buffer = self.buffers.get(layer)
        if buffer is None or buffer.shape != outputs.shape:
            buffer = torch.empty(outputs.shape, dtype=outputs.dtype, pin_memory=outputs.device.type == "cuda")
            self.buffers[layer] = buffer
        # Metal orders such copies with nothing: what is read next may be what was there before.
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


# Bytes of a result up to which it comes to the host beside other work: latents of 4,000 frames of 384x672.
PINNED = 2**28
BLOCK = 256  # frames' latents that go between a file and the device at a time: a long video's must not fill the memory


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy of `array` on `device`.

    To a GPU it goes through pinned memory: from any other a copy waits for all work that was given before it, and the
    GPU then waits for the next. NumPy fills it: torch's threads would meet for that, and wait for what else runs.
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
    """`to_device(array[rows], device)` of a contiguous array without the copy in between; `rows` [F], none negative."""
    if device.type != "cuda":
        return to_device(array[rows], device)
    pinned = _pinned(array.dtype, (len(rows), *array.shape[1:]))
    np.take(array, rows, axis=0, out=pinned.numpy(), mode="clip")  # with other modes NumPy makes a copy first
    return pinned.to(device, non_blocking=True)


def _pinned(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype, pin_memory=True)
