"""How much memory a piece of work takes at its peak."""

from __future__ import annotations

import threading
from types import TracebackType

import torch


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
