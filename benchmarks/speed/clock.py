"""Measures a run stage by stage: seconds, and the peaks of the GPU's and of the host's memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

from adaflow_core.model.memory import resident_bytes
from adaflow_core.progress import Progress

GIB = 2**30


@dataclass
class Spent:
    """One stage so far."""

    seconds: float = 0.0
    share: float = 0.0  # of the stage that is done, 0..1
    gpu_bytes: int = 0
    host_bytes: int = 0  # anonymous; mapped files, which the system may drop, do not count


class Clock:
    """Takes a run's reports of progress: `with Clock(device) as clock: engine.plan(..., progress=clock.report)`.

    Within the stage "edit" the first `keyframes` frames of each `frames` are the keyframes, counted as "keyframes",
    and the others as "propagation"; in `agreeing` rounds, counted from 0, all count as "agreement". `changed` is
    called when a stage ends, so that a run that is cut off leaves what it has.
    """

    def __init__(
        self,
        device: torch.device,
        changed: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.device, self.changed, self.now = device, changed, now
        self.stages: dict[str, Spent] = {}
        self.keyframes = self.frames = 0
        self.agreeing: frozenset[int] = frozenset()
        self._stage, self._last = "", 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Clock:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def report(self, progress: Progress) -> None:
        name = progress.stage
        if progress.done == 0:
            if name != self._stage:
                self._reset_peak()
                self.changed()
            self._stage, self._last = name, self.now()
            self.stages.setdefault(name, Spent())
            return
        shares = {name: progress.done / progress.total}
        ends = progress.done == progress.total
        if name == "edit" and self.frames:
            shares |= self._part_of_edit(progress)
            ends = progress.done % self.frames in (0, self.keyframes)
        if ends and self.device.type == "cuda":  # waiting after each chunk would hold up what is measured
            torch.cuda.synchronize(self.device)
        elapsed = self.now() - self._last
        self._last += elapsed
        for part, share in shares.items():
            spent = self.stages.setdefault(part, Spent())
            spent.seconds += elapsed
            spent.share = share
            spent.gpu_bytes = max(spent.gpu_bytes, self._peak())
            spent.host_bytes = max(spent.host_bytes, resident_bytes())
        if name == "edit" and ends:
            self._reset_peak()

    def _part_of_edit(self, progress: Progress) -> dict[str, float]:
        """Return the kind of pass that was just done, and the share of all passes of this kind that are done."""
        T, K, begun = self.frames, self.keyframes, (progress.done - 1) // self.frames  # `begun`: finished rounds
        agreed = sum(number < begun for number in self.agreeing)
        if begun in self.agreeing:
            return {"agreement": (progress.done - (begun - agreed) * T) / (len(self.agreeing) * T)}
        S, step, done = progress.total // T - len(self.agreeing), begun - agreed + 1, progress.done - agreed * T
        if (progress.done - 1) % T < K:
            return {"keyframes": (done - (step - 1) * (T - K)) / (S * K)}
        return {"propagation": (done - step * K) / (S * (T - K))}

    def _peak(self) -> int:
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0

    def _reset_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def _sample(self) -> None:
        while not self._done.wait(0.05):
            if spent := self.stages.get(self._stage):
                spent.host_bytes = max(spent.host_bytes, resident_bytes())


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of one large matrix product, the best of a few."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / seconds(lambda: a @ b, device, repeats=8)


def seconds(work: Callable[[], Any], device: torch.device, repeats: int = 3, warm: int = 1) -> float:
    """Return the seconds of the fastest of `repeats` runs, after `warm` runs that are not timed."""
    best = float("inf")
    for run in range(warm + repeats):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if run >= warm:
            best = min(best, time.perf_counter() - start)
    return best
