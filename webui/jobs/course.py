"""How far a job is, and what is left of it: a stage that has begun at its pace, those to come as they were forecast."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from adaflow_core.progress import Progress


class Course:
    """The stages of a job, each with its last report.

    parts: what the job does one after another, such as drafts; of each the seconds of its stages, in the order in which
    they come. weights: of a job whose seconds are not known, about how its stages share its time.
    """

    def __init__(self, parts: Sequence[Mapping[str, float]] = (), weights: Mapping[str, float] | None = None) -> None:
        self.progress: Progress | None = None
        self._parts = [dict(part) for part in parts if sum(part.values()) > 0]
        self._weights = dict(weights or {})
        self._part = 0  # the one that runs
        self._begun: dict[str, Progress] = {}  # of its stages
        self._furthest = -1  # the place of the last of them; one before it that has not begun was in the cache
        self._since = 0.0  # when a stage began last
        self._share = 0.0

    def report(self, progress: Progress) -> None:
        before = self._begun.get(progress.stage)
        if before is None or progress.elapsed < before.elapsed:
            self._begin(progress.stage)
        self._begun[progress.stage] = self.progress = progress

    def remaining(self) -> float | None:
        """Seconds left in all stages; None where they are not forecast."""
        if not self._parts:
            return None
        part = self._parts[self._part]
        to_come = sum(list(part.values())[self._furthest + 1 :])
        to_come += sum(sum(later.values()) for later in self._parts[self._part + 1 :])
        begun = [p for p in self._begun.values() if p is self.progress or p.stage in part]
        return to_come + sum(self._left(progress) for progress in begun)

    def share(self, elapsed: float) -> float:
        """How much of the job is done after so many seconds, from 0 to 1; it never becomes less."""
        left = self.remaining()
        share = self._weighed() if left is None else elapsed / max(elapsed + left, 1e-6)
        self._share = max(self._share, share)
        return self._share

    def _begin(self, stage: str) -> None:
        if self._is_of_the_next_part(stage):
            self._part, self._furthest = self._part + 1, -1
            self._begun.clear()
        self._furthest = max(self._furthest, self._place(stage))
        self._since = time.monotonic()

    def _is_of_the_next_part(self, stage: str) -> bool:
        """A part has its longest stage once; before it may come others that a part has several times."""
        if self._part + 1 >= len(self._parts):
            return False
        part = self._parts[self._part]
        longest = max(part, key=lambda each: part[each])
        known = self._begun.get(longest)
        if known is None:
            return False
        return stage == longest or (known.done >= known.total and 0 <= self._place(stage) < self._place(longest))

    def _place(self, stage: str) -> int:
        stages = list(self._parts[self._part]) if self._parts else []
        return stages.index(stage) if stage in stages else -1

    def _left(self, progress: Progress) -> float:
        """Seconds left of a stage that has begun."""
        if progress.done >= progress.total:
            return 0.0
        if progress.remaining is not None:
            return progress.remaining
        predicted = self._parts[self._part].get(progress.stage, 0.0)
        return max(0.0, predicted - (time.monotonic() - self._since))

    def _weighed(self) -> float:
        """The share by the weights of the stages."""
        if self.progress is None or self.progress.stage not in self._weights:
            return 0.0
        stages = list(self._weights)
        place, weights = stages.index(self.progress.stage), list(self._weights.values())
        done = self.progress.done / max(self.progress.total, 1)
        return (sum(weights[:place]) + weights[place] * min(done, 1.0)) / sum(weights)
