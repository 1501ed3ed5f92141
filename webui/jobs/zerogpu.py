"""Tasks on ZeroGPU, which lends a GPU to a forked process for the length of one call.

Task and result pass between the processes as pickles in a folder (`pack`, `unpack`); memory maps pass as the name of
their file. The fork reports by yielding. It is stopped by a file, because an event set here would not reach it.
"""

from __future__ import annotations

import logging
import queue
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr

from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.progress import Progress, Report, Stop
from adaflow_core.storage.packing import pack, unpack
from webui.jobs.engines import Engines
from webui.jobs.tasks import Task
from webui.messages import without_tags

logger = logging.getLogger(__name__)
_Fork = Callable[[Path, bool, float], Iterator[Progress | None]]
_engines: dict[tuple[bool, str], Engines] = {}  # of the forked process, which may be used for several calls


@dataclass(frozen=True)
class ForkRunner:
    """Runs a task in a fork that has a GPU; `folder` is for the files between the two processes."""

    folder: Path
    public: bool = False
    dtype: str = "auto"
    fork: _Fork | None = None  # None: ZeroGPU's

    def __call__(self, task: Task, report: Report, stop: Stop) -> object:
        order = self.folder / secrets.token_urlsafe(12)
        order.mkdir(parents=True)
        try:
            pack((task, self.dtype), order / "task")
            for progress in (self.fork or on_gpu)(order, self.public, task.seconds):
                if progress is not None:
                    report(progress)
                if stop():
                    (order / "stop").touch()
            result = unpack(order / "result")
        except gr.Error as refusal:  # no GPU is free or the quota is used up: ZeroGPU's message says what to do
            raise AdaFlowError(without_tags(str(refusal.message))) from refusal
        finally:
            shutil.rmtree(order, ignore_errors=True)  # memory maps of its files stay readable
        if isinstance(result, BaseException):
            raise result
        return result


def _duration(order: Path, public: bool, seconds: float) -> int:
    """The seconds of GPU time to ask ZeroGPU for; it calls this with the arguments of `_run_in_fork`."""
    return round(seconds)


def _run_in_fork(order: Path, public: bool, seconds: float) -> Iterator[Progress | None]:
    """Run the task in the folder `order`, and yield its progress reports; None if there is nothing new."""
    reports: queue.Queue[Progress] = queue.Queue()
    worker = threading.Thread(target=_run_task, args=(order, public, reports.put), daemon=True)
    worker.start()
    while worker.is_alive() or not reports.empty():
        try:
            yield reports.get(timeout=0.2)
        except queue.Empty:
            yield None  # so that the parent checks whether to stop


def _run_task(order: Path, public: bool, report: Report) -> None:
    result: object
    try:
        asked: Any = unpack(order / "task")
        task, dtype = asked
        engines = _engines.setdefault((public, dtype), Engines("auto", public, dtype=dtype))
        result = task.run(engines, report, (order / "stop").exists)
    except (AdaFlowError, Stopped) as expected:
        result = expected
    except Exception as problem:  # it may not be picklable, and loses its traceback on the way
        logger.exception("a task failed in its fork")
        result = RuntimeError(f"{type(problem).__name__}: {problem}")
    pack(result, order / "result")


def _on_gpu() -> _Fork:
    if find_spec("spaces") is None:
        return _run_in_fork
    import spaces

    return spaces.GPU(duration=_duration)(_run_in_fork)


# Decorated on import: ZeroGPU looks for decorated functions before the page is served.
on_gpu = _on_gpu()
