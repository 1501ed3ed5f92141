"""How much memory a piece of work takes at its peak, and what to do where there is too little."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType

import torch

from adaflow_core.errors import AdaFlowError

logger = logging.getLogger(__name__)


def resident_bytes() -> int:
    """Anonymous resident memory of this process; mapped files, which the system may drop, do not count."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    except FileNotFoundError:  # not Linux: the largest resident size so far is all there is
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return 0


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
    start = 0
    while start < count:
        part = slice(start, min(start + size, count))
        try:
            work(part)
        except torch.OutOfMemoryError:
            size = (part.stop - part.start) // 2
        else:
            start = part.stop
            continue
        # Here, not above: the exception keeps the tensors of the failed call alive.
        if not size:
            raise AdaFlowError("not even one frame fits the device's memory; choose a smaller size or fewer keyframes")
        torch.cuda.empty_cache()
        logger.warning("out of memory; going on with %d frames at a time", size)
    return size
