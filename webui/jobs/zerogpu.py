"""ZeroGPU: a GPU for the length of one call, in a process forked for it.

What the fork is to do, and what it made, goes through files (`pack`); arrays that are maps of a file go as its name.
It reports by yielding, and is stopped by a file: an event of this process does not reach it.
"""

from __future__ import annotations

import copyreg
import mmap
import pickle
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
import numpy as np

from adaflow_core.types import AdaFlowError, Progress, Stopped
from webui.jobs import Report, Stop
from webui.work import Engines, Work

_Fork = Callable[[Path, bool, float], Iterator[Progress | None]]
_engines: dict[bool, Engines] = {}  # of the forked process, which may be called again


@dataclass(frozen=True)
class Forked:
    """Does work in a fork that has the GPU; `folder` is for the files between the two processes."""

    folder: Path
    public: bool = False
    fork: _Fork | None = None  # None: ZeroGPU's

    def __call__(self, work: Work, report: Report, stop: Stop) -> object:
        order = self.folder / secrets.token_urlsafe(12)
        order.mkdir(parents=True)
        try:
            pack(work, order / "work")
            for progress in (self.fork or on_gpu)(order, self.public, work.seconds):
                if progress is not None:
                    report(progress)
                if stop():
                    (order / "stop").touch()
            made = unpack(order / "made")
        except gr.Error as told:  # no GPU to be had, or no time left: ZeroGPU says what can be done
            raise AdaFlowError(str(told.message)) from told
        finally:
            shutil.rmtree(order, ignore_errors=True)  # what is mapped of it stays readable
        if isinstance(made, BaseException):
            raise made
        return made


def _seconds(order: Path, public: bool, seconds: float) -> int:
    return round(seconds)


def _forked(order: Path, public: bool, seconds: float) -> Iterator[Progress | None]:
    """Runs in the fork: does the work that `order` holds, and yields its reports; None where there is no news."""
    reports: queue.Queue[Progress] = queue.Queue()
    worker = threading.Thread(target=_work, args=(order, public, reports.put), daemon=True)
    worker.start()
    while worker.is_alive() or not reports.empty():
        try:
            yield reports.get(timeout=0.2)
        except queue.Empty:
            yield None  # so that the other side looks whether it is to stop


def _work(order: Path, public: bool, report: Report) -> None:
    made: object
    try:
        engines = _engines.setdefault(public, Engines("auto", public))
        made = unpack(order / "work")(engines, report, (order / "stop").exists)  # type: ignore[operator]
    except (AdaFlowError, Stopped) as told:
        made = told
    except Exception as problem:
        made = RuntimeError(f"{type(problem).__name__}: {problem}")
    pack(made, order / "made")


def _on_gpu() -> _Fork:
    if find_spec("spaces") is None:
        return _forked
    import spaces

    return spaces.GPU(duration=_seconds)(_forked)


# Decorated when this module is imported: ZeroGPU wants to know its functions before the page is served.
on_gpu = _on_gpu()


# --- between the processes ----------------------------------------------------------------------------


class _Pickler(pickle.Pickler):
    """Pickles arrays that are maps of a file by its name, those of one without a name into a file beside."""

    def __init__(self, path: Path, file: Any) -> None:
        super().__init__(file)
        self.folder = path.parent
        self.dispatch_table = copyreg.dispatch_table | {np.memmap: self._map}

    def _map(self, array: Any) -> tuple[Any, ...]:  # np.memmap, whose attributes its types do not know
        named = isinstance(array.filename, (str, Path)) and Path(array.filename).is_file()
        if named and isinstance(array.base, mmap.mmap):
            order = "C" if array.flags.c_contiguous else "F"
            return np.memmap, (str(array.filename), array.dtype, "r", array.offset, array.shape, order)
        path = self.folder / f"{secrets.token_hex(8)}.npy"
        np.save(path, array)
        return np.load, (str(path), "r")


def pack(value: object, path: Path) -> None:
    """Write `value` for the other process; it appears when it is complete."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        _Pickler(path, file).dump(value)
    part.rename(path)


def unpack(path: Path) -> object:
    """What `pack` wrote: between this program's own two processes, in a folder that only they know."""
    with path.open("rb") as file:
        return pickle.load(file)
