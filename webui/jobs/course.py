"""How far a job is, and what is left of it: a stage that has begun at its pace, those to come as they were forecast."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from adaflow_core.progress import Progress


class Course:
    """The stages of a job, each with its last report.

    parts: what the job does one after another, such as drafts; of each the seconds of its stages, in the order in which
    they come. A report says of which part it is. weights: of a job whose seconds are not known, about how its stages
    share its time.
    """

    def __init__(self, parts: Sequence[Mapping[str, float]] = (), weights: Mapping[str, float] | None = None) -> None:
        self.progress: Progress | None = None
        self._parts = [dict(part) for part in parts] if any(sum(part.values()) for part in parts) else []
        self._weights = dict(weights or {})
        self._part = 0  # the one that runs
        self._begun: dict[str, Progress] = {}  # of its stages
        self._furthest = -1  # the place of the last of them; one before it that has not begun was in the cache
        self._since = 0.0  # when a stage began last
        self._share = 0.0

    def report(self, progress: Progress) -> None:
        self._turn_to(progress.part)
        before = self._begun.get(progress.stage)
        if before is None or progress.elapsed < before.elapsed:
            self._furthest = max(self._furthest, self._place(progress.stage))
            self._since = time.monotonic()
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

    def _turn_to(self, part: int) -> None:
        """A later part has begun: those before it are over, or were in the cache."""
        last = len(self._parts) - 1
        part = last if part < 0 else min(part, last)
        if part > self._part:
            self._part, self._furthest = part, -1
            self._begun.clear()

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
        """The share by the weights of the stages: what has not begun was in the cache where a later one gets on."""
        shares = {stage: min(p.done / max(p.total, 1), 1.0) for stage, p in self._begun.items()}
        stages = list(self._weights)
        furthest = max((place for place, stage in enumerate(stages) if shares.get(stage)), default=0)
        done = [shares.get(stage, float(place < furthest)) for place, stage in enumerate(stages)]
        weights = self._weights.values()
        return sum(w * share for w, share in zip(weights, done, strict=True)) / max(sum(weights), 1e-6)
