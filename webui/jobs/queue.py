"""Long work in a thread of its own: it outlives the browser tab that asked for it.

One worker thread serves one device, so no two jobs ever run on it at once. Handlers only look (`snapshot`)
and ask (`submit`, `stop`); they never wait for the work.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from adaflow_core.types import AdaFlowError, Progress, Stopped
from webui.wording import without_folders

logger = logging.getLogger(__name__)

State = Literal["waiting", "running", "done", "stopped", "failed"]
Report: TypeAlias = Callable[[Progress], None]
Stop: TypeAlias = Callable[[], bool]
Work: TypeAlias = Callable[[Report, Stop], Any]

# The job at work, for the log: enough of its id to find it by, too little to see its result with.
current_job: ContextVar[str] = ContextVar("current_job", default="")

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
    holds: frozenset[Path]
    context: Context  # of the event that asked for it: ZeroGPU finds in it whose time is spent
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
    waiting: how many may wait. seconds: how long each may run.
    """

    def __init__(
        self,
        keep: int = 32,
        discard: Callable[[Any], None] | None = None,
        waiting: int = 32,
        seconds: float = math.inf,
    ) -> None:
        self._keep, self._discard, self._limit, self._seconds = keep, discard, waiting, seconds
        self._changed = threading.Condition()
        self._jobs: OrderedDict[str, _Job] = OrderedDict()  # guarded by _changed, as is every job in it
        self._worker: threading.Thread | None = None

    def submit(
        self,
        kind: str,
        work: Work,
        *,
        forecast: Mapping[str, float] | None = None,
        urgent: bool = False,
        holds: Iterable[Path] = (),
    ) -> str:
        """Queue `work`; returns the job's id, which only whoever holds it can use.

        Urgent jobs go before the others that wait, never before the one that runs. `holds` are files that it will
        read. AdaFlowError where too many wait, or where what is forecast takes longer than a job may.
        """
        seconds = sum((forecast or {}).values())
        if seconds > self._seconds:
            raise AdaFlowError(
                f"this would take about {seconds / 60:.0f} min, and a job here may take {self._seconds / 60:.0f}: "
                "choose fewer frames or steps, or a smaller working size"
            )
        job = _Job(
            secrets.token_urlsafe(16), kind, work, dict(forecast or {}), urgent, frozenset(holds), copy_context()
        )
        with self._changed:
            ahead = len(self._waiting())
            if ahead >= self._limit:
                raise AdaFlowError(f"the queue is full, {ahead} jobs wait already; try again in a few minutes")
            self._jobs[job.id] = job
            if self._worker is None:
                self._worker = threading.Thread(target=self._run, name="adaflow-jobs", daemon=True)
                self._worker.start()
            self._changed.notify_all()
        logger.info("job waits", extra={"job": job.id[:8], "kind": kind, "ahead": ahead})
        return job.id

    def stop(self, job_id: str) -> bool:
        """Ask a job to end; False if there is none of this id or it is over."""
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None or job.state not in ("waiting", "running"):
                return False
            job.stop.set()
            if job.state == "waiting":
                job.state, job.ended, job.work = "stopped", time.monotonic(), _nothing
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

    def counts(self) -> dict[str, int]:
        """How many jobs are in which state."""
        with self._changed:
            return dict(Counter(job.state for job in self._jobs.values()))

    def held(self) -> set[Path]:
        """Files that jobs still need."""
        with self._changed:
            return {path for job in self._jobs.values() if job.state in ("waiting", "running") for path in job.holds}

    def works(self) -> bool:
        """Whether there is somebody to do the work; there need not be before the first job."""
        return self._worker is None or self._worker.is_alive()

    def forget_before(self, seconds: float) -> int:
        """Forget what was over that long ago, and discard its results; returns how many jobs that were."""
        with self._changed:
            oldest = time.monotonic() - seconds
            gone = [self._jobs.pop(job.id) for job in self._over() if job.ended < oldest]
        self._let_go(gone)
        return len(gone)

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
            state, result, problem = job.context.run(self._work, job)
            with self._changed:
                job.state, job.result, job.problem, job.ended = state, result, problem, time.monotonic()
                job.work = _nothing  # what it closed over may be large
                job.context = Context()
                over = self._over()
                gone = [self._jobs.pop(old.id) for old in over[: max(0, len(over) - self._keep)]]
                self._changed.notify_all()
            self._let_go(gone)

    def _work(self, job: _Job) -> tuple[State, Any, str]:
        def report(progress: Progress) -> None:
            with self._changed:
                job.progress = progress
                if progress.preview is not None:
                    job.preview = progress.preview

        def stop() -> bool:
            return job.stop.is_set() or time.monotonic() - job.started > self._seconds

        current_job.set(job.id[:8])
        state: State = "failed"
        result, problem = None, ""
        try:
            state, result = "done", job.work(report, stop)
        except Stopped:
            if job.stop.is_set():
                state = "stopped"
            else:
                limit = f"{self._seconds / 60:.0f} min"
                problem = f"it took longer than a job here may ({limit}); choose fewer frames or steps"
        except AdaFlowError as mendable:
            problem = without_folders(str(mendable))
            logger.warning("job cannot be done: %s", mendable)
        except Exception:
            problem = _INTERNAL
            logger.exception("job failed")
        seconds = round(time.monotonic() - job.started, 2)
        logger.info("job is over", extra={"kind": job.kind, "state": state, "seconds": seconds})
        return state, result, problem

    def _over(self) -> list[_Job]:
        return [job for job in self._jobs.values() if job.state in ("done", "stopped", "failed")]

    def _let_go(self, jobs: list[_Job]) -> None:
        for job in jobs:
            if self._discard is not None and job.result is not None:
                self._discard(job.result)


def _nothing(report: Report, stop: Stop) -> None:
    """In place of the work of a job that is over."""
