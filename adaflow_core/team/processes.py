"""Starts the processes of a team, hands calls to them, watches them, and ends them together.

Every process gets every call, and the leader's result is the answer. The processes wait for each other in the middle of
a call, so none can go on alone: when one fails or ends, all are ended, and the next call starts new ones. Finished
stages are in the cache.
"""

from __future__ import annotations

import atexit
import errno
import math
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol, cast

from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.progress import Progress, Report, Stop
from adaflow_core.storage.arrays import no_room
from adaflow_core.storage.packing import pack, unpack
from adaflow_core.team.team import Team, join, remove

_GRACE = 3.0  # seconds that the others have to answer after a failure or a stop: a call that one refuses, all refuse
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PATIENCE = 0.2  # seconds between looks at the stop signal
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_WATCH = 1.0  # seconds between looks at whether the parent process is still there


class Server(Protocol):
    """The function by which a process of a team carries out a call."""

    def __call__(self, name: str, args: Any, kwargs: dict[str, Any], report: Report | None, stop: Stop) -> object: ...


Make = Callable[[Team], Server]
"""Makes a process's server; it must be picklable."""


@dataclass
class _Started:
    """Running processes."""

    folder: Path
    stopping: Any  # multiprocessing.Event
    processes: list[Any]
    pipes: list[Connection]

    @property
    def alive(self) -> bool:
        """Whether all processes run and the folder exists, which the system may remove after days without a call."""
        return all(process.is_alive() for process in self.processes) and self.folder.is_dir()

    def end(self) -> None:
        atexit.unregister(self.end)
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class _Answers:
    """How the processes answered a call."""

    by_rank: dict[int, BaseException | None]  # in the order in which they came; None: it succeeded
    all_came: bool

    @property
    def failures(self) -> list[BaseException]:
        return [problem for problem in self.by_rank.values() if problem is not None]

    @property
    def cause(self) -> BaseException:
        """The failure to raise: an AdaFlowError if there is one, as its sentence is for the user."""
        return next((problem for problem in self.failures if isinstance(problem, AdaFlowError)), self.failures[0])

    @property
    def processes_are_idle(self) -> bool:
        """Whether all processes can take the next call.

        A process that answered no longer waits for another in an exchange, but an unexpected exception may have left
        its state half changed.
        """
        return self.all_came and all(isinstance(problem, AdaFlowError) for problem in self.failures)


@dataclass
class Processes:
    """A team of `size` processes, started by the first call; `make` makes the server in each of them."""

    make: Make
    size: int
    _started: _Started | None = None
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def call(self, name: str, args: Any, kwargs: dict[str, Any], report: Report | None, stop: Stop | None) -> Any:
        """Return what the leader's server returns, or raise what it raises.

        Raises AdaFlowError if a process ends, `Stopped` after `stop`.
        """
        stop = stop or (lambda: False)
        while not self._turn.acquire(timeout=_PATIENCE):
            if stop():
                raise Stopped
        try:
            if self._started is not None and not self._started.alive:  # between two calls nothing is lost
                self.close()
            started = self._started = self._started or _start(self.make, self.size)
            return self._ask(started, name, args, kwargs, report, stop)
        finally:
            self._turn.release()

    @property
    def busy(self) -> bool:
        """Whether a call is being answered; the next one waits for its end."""
        return self._turn.locked()

    def close(self) -> None:
        """End the processes; the next call starts new ones."""
        if self._started is not None:
            self._started.end()
            self._started = None

    def _ask(
        self, started: _Started, name: str, args: Any, kwargs: dict[str, Any], report: Report | None, stop: Stop
    ) -> Any:
        order = started.folder / secrets.token_hex(8)
        try:
            with _handing_over():
                order.mkdir()
                pack((name, args, kwargs), order / "task")
            try:
                started.stopping.clear()
                self._send(started, order, stop)
                answers = self._answers(started, report, stop)
            except BaseException:  # an interruption too: the processes are in the middle of the call
                self.close()
                raise
            if answers.failures:
                if not answers.processes_are_idle:
                    self.close()
                raise answers.cause
            return unpack(order / "result")
        finally:
            shutil.rmtree(order, ignore_errors=True)  # memory maps of its files stay readable
            for file in started.folder.glob("*.npy"):  # of `Team.scratch`
                remove(file)

    def _send(self, started: _Started, order: Path, stop: Stop) -> None:
        for rank, pipe in enumerate(started.pipes):
            try:
                pipe.send(order)
            except OSError as problem:
                raise _ended(started, rank, stop) from problem

    def _answers(self, started: _Started, report: Report | None, stop: Stop) -> _Answers:
        """Wait for all processes; after a failure or a stop, for those that answer within `_GRACE` seconds.

        Raises AdaFlowError if a process ends, `Stopped` if one has not answered after a stop.
        """
        answers: dict[int, BaseException | None] = {}
        pipes = {pipe: rank for rank, pipe in enumerate(started.pipes)}  # of processes that have not answered
        ends = {process.sentinel: rank for rank, process in enumerate(started.processes)}
        deadline = math.inf
        while pipes and time.monotonic() < deadline:
            if stop():
                started.stopping.set()
            for ready in wait([*pipes, *ends], timeout=_PATIENCE):
                if not isinstance(ready, Connection):
                    raise _ended(started, ends[ready], stop)
                try:
                    said = ready.recv()
                except (EOFError, OSError):
                    continue  # the process has ended: the next `wait` returns its sentinel
                if not isinstance(said, Progress):
                    answers[pipes.pop(ready)] = said
                elif report is not None:
                    report(said)
            failed = any(problem is not None for problem in answers.values())
            if deadline == math.inf and (failed or started.stopping.is_set()):
                deadline = time.monotonic() + _GRACE
        if pipes and started.stopping.is_set():
            raise Stopped
        return _Answers(answers, all_came=not pipes)


