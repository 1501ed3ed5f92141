"""The finished share and remaining time of a job.

A running stage is extrapolated from its own pace; the stages to come take what was forecast for them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from adaflow_core.progress import Progress


class Course:
    """The stages of a job, each with its last report.

    parts: what the job does one after another, such as drafts; for each, stage -> forecast seconds in running order. A
    report names its part. weights: stage -> approximate share of the time, for a job whose seconds are not known.
    """

    def __init__(self, parts: Sequence[Mapping[str, float]] = (), weights: Mapping[str, float] | None = None) -> None:
        self.progress: Progress | None = None
        self._parts = [dict(part) for part in parts] if any(sum(part.values()) for part in parts) else []
        self._weights = dict(weights or {})
        self._part = 0  # index of the running part
        self._begun: dict[str, Progress] = {}  # stage of the running part -> its last report
        self._furthest = -1  # index of the latest stage begun; an earlier one that has not begun was in the cache
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
        """Return the finished share of the job, 0 to 1, after `elapsed` seconds; it never decreases."""
        left = self.remaining()
        share = self._weighed() if left is None else elapsed / max(elapsed + left, 1e-6)
        self._share = max(self._share, share)
        return self._share

    def _turn_to(self, part: int) -> None:
        """Go on to `part` if it is later than the running one; the parts before it are done or were in the cache."""
        last = len(self._parts) - 1
        part = last if part < 0 else min(part, last)
        if part > self._part:
            self._part, self._furthest = part, -1
            self._begun.clear()

    def _place(self, stage: str) -> int:
        stages = list(self._parts[self._part]) if self._parts else []
        return stages.index(stage) if stage in stages else -1

    def _left(self, progress: Progress) -> float:
        """Seconds left in a stage that has begun."""
        if progress.done >= progress.total:
            return 0.0
        if progress.remaining is not None:
            return progress.remaining
        predicted = self._parts[self._part].get(progress.stage, 0.0)
        return max(0.0, predicted - (time.monotonic() - self._since))

    def _weighed(self) -> float:
        """The finished share by weights; a stage that was skipped for a later one counts as done (it was cached)."""
        shares = {stage: min(p.done / max(p.total, 1), 1.0) for stage, p in self._begun.items()}
        stages = list(self._weights)
        furthest = max((place for place, stage in enumerate(stages) if shares.get(stage)), default=0)
        done = [shares.get(stage, float(place < furthest)) for place, stage in enumerate(stages)]
        weights = self._weights.values()
        return sum(w * share for w, share in zip(weights, done, strict=True)) / max(sum(weights), 1e-6)
