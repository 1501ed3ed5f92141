"""Long work in a thread of its own: it outlives the browser tab that asked for it.

One worker thread serves one device, so no two jobs ever run on it at once. Handlers only look (`snapshot`)
and ask (`submit`, `stop`); they never wait for the work.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from adaflow_core.types import AdaFlowError, Progress, Stopped

logger = logging.getLogger(__name__)

State = Literal["waiting", "running", "done", "stopped", "failed"]
Report: TypeAlias = Callable[[Progress], None]
Stop: TypeAlias = Callable[[], bool]
Work: TypeAlias = Callable[[Report, Stop], Any]

_INTERNAL = "Something went wrong inside; the server's log has the details."


@dataclass(frozen=True)
class Snapshot:
    """What a visitor may know about a job at one moment."""

    id: str
    kind: str
    state: State
    ahead: int  # jobs that run before it
    progress: Progress | None
    preview: np.ndarray | None  # [K, h, w, 3] uint8, the last pictures that were reported
    elapsed: float  # seconds of running, up to now or to its end
    remaining: float | None  # seconds left, all stages; None where nothing is known
    stopping: bool
    problem: str  # why it failed, in a sentence for the user
    result: Any  # what the work returned, once done

    @property
    def over(self) -> bool:
        return self.state in ("done", "stopped", "failed")


@dataclass
class _Job:
    id: str
    kind: str
    work: Work
    forecast: Mapping[str, float]  # stage -> predicted seconds, in order
    urgent: bool
    state: State = "waiting"
    progress: Progress | None = None
    preview: np.ndarray | None = None
    started: float = 0.0
    ended: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)
    problem: str = ""
    result: Any = None

    def remaining(self) -> float | None:
        """This stage at its pace so far, and the later stages as forecast."""
        if self.progress is None or self.progress.remaining is None:
            return None
        stages = list(self.forecast)
        later = stages[stages.index(self.progress.stage) + 1 :] if self.progress.stage in stages else []
        return self.progress.remaining + sum(self.forecast[stage] for stage in later)


class Jobs:
    """The jobs of one device: run one at a time, results kept for a while.

    keep: how many finished jobs are remembered; `discard` is called with the result of each older one.
    """

    def __init__(self, keep: int = 32, discard: Callable[[Any], None] | None = None) -> None:
        self._keep, self._discard = keep, discard
        self._changed = threading.Condition()
        self._jobs: OrderedDict[str, _Job] = OrderedDict()  # guarded by _changed, as is every job in it
        self._worker: threading.Thread | None = None

    def submit(
        self, kind: str, work: Work, *, forecast: Mapping[str, float] | None = None, urgent: bool = False
    ) -> str:
        """Queue `work`; returns the job's id, which only whoever holds it can use.

        Urgent jobs go before the others that wait, never before the one that runs.
        """
        job = _Job(secrets.token_urlsafe(16), kind, work, dict(forecast or {}), urgent)
        with self._changed:
            self._jobs[job.id] = job
            if self._worker is None:
                self._worker = threading.Thread(target=self._run, name="adaflow-jobs", daemon=True)
                self._worker.start()
            self._changed.notify_all()
        return job.id

    def stop(self, job_id: str) -> bool:
        """Ask a job to end; False if there is none of this id or it is over."""
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None or job.state not in ("waiting", "running"):
                return False
            job.stop.set()
            if job.state == "waiting":
                job.state = "stopped"
            self._changed.notify_all()
            return True

    def snapshot(self, job_id: str) -> Snapshot | None:
        """How the job stands; None if there is none of this id (any more)."""
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None:
                return None
            elapsed = (job.ended or time.monotonic()) - job.started if job.started else 0.0
            return Snapshot(
                job.id,
                job.kind,
                job.state,
                self._ahead(job),
                job.progress,
                job.preview,
                elapsed,
                job.remaining() if job.state == "running" else None,
                job.stop.is_set(),
                job.problem,
                job.result,
            )

    def wait(self, job_id: str, timeout: float | None = None) -> Snapshot | None:
        """Block until the job is over; for scripts and tests, not for event handlers."""

        def over() -> bool:
            job = self._jobs.get(job_id)
            return job is None or job.state in ("done", "stopped", "failed")

        with self._changed:
            self._changed.wait_for(over, timeout)
        return self.snapshot(job_id)

    def _waiting(self) -> list[_Job]:
        waiting = [job for job in self._jobs.values() if job.state == "waiting"]
        return sorted(waiting, key=lambda job: not job.urgent)  # stable: first come, first served

    def _ahead(self, job: _Job) -> int:
        if job.state != "waiting":
            return 0
        running = sum(other.state == "running" for other in self._jobs.values())
        return running + self._waiting().index(job)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._waiting)
                job = self._waiting()[0]
                job.state, job.started = "running", time.monotonic()
            state, result, problem = self._work(job)
            with self._changed:
                job.state, job.result, job.problem, job.ended = state, result, problem, time.monotonic()
                job.work = _nothing  # what it closed over may be large
                gone = self._evict()
                self._changed.notify_all()
            for old in gone:
                if self._discard is not None and old.result is not None:
                    self._discard(old.result)

    def _work(self, job: _Job) -> tuple[State, Any, str]:
        def report(progress: Progress) -> None:
            with self._changed:
                job.progress = progress
                if progress.preview is not None:
                    job.preview = progress.preview

        try:
            return "done", job.work(report, job.stop.is_set), ""
        except Stopped:
            return "stopped", None, ""
        except AdaFlowError as problem:
            return "failed", None, str(problem)
        except Exception:
            logger.exception("job of kind %s failed", job.kind)
            return "failed", None, _INTERNAL

    def _evict(self) -> list[_Job]:
        over = [job for job in self._jobs.values() if job.state in ("done", "stopped", "failed")]
        return [self._jobs.pop(job.id) for job in over[: max(0, len(over) - self._keep)]]


def _nothing(report: Report, stop: Stop) -> None:
    """In place of the work of a job that is over."""
