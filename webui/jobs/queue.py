"""The job queue: long work in one thread, which goes on when the browser tab is closed.

One worker thread serves one device, so two jobs never run on it at once. Event handlers submit jobs, stop them and
look at snapshots of them; they never wait for a job.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.progress import Progress, Report, Stop
from webui.jobs.course import Course
from webui.messages import without_folders

logger = logging.getLogger(__name__)

State = Literal["waiting", "running", "done", "stopped", "failed"]
Work: TypeAlias = Callable[[Report, Stop], Any]

# The running job, for the log: the first characters of its id. The whole id would give access to its result.
current_job: ContextVar[str] = ContextVar("current_job", default="")

_FINISHED = ("done", "stopped", "failed")
_INTERNAL = "Something went wrong inside; the server's log has the details."


@dataclass(frozen=True)
class Snapshot:
    """A job at one moment, as its visitor may see it."""

    id: str
    kind: str
    state: State
    ahead: int  # jobs that run before it
    progress: Progress | None
    preview: np.ndarray | None  # [K, h, w, 3] uint8, the last ones that were reported
    elapsed: float  # seconds of running, so far or in all
    remaining: float | None  # seconds left in all stages; None if unknown
    share: float  # of the job that is done, 0 to 1; it never becomes less
    stopping: bool
    problem: str  # why it failed, in a sentence for the visitor
    result: Any  # what the work returned; None before it is done
    loads: bool = False  # what runs before it loads a model: no visitor's job
    left: bool = False  # nobody wants its result any more
    replaced: bool = False  # by another job, whose progress is shown in the place of its own
    title: str = ""  # what it makes, for a visitor who looks at something else by now

    @property
    def finished(self) -> bool:
        return self.state in _FINISHED


@dataclass
class _Job:
    id: str
    kind: str
    work: Work
    course: Course
    urgent: bool
    files: frozenset[Path]
    context: Context  # of the event that submitted it: ZeroGPU reads from it whose quota is used
    title: str = ""
    visitor: Mapping[str, float] = field(default_factory=dict)
    left: bool = False
    replaced: bool = False
    state: State = "waiting"
    preview: np.ndarray | None = None
    started: float = 0.0
    ended: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)
    problem: str = ""
    result: Any = None
    held: int = 0  # bytes that its result takes

    @property
    def finished(self) -> bool:
        return self.state in _FINISHED

    @property
    def ends(self) -> bool:
        """Whether it has finished or soon will."""
        return self.finished or self.stop.is_set()

    def elapsed(self) -> float:
        return (self.ended or time.monotonic()) - self.started if self.started else 0.0


class Jobs:
    """The jobs of one device: run one at a time, their results kept for a while.

    keep: how many finished jobs of a kind are remembered; keep_of: the same for the kinds that it names. keep_bytes:
    what their results may take in all, each as `bytes_of` says when it is made; the last one is kept whatever it takes.
    `discard` is called with the result of each that ended before. waiting: how many jobs may wait. seconds: how long
    each may run.
    """

    def __init__(
        self,
        keep: int = 32,
        keep_of: Mapping[str, int] | None = None,
        keep_bytes: float = math.inf,
        bytes_of: Callable[[Any], int] = lambda result: 0,
        discard: Callable[[Any], None] | None = None,
        waiting: int = 32,
        seconds: float = math.inf,
    ) -> None:
        self._keep, self._keep_of, self._keep_bytes = keep, dict(keep_of or {}), keep_bytes
        self._bytes_of, self._discard = bytes_of, discard
        self._most_waiting, self._seconds = waiting, seconds
        self._lock = threading.Lock()
        self._submitted = threading.Condition(self._lock)
        self._jobs: OrderedDict[str, _Job] = OrderedDict()  # guarded by _lock, and so is every job in it
        self._worker: threading.Thread | None = None

    def submit(
        self,
        kind: str,
        work: Work,
        *,
        forecast: Sequence[Mapping[str, float]] = (),
        weights: Mapping[str, float] | None = None,
        urgent: bool = False,
        files: Iterable[Path] = (),
        title: str = "",
        visitor: Mapping[str, float] | None = None,
        job_id: str = "",
    ) -> str:
        """Queue `work`, and return the job's secret id, which gives access to it: `job_id`, or by default a new one.

        Urgent jobs run before other waiting ones; they do not interrupt a running one. `files` are kept until the job
        has finished. `forecast` and `weights` are a `Course`'s. `visitor`: the names of who asks, each with how many
        unfinished jobs it may have, urgent and other ones counted apart. AdaFlowError if that are more, or if too many
        jobs wait.
        """
        job = _Job(
            job_id or new_id(), kind, work, Course(forecast, weights), urgent, frozenset(files), copy_context(), title,
            visitor or {},
        )  # fmt: skip
        with self._lock:
            ahead = self._check_room(urgent, job.visitor)
            self._jobs[job.id] = job
            if self._worker is None:
                self._worker = threading.Thread(target=self._run, name="adaflow-jobs", daemon=True)
                self._worker.start()
            self._submitted.notify()
        logger.info("job waits", extra={"job": job.id[:8], "kind": kind, "ahead": ahead})
        return job.id

    def check_room(self, urgent: bool, visitor: Mapping[str, float]) -> None:
        """AdaFlowError if such a job of this visitor would be refused now."""
        with self._lock:
            self._check_room(urgent, visitor)

    def refuse(self, kind: str, problem: AdaFlowError, job_id: str) -> None:
        """A job that has failed with this problem, without waiting for anything: whoever knows its id is told why."""
        job = _Job(job_id, kind, _no_work, Course(), False, frozenset(), Context())
        job.state, job.problem, job.ended = "failed", without_folders(str(problem)), time.monotonic()
        with self._lock:
            self._jobs[job_id] = job
        logger.warning("job cannot be done: %s", problem, extra={"job": job_id[:8], "kind": kind})

    def stop(self, job_id: str) -> bool:
        """Ask a job to stop; False if there is no such job or it has finished."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None or job.finished:
                return False
            job.stop.set()
            if job.state == "waiting":
                job.state, job.ended, job.work = "stopped", time.monotonic(), _no_work
            return True

    def leave(self, job_id: str, replaced: bool = False) -> None:
        """Stop a job that was for what a visitor no longer looks at, or that is `replaced` by another one; one that has
        just finished is marked as well."""
        with self._lock:
            if job := self._jobs.get(job_id):
                job.left, job.replaced = True, replaced
        self.stop(job_id)

    def snapshot(self, job_id: str) -> Snapshot | None:
        """The job as it is now; None if there is no such job, or no longer."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None:
                return None
            return Snapshot(
                id=job.id,
                kind=job.kind,
                state=job.state,
                ahead=self._ahead(job),
                progress=job.course.progress,
                preview=job.preview,
                elapsed=job.elapsed(),
                remaining=job.course.remaining() if job.state == "running" else None,
                share=job.course.share(job.elapsed()),
                stopping=job.stop.is_set(),
                problem=job.problem,
                result=job.result,
                loads=any(other.state == "running" and other.kind == "load" for other in self._jobs.values()),
                left=job.left,
                replaced=job.replaced,
                title=job.title,
            )

    def counts(self) -> dict[str, int]:
        """State -> number of jobs."""
        with self._lock:
            return dict(Counter(job.state for job in self._jobs.values()))

    def files_in_use(self) -> set[Path]:
        """The files of unfinished jobs."""
        with self._lock:
            return {path for job in self._jobs.values() if not job.finished for path in job.files}

    def held_bytes(self) -> int:
        """What the results that are kept take."""
        with self._lock:
            return sum(job.held for job in self._jobs.values())

    def is_alive(self) -> bool:
        """False if the worker thread has died; before the first job there is none."""
        return self._worker is None or self._worker.is_alive()

    def forget_older_than(self, seconds: float) -> int:
        """Forget jobs that finished longer ago, and discard their results; returns their number."""
        with self._lock:
            oldest = time.monotonic() - seconds
            forgotten = [self._jobs.pop(job.id) for job in self._finished() if job.ended < oldest]
        self._discard_results(forgotten)
        return len(forgotten)

    def _check_room(self, urgent: bool, visitor: Mapping[str, float]) -> int:
        """How many jobs wait; AdaFlowError if these are too many, or who asks for one has as many as may be."""
        alike = [each for each in self._jobs.values() if each.urgent == urgent and not each.ends]
        own = Counter(name for each in alike for name in each.visitor)
        most = max((own[name] for name, allowed in visitor.items() if own[name] >= allowed), default=0)
        if most:
            raise AdaFlowError(f"{most} of your jobs wait or run already; wait until one has ended, or stop one")
        ahead = len(self._waiting())
        if ahead >= self._most_waiting:
            raise AdaFlowError(f"the queue is full, {ahead} jobs wait already; try again in a few minutes")
        return ahead

    def _waiting(self) -> list[_Job]:
        waiting = [job for job in self._jobs.values() if job.state == "waiting"]
        return sorted(waiting, key=lambda job: not job.urgent)  # stable: first come, first served

    def _finished(self) -> list[_Job]:
        return [job for job in self._jobs.values() if job.finished]

    def _too_many(self) -> list[_Job]:
        """Of each kind the finished jobs over its number, and those whose results take too much, the oldest first.

        Jobs without a result are counted apart: stopping many edits forgets nobody's finished one.
        """
        alike: defaultdict[tuple[str, bool], list[_Job]] = defaultdict(list)
        ended = sorted(self._finished(), key=lambda job: job.ended)
        for job in ended:
            alike[job.kind, job.result is None].append(job)
        over = {
            job.id: job
            for (kind, _), jobs in alike.items()
            for job in jobs[: max(0, len(jobs) - self._keep_of.get(kind, self._keep))]
        }
        large = [job for job in ended if job.held and job.id not in over]
        held = sum(job.held for job in large)
        for job in large[:-1]:
            if held <= self._keep_bytes:
                break
            over[job.id] = job
            held -= job.held
        return list(over.values())

    def _ahead(self, job: _Job) -> int:
        if job.state != "waiting":
            return 0
        running = sum(other.state == "running" for other in self._jobs.values())
        return running + self._waiting().index(job)

    def _run(self) -> None:
        """The worker thread."""
        while True:
            with self._lock:
                self._submitted.wait_for(self._waiting)
                job = self._waiting()[0]
                job.state, job.started = "running", time.monotonic()
            state, result, problem = job.context.run(self._work, job)
            held = self._bytes_of(result)
            with self._lock:
                job.state, job.result, job.problem, job.ended = state, result, problem, time.monotonic()
                job.held = held
                job.work, job.context = _no_work, Context()  # releases what they hold, which may be large
                forgotten = [self._jobs.pop(old.id) for old in self._too_many()]
            self._discard_results(forgotten)

    def _work(self, job: _Job) -> tuple[State, Any, str]:
        """Do the job's work; returns its state, result and problem."""

        def report(progress: Progress) -> None:
            with self._lock:
                job.course.report(progress)
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
        except AdaFlowError as error:
            problem = without_folders(str(error))
            logger.warning("job cannot be done: %s", error)
        except Exception:
            problem = _INTERNAL
            logger.exception("job failed")
        seconds = round(time.monotonic() - job.started, 2)
        logger.info("job is over", extra={"kind": job.kind, "state": state, "seconds": seconds})
        return state, result, problem

    def _discard_results(self, jobs: list[_Job]) -> None:
        for job in jobs:
            if self._discard is not None and job.result is not None:
                self._discard(job.result)


