"""Where tasks run: one after another in this process, and on the workers of Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from adaflow_core.batch.pool import InTurn, RayPool
from adaflow_core.batch.run import tasks_of
from adaflow_core.batch.task import Job, Outcome, Task, perform
from adaflow_core.errors import AdaFlowError, Stopped
from helpers.batches import METHODS, clip, needs_model


def test_tasks_in_turn_stop_between_two() -> None:
    ended = []
    with InTurn() as pool, pytest.raises(Stopped):
        for task, result in filter(None, pool.map(lambda n: n * n, [1, 2, 3], lambda: len(ended) > 1)):
            ended.append((task, result))
    assert ended == [(1, 1), (2, 4)]


# --- Ray ------------------------------------------------------------------------------------------

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed (requirements-batch.txt)")


def test_without_ray_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(AdaFlowError, match=r"requirements-batch\.txt"):
        RayPool("local", workers=1, gpus=None, retries=0)


@pytest.fixture
def ray_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], list[str]]:
    """A Ray that says it has so many GPUs; gives the list that tells when it is shut down."""

    def install(gpus: float) -> list[str]:
        ended: list[str] = []
        ray = types.SimpleNamespace(
            init=lambda **_: None,
            cluster_resources=lambda: {"CPU": 8.0, "GPU": gpus},
            shutdown=lambda: ended.append("shut down"),
        )
        monkeypatch.setitem(sys.modules, "ray", ray)
        return ended

    return install


@pytest.mark.parametrize(("there", "gpus", "width"), [(1.0, 0.2, 5), (2.0, 0.1, 20), (4.0, 2.0, 2), (2.0, None, 2)])
def test_as_many_tasks_run_as_fit_on_the_gpus(
    there: float, gpus: float | None, width: int, ray_with: Callable[[float], list[str]]
) -> None:
    ray_with(there)
    assert RayPool("local", workers=None, gpus=gpus, retries=0).width == width


def test_more_gpus_than_there_are_is_told(ray_with: Callable[[float], list[str]]) -> None:
    """Ray would wait for them."""
    ended = ray_with(0.0)
    with pytest.raises(AdaFlowError, match="this machine has 0 GPUs"):
        RayPool("local", workers=None, gpus=1.0, retries=0)
    assert ended == ["shut down"]
    assert RayPool("auto", workers=None, gpus=1.0, retries=0).width == 1, "a cluster may grow"


@pytest.fixture(scope="module")
def pool() -> Iterator[RayPool]:
    """Two workers on this machine, for all tests of the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # else the other tests' processes come first
        with RayPool("local", workers=2, gpus=None, retries=1) as pool:
            yield pool


@pytest.mark.thorough
@needs_ray
def test_a_task_whose_worker_dies_is_tried_again(pool: RayPool, tmp_path: Path) -> None:
    def work(name: str) -> str:
        """Dies the first time, or always, by the signal that cannot be caught."""
        mark = tmp_path / name
        tries = len(mark.read_text()) if mark.exists() else 0
        mark.write_text("x" * (tries + 1))
        if name == "always" or (name == "once" and tries == 0):
            os.kill(os.getpid(), signal.SIGKILL)
        return f"{name} done"

    found = dict(filter(None, pool.map(work, ["well", "once", "always"], lambda: False)))
    assert found["well"] == "well done" and found["once"] == "once done"
    assert isinstance(found["always"], Exception) and (tmp_path / "always").read_text() == "xx"


@pytest.mark.thorough
@needs_ray
@needs_model
@pytest.mark.slow
def test_ray_makes_the_same_edits(pool: RayPool, job: Job) -> None:
    job = replace(job, scorer=None)  # its class is in a module that workers lack
    task = next(tasks_of([clip("one")], METHODS, 1))
    here = perform(task, job)
    there = replace(job, out=job.out + "-ray")

    def work(task: Task) -> Outcome:
        return perform(task, there)

    ((_, outcome),) = filter(None, pool.map(work, [task], lambda: False))
    assert (outcome.made, outcome.problems) == (here.made, {}) == (2, {})
    for name in ("foreground", "style"):
        first, second = ((Path(out) / f"videos/{task.key(name)}.mp4").read_bytes() for out in (job.out, there.out))
        assert first == second


_STOPPED = """
import os, signal, sys, tempfile, time
from adaflow_core.batch.pool import RayPool
from adaflow_core.errors import Stopped

folder = sys.argv[1]

def work(task):
    with tempfile.TemporaryDirectory(dir=folder):
        while True:  # an exception raised from outside comes between two instructions
            time.sleep(0.05)

if __name__ == "__main__":
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    with RayPool("local", workers=2, gpus=None, retries=0) as pool:
        try:
            for _ in pool.map(work, [1, 2, 3], lambda: bool(stopped)):
                if len(os.listdir(folder)) == 2:
                    os.kill(os.getpid(), signal.SIGTERM)
        except Stopped:
            sys.exit(130)
"""


@pytest.mark.thorough
@needs_ray
def test_a_batch_stopped_by_sigterm_ends_its_tasks_with_their_folders(tmp_path: Path) -> None:
    """Ray's own handler of SIGTERM ended the process; workers that are killed leave their temporary folders."""
    folder, script = tmp_path / "folder", tmp_path / "stopped.py"
    folder.mkdir()
    script.write_text(_STOPPED)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "RAY_worker_niceness": "0"}
    ended = subprocess.run([sys.executable, str(script), str(folder)], env=environment, timeout=120, check=False)
    assert ended.returncode == 130 and list(folder.iterdir()) == []
