"""The processes of a team: one that dies, a stop of all of them, and what becomes of them when their parent ends.

In a file of its own, as every process that is started imports it.
"""

from __future__ import annotations

import errno
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaflow_core.errors import AdaFlowError
from adaflow_core.storage.arrays import no_room
from adaflow_core.team.processes import Processes, Server, _Started
from adaflow_core.team.team import Team


def _pids(team: Team) -> Server:
    """A server that tells its process's number, once it has met the others."""

    def answer(name: str, args: Any, kwargs: Any, report: object, stop: object) -> int:
        if name == "die" and team.rank == args[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        team.wait()
        return os.getpid()

    return answer


def _kill(process: Any) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.join()


@pytest.mark.thorough
def test_a_process_that_dies_between_calls_fails_none() -> None:
    processes = Processes(_pids, 2)
    try:
        first = processes.call("", (), {}, None, None)
        assert processes.call("", (), {}, None, None) == first
        before = processes._started
        assert before is not None
        _kill(before.processes[1])
        assert processes.call("", (), {}, None, None) != first
        assert not before.folder.exists() and not any(process.is_alive() for process in before.processes)
        shutil.rmtree(processes._started.folder)  # type: ignore[union-attr]  # as systems do with what lies for days
        processes.call("", (), {}, None, None)
    finally:
        processes.close()


@pytest.mark.thorough
def test_a_process_that_dies_as_it_is_asked_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = Processes(_pids, 2)
    try:
        with pytest.raises(AdaFlowError, match=r"process 1 of the 2 .* was killed by signal 9"):
            processes.call("die", (0,), {}, None, None)
        processes.call("", (), {}, None, None)
        monkeypatch.setattr(_Started, "alive", True)  # it dies just after the look
        _kill(processes._started.processes[1])  # type: ignore[union-attr]
        with pytest.raises(AdaFlowError, match=r"process 2 of the 2 .* was killed by signal 9"):
            processes.call("", (), {}, None, None)
    finally:
        processes.close()


class _Full:
    """What a full disk has no room for."""

    def __reduce__(self) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")


def _fills(team: Team) -> Server:
    """A server that fills the disk, and tells its process's number."""

    def answer(name: str, args: Any, kwargs: Any, report: object, stop: object) -> Any:
        if name == "together":
            problem = OSError(errno.ENOSPC, "No space left on device")
            if not team.leads:
                raise problem
            time.sleep(0.2)  # the last to say so
            raise no_room(problem)
        return _Full() if name == "result" else (os.getpid(), *args)

    return answer


def test_a_start_that_fails_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """They ignore the signal by which multiprocessing ends processes as a program exits, and it would wait for ever."""
    plain, begun = SpawnProcess.start, list[SpawnProcess]()

    def start(process: SpawnProcess) -> None:
        if begun:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        begun.append(process)
        plain(process)

    monkeypatch.setattr(SpawnProcess, "start", start)
    with pytest.raises(OSError, match="unavailable"):
        Processes(_fills, 2).call("", (), {}, None, None)
    assert not begun[0].is_alive()


@pytest.mark.thorough
def test_a_full_disk_is_told_and_what_was_not_begun_or_is_done_ends_no_process() -> None:
    processes = Processes(_fills, 2)
    full = r"not fit into .* set TMPDIR to another folder, .* \(No space left on device\)"
    try:
        first = processes.call("", (), {}, None, None)
        with pytest.raises(AdaFlowError, match=full):
            processes.call("", (_Full(),), {}, None, None)
        with pytest.raises(AdaFlowError, match=full):
            processes.call("result", (), {}, None, None)
        pid, frames = processes.call("", ((np.full(2, n) for n in range(3)),), {}, None, None)
        assert (pid,) == first and [frame.tolist() for frame in frames] == [[0, 0], [1, 1], [2, 2]]
        with pytest.raises(FileNotFoundError):
            processes.call("", ((path.read_bytes() for path in [Path("missing.png")]),), {}, None, None)
        assert not [path for path in processes._started.folder.iterdir() if path.is_dir()]  # type: ignore[union-attr]
        with pytest.raises(AdaFlowError, match=full):
            processes.call("together", (), {}, None, None)
        assert processes.call("", (), {}, None, None) != first  # they were in the middle of something
    finally:
        processes.close()


_WAITING = """
import os, sys, time
from adaflow_core.team.processes import Processes

def make(team):
    def answer(*_):
        here = os.path.join(sys.argv[1], str(team.rank))
        with open(here + ".part", "w") as file:
            file.write(f"{os.getpid()} {team.folder}")
        os.rename(here + ".part", here)
        if team.leads:
            time.sleep(3600)
        team.wait()  # for the leader
    return answer

if __name__ == "__main__":
    Processes(make, 2).call("", (), {}, None, None)
"""


@pytest.mark.thorough
@pytest.mark.skipif(not hasattr(os, "fork"), reason="by the numbers of POSIX's processes")
def test_no_process_outlives_the_one_that_asks(tmp_path: Path) -> None:
    """Rank 1 waited for the leader, for two days, and held its GPU."""
    script = tmp_path / "waiting.py"
    script.write_text(_WAITING)
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(root)}
    ) as process:
        assert process.stdout is not None
        ranks = [tmp_path / "0", tmp_path / "1"]  # not by the output: Gloo writes there too, in pieces
        while not all(rank.exists() for rank in ranks):
            assert process.poll() is None, "it ended before its processes were there"
            time.sleep(0.05)
        pids, folders = zip(*(rank.read_text().split(maxsplit=1) for rank in ranks), strict=True)
        process.kill()
        try:
            end = time.monotonic() + 30
            os.set_blocking(process.stdout.fileno(), False)
            while process.stdout.read() != b"":  # None while a process holds it open and says nothing
                assert select.select([process.stdout], [], [], max(0, end - time.monotonic()))[0], "a process lives on"
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
    assert not Path(folders[0]).exists()