@dataclass
class Watched:
    """The edits that a tab has watched, by their jobs.

    It is one object for a tab, and changed in place: a handler that watches an edit sees that the tab has turned to
    something else meanwhile.
    """

    here: list[str] = field(default_factory=list)  # what comes of them is shown
    aside: list[str] = field(default_factory=list)  # they go on, and their results are among the edits so far

    def put_aside(self) -> None:
        self.aside, self.here = [*self.aside, *self.here], []

    def turn_to(self, job_id: str) -> None:
        """What comes of this one is shown; the others go on aside."""
        self.put_aside()
        self.here, self.aside = [job_id], [other for other in self.aside if other != job_id]


@dataclass
class Begun:
    """What a tab has begun and follows, by its jobs: plannings, of which several may run, the load of a model, and
    drafts and a search, of which the last ones are followed.

    As `Watched` it is one object for a tab, and changed in place: what stops them knows of all.
    """

    plans: list[str] = field(default_factory=list)
    load: str = ""  # of the model that was chosen last
    draft: str = ""
    place: str = ""

    @property
    def jobs(self) -> tuple[str, ...]:
        """Those of step 2."""
        return (*self.plans, self.load)

    @property
    def of_video(self) -> tuple[str, ...]:
        """Those that end with the video."""
        return (*self.plans, self.draft, self.place)


def new_id() -> str:
    """A secret id, by which a job can be known before it is submitted."""
    return secrets.token_urlsafe(16)


def _no_work(report: Report, stop: Stop) -> None:
    """Replaces the work of a finished job."""
