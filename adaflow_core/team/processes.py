"""The processes of a team from outside: started, asked, watched, and ended together.

What one of them does, all do: each gets every call, and the leader's result is the answer. They wait for each other in
the middle of their work, so that none can go on without the others: when one fails or ends, all are ended, and the next
call starts them anew. What was finished is in the cache.
"""

from __future__ import annotations

import errno
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

_GRACE = 3.0  # seconds within which the others must fail as one did, where all refuse what they were asked for
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PATIENCE = 0.2  # seconds between looks at the stop signal
_WATCH = 1.0  # seconds between looks at whether who started a process is still there


class Server(Protocol):
    """What a process of a team does with a call."""

    def __call__(self, name: str, args: Any, kwargs: dict[str, Any], report: Report | None, stop: Stop) -> object: ...


Make = Callable[[Team], Server]
"""A team's process makes its server by this; it must be picklable."""


@dataclass
class _Started:
    """Running processes."""

    folder: Path
    stopping: Any  # multiprocessing.Event
    processes: list[Any]
    pipes: list[Connection]

    @property
    def alive(self) -> bool:
        """Whether all are there, and the folder, which the system may clear away where nothing is asked for days."""
        return all(process.is_alive() for process in self.processes) and self.folder.is_dir()

    def end(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class Processes:
    """A team of `size` processes, started by the first call; `make` makes in each what answers calls."""

    make: Make
    size: int
    _started: _Started | None = None
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def call(self, name: str, args: Any, kwargs: dict[str, Any], report: Report | None, stop: Stop | None) -> Any:
        """What the leader's server answers. Raises what it raises, AdaFlowError where a process ends, `Stopped`."""
        stop = stop or (lambda: False)
        while not self._turn.acquire(timeout=_PATIENCE):
            if stop():
                raise Stopped
        try:
            if self._started is not None and not self._started.alive:  # between two calls: nothing is lost by it
                self.close()
            started = self._started = self._started or _start(self.make, self.size)
            return self._ask(started, name, args, kwargs, report, stop)
        finally:
            self._turn.release()

    @property
    def busy(self) -> bool:
        """Whether a call is being answered, whose end the next one waits for."""
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
                self._send(started, order)
                answers = self._answers(started, report, stop)
            except BaseException:  # an interruption too: they are in the middle of something
                self.close()
                raise
            if failures := [problem for problem in answers if problem is not None]:
                meant = [problem for problem in failures if isinstance(problem, AdaFlowError)]
                # Who misses another waits for it: where all have answered, none is in the middle of something.
                if len(answers) < self.size or len(meant) < len(failures):
                    self.close()
                raise (meant or failures)[0]
            return unpack(order / "result")
        finally:
            shutil.rmtree(order, ignore_errors=True)  # memory maps of its files stay readable
            for file in started.folder.glob("*.npy"):  # of `Team.scratch`
                remove(file)

    def _send(self, started: _Started, order: Path) -> None:
        for rank, (pipe, process) in enumerate(zip(started.pipes, started.processes, strict=True)):
            try:
                pipe.send(order)
            except OSError as problem:
                raise _ended(process, rank, self.size) from problem

    def _answers(self, started: _Started, report: Report | None, stop: Stop) -> list[BaseException | None]:
        """None for success, or the failure, of each process that answered, in the order in which they did.

        They are all, or those that answered before a failure and soon after it.
        """
        answers: list[BaseException | None] = []
        open_pipes, deadline = list(started.pipes), float("inf")
        ends = {process.sentinel: rank for rank, process in enumerate(started.processes)}
        while open_pipes and time.monotonic() < deadline:
            if stop():
                started.stopping.set()
                deadline = min(deadline, time.monotonic() + _GRACE)
            for ready in wait([*open_pipes, *ends], timeout=_PATIENCE):
                if not isinstance(ready, Connection):
                    raise _ended(started.processes[ends[ready]], ends[ready], self.size)
                try:
                    said = ready.recv()
                except (EOFError, OSError):
                    continue  # its end is seen next
                if isinstance(said, Progress):
                    if report is not None:
                        report(said)
                    continue
                open_pipes.remove(ready)
                answers.append(said)
                if said is not None:
                    deadline = min(deadline, time.monotonic() + _GRACE)
        if open_pipes and started.stopping.is_set():
            raise Stopped
        return answers


def _ended(process: Any, rank: int, size: int) -> AdaFlowError:
    process.join()
    code = process.exitcode
    how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
    return AdaFlowError(
        f"process {rank + 1} of the {size} that work on this film {how}; memory may have run out. Run it again: what "
        "was finished is kept"
    )


@contextmanager
def _handing_over() -> Iterator[None]:
    """Says where a file that one process writes for another finds no room."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in _FULL:  # such as one of a generator of frames
            raise
        raise no_room(problem) from problem


def _start(make: Make, size: int) -> _Started:
    context = get_context("spawn")
    folder = Path(tempfile.mkdtemp(prefix="adaflow-team-"))
    stopping, processes, pipes = context.Event(), [], []
    for rank in range(size):
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(make, rank, size, folder, theirs, stopping), name=f"adaflow {rank}", daemon=True
        )
        process.start()
        theirs.close()
        processes.append(process)
        pipes.append(ours)
    return _Started(folder, stopping, processes, pipes)


def _serve(make: Make, rank: int, size: int, folder: Path, pipe: Connection, stopping: Any) -> None:
    """What a process of the team runs: it answers each call with None or the exception; the result is in a file."""
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    # They are all of this machine: no name of it is asked for.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the process that asks
    server: Server | None = None
    while True:
        try:
            order: Path = pipe.recv()
        except EOFError:
            return  # whoever started it has ended
        answer: BaseException | None = None
        try:
            server = server or make(join(rank, size, folder))
            name, args, kwargs = cast("tuple[str, Any, dict[str, Any]]", unpack(order / "task"))
            # Kept until the next call: the files of its arrays, which are handed over by name, go with them.
            result = server(name, args, kwargs, pipe.send if rank == 0 else None, stopping.is_set)
            if rank == 0:
                with _handing_over():
                    pack(result, order / "result")
        except (AdaFlowError, Stopped) as expected:
            answer = expected
        except Exception as problem:  # it may not be picklable
            answer = RuntimeError("".join(traceback.format_exception(problem)))
        pipe.send(answer)


def _end_with_parent(folder: Path) -> None:
    """Ends this process when the one that asks is gone, whatever it waits for: the others of its team, for days."""
    parent = parent_process()
    assert parent is not None
    # Processes that the parent forked keep its sentinel open; Windows has no other sign.
    while not wait([parent.sentinel], _WATCH) and (sys.platform == "win32" or os.getppid() == parent.pid):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)
