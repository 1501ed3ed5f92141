"""Work in a fork: real processes, forked as ZeroGPU forks them, here without a GPU."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.film.timeline import PromptRange, Timeline
from adaflow_core.progress import Progress
from adaflow_core.storage import arrays as store
from adaflow_core.storage.packing import pack, unpack
from adaflow_core.types import Plan
from helpers.plans import small_plan
from webui.jobs import zerogpu
from webui.jobs.engines import Engines
from webui.jobs.finished import FinishedEdit
from webui.jobs.tasks import EditTask, PlanTask, Request
from webui.jobs.zerogpu import ForkRunner
from webui.messages import message

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="a process that used CUDA cannot be forked"),
]


def fork(order: Path, public: bool, seconds: float) -> Iterator[Progress | None]:
    """As `spaces.GPU` calls a generator: in a forked process, what it yields pickled."""
    context = multiprocessing.get_context("fork")
    news = context.SimpleQueue()

    def child() -> None:
        torch.set_num_threads(1)  # OpenMP's threads are not forked with it
        for item in zerogpu._run_in_fork(order, public, seconds):
            news.put((item, os.getpid()))
        news.put((None, 0))

    process = context.Process(target=child, daemon=True)
    process.start()
    while (item := news.get())[1]:
        assert item[1] != os.getpid()
        yield item[0]
    process.join()


class Count:
    """A task that counts until it is stopped, or fails as it is told to."""

    seconds = 1.0

    def __init__(self, to: int, problem: Exception | None = None) -> None:
        self.to, self.problem = to, problem

    def run(self, engines: Engines, report: Callable[[Progress], None], stop: Callable[[], bool]) -> object:
        for done in range(self.to):
            report(Progress("count", done, self.to, 0.0))
            time.sleep(0.01)
            if stop():
                raise Stopped
        if self.problem is not None:
            raise self.problem
        return {"counted": self.to, "public": engines.public, "dtype": engines.dtype}


def never() -> bool:
    return False


def test_reports_come_out_and_the_result_comes_back(tmp_path: Path) -> None:
    reports: list[Progress] = []
    made = ForkRunner(tmp_path, public=True, dtype="float32", fork=fork)(Count(5), reports.append, never)
    assert made == {"counted": 5, "public": True, "dtype": "float32"}
    assert [report.done for report in reports] == list(range(5))
    assert list(tmp_path.iterdir()) == [], "the files between the processes are gone"


def test_a_stop_reaches_the_fork(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(Stopped):
        ForkRunner(tmp_path, fork=fork)(Count(10_000), lambda progress: None, lambda: time.monotonic() - began > 0.3)
    assert time.monotonic() - began < 60  # it counts for 100 s


@pytest.mark.parametrize(
    ("problem", "kind"), [(AdaFlowError("choose another file"), AdaFlowError), (OSError("inside"), RuntimeError)]
)
def test_what_goes_wrong_in_the_fork_is_told(problem: Exception, kind: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(kind, match=str(problem)):
        ForkRunner(tmp_path, fork=fork)(Count(1, problem), lambda progress: None, never)


def test_the_log_says_where_a_task_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The fork's exception comes back without its traceback."""
    with pytest.raises(RuntimeError, match="KeyError"):
        ForkRunner(tmp_path, fork=zerogpu._run_in_fork)(Count(1, KeyError("inside")), lambda progress: None, never)
    assert "raise self.problem" in caplog.text


def test_what_zerogpu_refuses_is_said_as_it_says_it(tmp_path: Path) -> None:
    def none_left(order: Path, public: bool, seconds: float) -> Iterator[None]:
        raise gr.Error('You have exceeded your quota.<br><a href="https://huggingface.co/join">Create an account</a>.')
        yield

    with pytest.raises(AdaFlowError) as caught:
        ForkRunner(tmp_path, fork=none_left)(Count(1), lambda progress: None, never)
    said = "You have exceeded your quota. Create an account (https://huggingface.co/join)."
    assert str(caught.value) == message(str(caught.value)) == said


def test_a_fork_that_dies_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ForkRunner(tmp_path, fork=lambda *_: iter(()))(Count(1), lambda progress: None, never)


@pytest.mark.usefixtures("one_thread")
def test_an_edit_in_forks_is_that_of_one_process(
    tiny_folder: Callable[[str], Path], drawn_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan of one fork, edited in another: the same bits, and arrays that stay on disk."""
    monkeypatch.setenv("ADAFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "SCRATCH_IN_MEMORY", 0)  # as of a long video
    model = str(tiny_folder("sd1"))
    request = Request(str(drawn_clip), PlanConfig(keyframes=2), size=(64, 64), frames=slice(0, 5))
    forked = ForkRunner(tmp_path / "orders", fork=fork)

    def edit(run: Any, plan: Plan, name: str) -> FinishedEdit:
        asked = Timeline((PromptRange(0, 5, "a blue ball"),))
        return run(EditTask(model, "tiny", request, plan, asked, EditConfig(steps=2), tmp_path / name, expected=1))

    plan = forked(PlanTask(model, request), lambda progress: None, never)
    assert isinstance(plan, Plan) and isinstance(plan.video.frames, np.memmap)
    there = edit(lambda task: forked(task, lambda progress: None, never), plan, "there")
    engines = Engines("cpu")
    here = edit(lambda task: task.run(engines, lambda progress: None, never), plan, "here")
    assert isinstance(there.after, np.memmap)
    np.testing.assert_array_equal(there.after, here.after)
    assert there.edit.is_file() and there.scores == here.scores


def test_the_time_asked_for_follows_the_forecast(drawn_clip: Path, tmp_path: Path) -> None:
    plan = small_plan()
    asked = Timeline((PromptRange(0, len(plan.video), "a ball"),))
    task = EditTask("m", "m", Request("a.mp4", plan.config), plan, asked, EditConfig(), tmp_path, expected=95.0)
    assert zerogpu._duration(tmp_path, True, task.seconds) == round(30 + 1.5 * 95)
    some, of_all = slice(0, 2), [(1024, 1024), (512, 512)]
    large, small = (PlanTask("m", Request(str(drawn_clip), plan.config, size=size)).seconds for size in of_all)
    part = PlanTask("m", Request(str(drawn_clip), plan.config, size=of_all[0], frames=some)).seconds
    assert large - 40 == pytest.approx(4 * (small - 40)) == pytest.approx(6 * (part - 40)), "of 12 frames"


def test_maps_of_files_are_carried_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "named.npy", np.arange(4000).reshape(40, 100))
    named = np.load(tmp_path / "named.npy", mmap_mode="r")
    with (tmp_path / "file").open("w+b") as file:
        unnamed = np.memmap(file, np.uint8, mode="w+", shape=(5000,))
    unnamed[:] = 7
    pack({"named": named, "part": named[3:5], "unnamed": unnamed, "plain": np.ones(2)}, tmp_path / "packed")
    assert (tmp_path / "packed").stat().st_size < 2500
    back: Any = unpack(tmp_path / "packed")
    np.testing.assert_array_equal(back["named"], named)
    np.testing.assert_array_equal(back["part"], named[3:5])
    np.testing.assert_array_equal(back["unnamed"], unnamed)
    assert isinstance(back["named"], np.memmap) and back["named"].filename == str(tmp_path / "named.npy")
    with pytest.raises(ValueError, match="read-only"):
        back["named"][0] = 1
    (tmp_path / "named.npy").unlink()  # as an order's folder is, once it is done
    pack(back["named"], tmp_path / "again")
    np.testing.assert_array_equal(unpack(tmp_path / "again"), named)
