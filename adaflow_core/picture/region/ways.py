"""Ways: paths through the shots along which what is known in some frames is carried to all others.

A way leads away from one known frame, and each frame along it follows from the one before. No way depends on another,
so several are followed at a time. Frames between two known ones are reached from both sides: there the way back is laid
over the way forward.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from threading import Event, Lock
from typing import TypeVar

import numpy as np

from adaflow_core.errors import Stopped
from adaflow_core.motion.flow import one_opencv_thread
from adaflow_core.progress import Stage, in_threads

Item = TypeVar("Item")
Advance = Callable[[int], None]  # as `Stage.advance`


@dataclass(frozen=True)
class Way:
    """Frames one after another, away from a known one."""

    known: int
    frames: range
    other: int | None = None  # the known frame beyond their end; None: only this way reaches them

    @property
    def back(self) -> bool:
        return self.frames.step < 0

    @property
    def count(self) -> int:
        """How often progress counts each frame of this way; in all, every frame is counted twice."""
        return 2 if self.other is None else 1

    def share(self, t: int) -> float:
        """Return the weight of this way in frame `t`: 1 at its known frame, 0 at the other."""
        return 1.0 if self.other is None else (t - self.other) / (self.known - self.other)


def shots_of(cuts: np.ndarray, T: int) -> list[range]:
    return [range(begin, end) for begin, end in pairwise([0, *(int(cut) for cut in cuts), T])]


def ways(shots: Sequence[range], known: Collection[int]) -> tuple[list[Way], list[Way]]:
    """Return the ways through shots with `known` frames: those to follow first, and those back to lay over them."""
    first, over = list[Way](), list[Way]()
    for shot in shots:
        inside = [t for t in shot if t in known]
        for before, after in pairwise([None, *inside, None]):
            if before is not None:
                first.append(Way(before, range(before + 1, shot.stop if after is None else after), after))
            if after is not None:
                way = Way(after, range(after - 1, shot.start - 1 if before is None else before, -1), before)
                (first if before is None else over).append(way)
    return first, over


def go(work: Callable[[Item, Advance], None], items: Iterable[Item], stage: Stage) -> None:
    """Run `work(item, advance)` on every item, in threads; `advance` counts frames in `stage` and raises if stopped."""
    lock, ended, failures = Lock(), Event(), list[BaseException]()

    def advance(count: int) -> None:
        with lock:  # the stage and its listeners serve one thread at a time
            if ended.is_set():
                raise Stopped
            stage.advance(count)

    def whole(item: Item) -> int:
        try:
            work(item, advance)
        except BaseException as problem:  # the others stop at their next frame, not at the end of their way
            failures.append(problem)
            ended.set()
            raise
        return 0

    with one_opencv_thread():
        try:
            in_threads(whole, items, advance, end=ended.set)
        except Stopped:
            raise failures[0] from None  # `Stopped` may only be its consequence
