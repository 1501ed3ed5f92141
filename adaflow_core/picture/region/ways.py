"""How what is known in some frames goes on to all others: ways through the shots, each away from one known frame.

On a way frame follows from frame, and no way needs another, so that they are gone some at a time. Frames between two
known ones are reached from both: there the way back is laid over the way there.
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
    other: int | None = None  # the known frame at their end; None: they are reached by this way alone

    @property
    def back(self) -> bool:
        return self.frames.step < 0

    @property
    def count(self) -> int:
        """Of the two times that progress counts a frame."""
        return 2 if self.other is None else 1

    def share(self, t: int) -> float:
        """What it counts for in frame `t`, 1 at its known frame and 0 at the other."""
        return 1.0 if self.other is None else (t - self.other) / (self.known - self.other)


def shots_of(cuts: np.ndarray, T: int) -> list[range]:
    return [range(begin, end) for begin, end in pairwise([0, *(int(cut) for cut in cuts), T])]


def ways(shots: Sequence[range], known: Collection[int]) -> tuple[list[Way], list[Way]]:
    """Through the shots with `known` frames: those that can be gone first, and those back that are laid over them."""
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
    """`work` on every item, some at a time, with what counts its frames in the stage, which raises when stopped."""
    lock, ended, failures = Lock(), Event(), list[BaseException]()

    def advance(count: int) -> None:
        with lock:  # the stage, and whoever is told of it, serve one thread at a time
            if ended.is_set():
                raise Stopped
            stage.advance(count)

    def whole(item: Item) -> int:
        try:
            work(item, advance)
        except BaseException as problem:  # the others end at their next frame, and not at the end of their way
            failures.append(problem)
            ended.set()
            raise
        return 0

    with one_opencv_thread():
        try:
            in_threads(whole, items, advance, end=ended.set)
        except Stopped:
            raise failures[0] from None  # of which that may be a consequence
