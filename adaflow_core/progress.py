"""Progress out of, and the stop signal into, every long loop."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from adaflow_core.errors import Stopped

THREADS = max(1, min(16, (os.cpu_count() or 1) // 2))  # besides the model's own threads
T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """One report of a long operation."""

    stage: str  # "decode", "encode", "features", "similarity", "invert", "edit", "write" ...
    done: int
    total: int
    elapsed: float  # seconds since the stage began
    preview: np.ndarray | None = None  # [K, h, w, 3] uint8, small pictures of the keyframes, while editing
    skipped: int = 0  # how much of `done` an earlier run did
    unit: str = ""  # of `done` and `total`: "B" for bytes, "" for pieces of work
    part: int = 0  # index of a part that is done on its own, such as a range of a timeline; -1: the last

    @property
    def remaining(self) -> float | None:
        """Seconds left in this stage at the pace so far; None before the first unit is done."""
        done = self.done - self.skipped
        return self.elapsed / done * (self.total - self.done) if done else None

    @property
    def amount(self) -> str:
        """`done` and `total` as text, such as "0.4 of 2.1 GB"."""
        if not self.unit:
            return f"{self.done} of {self.total}"
        scale, name = (1e9, "GB") if self.total >= 1e9 else (1e6, "MB")
        return f"{self.done / scale:.1f} of {self.total / scale:.1f} {name}"


Report = Callable[[Progress], None]
Stop = Callable[[], bool]


def in_part(report: Report | None, part: int) -> Report | None:
    """Return a report that sets `Progress.part` to `part` and passes it on to `report`."""
    return report and (lambda progress: report(replace(progress, part=part)))


class Monitor:
    """Carries progress out of, and the stop signal into, every long loop.

    `report` is called after every chunk; `stop` is asked before every chunk and within large ones.
    """

    def __init__(
        self,
        report: Report | None = None,
        stop: Stop | None = None,
    ) -> None:
        self._report = report
        self._stop = stop
        self.seconds: dict[str, float] = {}  # stage -> seconds, summed over visits
        self.notes: list[str] = []  # sentences for the user

    def note(self, sentence: str) -> None:
        """Tell the user with the result, e.g. of something that had to be done anew."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def check(self) -> None:
        """Raise `Stopped` if the stop signal is set."""
        if self._stop is not None and self._stop():
            raise Stopped

    def quiet(self) -> Monitor:
        """The same stop signal, without reports: for work inside a stage."""
        return Monitor(stop=self._stop)

    def stage(self, name: str, total: int, unit: str = "") -> Stage:
        self.check()
        return Stage(self, name, total, unit)


class Stage:
    """One stage of a `Monitor`, used as a context manager: `with monitor.stage("encode", T) as stage`."""

    def __init__(self, monitor: Monitor, name: str, total: int, unit: str = "") -> None:
        self.monitor, self.name, self.total, self.unit = monitor, name, total, unit
        self.done = self.skipped = 0
        self.start = time.perf_counter()

    def __enter__(self) -> Stage:
        self._send(None)
        return self

    def __exit__(self, *exc: object) -> None:
        seconds = self.monitor.seconds
        seconds[self.name] = seconds.get(self.name, 0.0) + time.perf_counter() - self.start

    def advance(self, count: int = 1, preview: np.ndarray | None = None) -> None:
        self.done += count
        if count or preview is not None:
            self._send(preview)
        self.monitor.check()

    def skip(self, count: int) -> None:
        """Count units that an earlier run did; they say nothing about this one's pace."""
        self.done += count
        self.skipped += count
        self._send(None)

    @contextmanager
    def again_if_it_fails(self) -> Iterator[None]:
        """Take back what the block has counted if it raises: that work will be repeated, or not be done."""
        before = self.done
        try:
            yield
        except BaseException:
            self.done = before
            raise

    def chunks(self, count: int, size: int) -> Iterator[slice]:
        """Slices of at most `size` covering range(count); the stage advances after each."""
        for start in range(0, count, size):
            self.monitor.check()
            part = slice(start, min(start + size, count))
            yield part
            self.advance(part.stop - part.start)

    def _send(self, preview: np.ndarray | None) -> None:
        if self.monitor._report is not None:
            elapsed = time.perf_counter() - self.start
            self.monitor._report(Progress(self.name, self.done, self.total, elapsed, preview, self.skipped, self.unit))


def added(*seconds: Mapping[str, float]) -> dict[str, float]:
    """Return the sum of several dicts of seconds by stage."""
    stages = dict.fromkeys(stage for some in seconds for stage in some)
    return {stage: sum(some.get(stage, 0.0) for some in seconds) for stage in stages}


def in_threads(
    work: Callable[[T], int],
    items: Iterable[T],
    advance: Callable[[int], None],
    threads: int = THREADS,
    end: Callable[[], None] = lambda: None,
) -> None:
    """Run `work` on every item in threads; `advance` gets each return value, in order, and may raise.

    After a failure `end` is called, and then the items that still run are waited for.
    """
    with ThreadPoolExecutor(min(threads, THREADS)) as pool:
        try:
            for count in pool.map(work, items):
                advance(count)
        except BaseException:
            end()
            pool.shutdown(cancel_futures=True)
            raise


@contextmanager
def beside(monitor: Monitor, *works: Callable[[Monitor], object]) -> Iterator[None]:
    """Run `works` one after another in a thread while the block runs, which does not need their results.

    After the block, waits for the thread and raises its exception, if any. If the block raises or `monitor` is stopped,
    the works are stopped too.
    """
    ends = threading.Event()
    thread, own = ThreadPoolExecutor(1, "beside"), Monitor(stop=ends.is_set)
    found = thread.submit(lambda: [work(own) for work in works])
    try:
        yield
        while not wait([found], timeout=0.2).done:
            monitor.check()
        found.result()
    finally:
        ends.set()
        thread.shutdown()
        monitor.notes += [note for note in own.notes if note not in monitor.notes]
