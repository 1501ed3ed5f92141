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
    loads: bool = False  # the running job loads a model, so it is no visitor's job
    left: bool = False  # nobody wants its result any more
    replaced: bool = False  # by another job, whose progress is shown instead
    title: str = ""  # what it makes, shown when the page has moved on to something else

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
    context: Context  # of the submitting event: ZeroGPU reads from it whose quota to charge
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
    """The jobs of one device: they run one at a time, and their results are kept for a while.

    keep: how many finished jobs of each kind are remembered. keep_of: kind -> number, in place of `keep`. keep_bytes:
    the most bytes that all results may take together, as `bytes_of` counts each when it is made; the newest one is
    kept even if it alone takes more. discard: called with the result of each job that is forgotten. waiting: how many
    jobs may wait. seconds: how long each job may run.
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
        has finished. `forecast` and `weights` are passed to `Course`. `visitor`: the names by which the visitor is
        known, each with how many unfinished jobs it may have; urgent jobs are counted apart from others. AdaFlowError
        if one of the names has that many already, or if too many jobs wait.
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
        """Raise AdaFlowError if `submit` would refuse such a job of this visitor now."""
        with self._lock:
            self._check_room(urgent, visitor)

    def refuse(self, kind: str, problem: AdaFlowError, job_id: str) -> None:
        """Add a job that has already failed with `problem`, so that whoever knows its id is told why."""
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
        """Stop a job whose result nobody wants any more, or that is `replaced` by another one.

        A job that has already finished is marked as left as well.
        """
        with self._lock:
            if job := self._jobs.get(job_id):
                job.left, job.replaced = True, replaced
        self.stop(job_id)

    def snapshot(self, job_id: str) -> Snapshot | None:
        """The job as it is now; None if it does not exist or has been forgotten."""
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
        """Bytes of all results that are kept."""
        with self._lock:
            return sum(job.held for job in self._jobs.values())

    def is_alive(self) -> bool:
        """False if the worker thread has died; before the first job there is none."""
        return self._worker is None or self._worker.is_alive()

    def forget_older_than(self, seconds: float) -> int:
        """Forget jobs that finished more than `seconds` ago, discard their results, and return how many."""
        with self._lock:
            oldest = time.monotonic() - seconds
            forgotten = [self._jobs.pop(job.id) for job in self._finished() if job.ended < oldest]
        self._discard_results(forgotten)
        return len(forgotten)

    def _check_room(self, urgent: bool, visitor: Mapping[str, float]) -> int:
        """Return how many jobs wait; AdaFlowError if the queue is full or the visitor has too many jobs."""
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
        """Return the finished jobs to forget: the oldest over the number of their kind, then the oldest over the bytes.

        Jobs without a result are counted apart, so that stopping many edits does not push out a finished one.
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
        """Do the job's work, and return its state, result and problem."""

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
    """The job ids of the edits that a tab has begun to watch.

    Each tab has one such object, which is changed in place, so that a handler that is watching an edit notices when
    the tab turns to something else.
    """

    here: list[str] = field(default_factory=list)  # their progress and results are shown
    aside: list[str] = field(default_factory=list)  # they go on, and their results join the list of edits so far

    def put_aside(self) -> None:
        self.aside, self.here = [*self.aside, *self.here], []

    def turn_to(self, job_id: str) -> None:
        """Show this job's progress and result; the others go on aside."""
        self.put_aside()
        self.here, self.aside = [job_id], [other for other in self.aside if other != job_id]


@dataclass
class Begun:
    """The job ids of what a tab has begun and follows, apart from edits.

    Several plannings may be followed at once; of model loads, drafts and searches only the last one is. As `Watched`,
    it is one object per tab and changed in place, so that the handler that stops the jobs knows all of them.
    """

    plans: list[str] = field(default_factory=list)
    load: str = ""  # the load of the model that was chosen last
    draft: str = ""
    place: str = ""

    @property
    def jobs(self) -> tuple[str, ...]:
        """The jobs of step 2 of the page."""
        return (*self.plans, self.load)

    @property
    def of_video(self) -> tuple[str, ...]:
        """The jobs to stop when the video is replaced or removed."""
        return (*self.plans, self.draft, self.place)


def new_id() -> str:
    """Return a new secret id; a job may be given it before it is submitted."""
    return secrets.token_urlsafe(16)


def _no_work(report: Report, stop: Stop) -> None:
    """Replaces the work of a finished job."""