_STOPPABLE = """
import os, signal, sys, time

def here(what):
    open(os.path.join(sys.argv[1], f"{what} {os.getpid()}"), "w").close()

if __name__ != "__main__":
    here("importing")

from adaflow_core.errors import Stopped
from adaflow_core.team.processes import Processes

def make(team):
    def answer(name, args, kwargs, report, stop):
        here("working")
        while not stop():
            time.sleep(0.02)
        raise Stopped
    return answer

if __name__ == "__main__":
    stopped = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.append(number))
    try:
        Processes(make, 2).call("", (), {}, None, lambda: bool(stopped))
    except Stopped:
        sys.exit(130)
"""


@pytest.mark.thorough
@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals go to groups of POSIX's processes")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["importing", "working"])
def test_a_stop_of_the_whole_group_is_no_failure(when: str, number: int, tmp_path: Path) -> None:
    """Processes that had not yet imported torch, and any at SIGTERM, died: "memory may have run out"."""
    script = tmp_path / "stoppable.py"
    script.write_text(_STOPPABLE)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, str(script), str(tmp_path)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        while len(list(tmp_path.glob(f"{when} *"))) < 2:
            assert process.poll() is None, "it ended before its processes were there"
            time.sleep(0.02)
        os.killpg(process.pid, number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Error" not in said and "Interrupt" not in said


_LEAVES = """
from adaflow_core.team.processes import Processes

def make(team):
    return lambda *_: None

if __name__ == "__main__":
    processes = Processes(make, 2)
    processes.call("", (), {}, None, None)
"""


@pytest.mark.thorough
def test_a_program_that_leaves_its_processes_running_ends(tmp_path: Path) -> None:
    """multiprocessing ends those that are left by SIGTERM, which they ignore, and waits for them."""
    script = tmp_path / "leaves.py"
    script.write_text(_LEAVES)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    subprocess.run([sys.executable, str(script)], env=environment, check=True, timeout=60)