def _ended(started: _Started, rank: int, stop: Stop) -> AdaFlowError | Stopped:
    """Return what to raise for a process that ended in a call: `Stopped` if a stop was asked for, which may end it."""
    process = started.processes[rank]
    process.join()
    if stop():
        return Stopped()
    code = process.exitcode
    how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
    return AdaFlowError(
        f"process {rank + 1} of the {len(started.processes)} that work on this film {how}; memory may have run out. "
        "Run it again: what was finished is kept"
    )


@contextmanager
def _handing_over() -> Iterator[None]:
    """Turn a full disk into an AdaFlowError, while one process writes a file for another."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in _FULL:  # e.g. from a generator of frames that reads files
            raise
        raise no_room(problem) from problem


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Block SIGINT and SIGTERM in this thread, and in the processes that it starts until they unblock them.

    A process imports torch for seconds before `_serve` can ignore signals. Windows has no masks of signals.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ignore_signals() -> None:
    """Leave Ctrl+C and SIGTERM, which go to all processes of a group, to the process that asks: it ends the others."""
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)


def _start(make: Make, size: int) -> _Started:
    context = get_context("spawn")
    folder = Path(tempfile.mkdtemp(prefix="adaflow-team-"))
    started = _Started(folder, context.Event(), [], [])
    atexit.register(started.end)  # before multiprocessing's own, which sends SIGTERM, that they ignore, and waits
    try:
        for rank in range(size):
            ours, theirs = context.Pipe()
            asked = make, rank, size, folder, theirs, started.stopping
            process = context.Process(target=_serve, args=asked, name=f"adaflow {rank}", daemon=True)
            with _signals_held_back():  # what comes meanwhile is raised at the end of this block
                process.start()
                started.processes.append(process)
                started.pipes.append(ours)
            theirs.close()
    except BaseException:
        started.end()
        raise
    return started


def _serve(make: Make, rank: int, size: int, folder: Path, pipe: Connection, stopping: Any) -> None:
    """Run a process of the team: answer each call with None or an exception; the leader writes the result to a file."""
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    # All processes are on this machine: without this, Gloo looks up the machine's name, which may fail.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    _ignore_signals()
    server: Server | None = None
    while True:
        try:
            order: Path = pipe.recv()
        except EOFError:
            return  # the parent has ended
        answer: BaseException | None = None
        try:
            server = server or make(join(rank, size, folder))
            name, args, kwargs = cast("tuple[str, Any, dict[str, Any]]", unpack(order / "task"))
            # Kept until the next call: the files of its arrays, whose names are handed over, are removed with them.
            result = server(name, args, kwargs, pipe.send if rank == 0 else None, stopping.is_set)
            if rank == 0:
                with _handing_over():
                    pack(result, order / "result")
        except (AdaFlowError, Stopped) as expected:
            answer = expected
        except Exception as problem:  # as text: the exception may not be picklable
            answer = RuntimeError("".join(traceback.format_exception(problem)))
        pipe.send(answer)


def _end_with_parent(folder: Path) -> None:
    """End this process once its parent is gone, even while it waits for the others of its team."""
    parent = parent_process()
    assert parent is not None
    # Processes that the parent forked keep its sentinel open; Windows has no other sign.
    while not wait([parent.sentinel], _WATCH) and (sys.platform == "win32" or os.getppid() == parent.pid):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)
