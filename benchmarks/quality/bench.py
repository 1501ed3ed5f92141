"""What all parts of the benchmark share: the engine, the clock, the pool of scorers and the file of results."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adaflow_core.config import EditConfig
from adaflow_core.editing.forecasting.forecast import KIND as CALIBRATION
from adaflow_core.engine import AdaFlow
from adaflow_core.model.backbone import Backbone
from adaflow_core.storage.cache import Cache
from adaflow_core.types import Plan
from benchmarks.output import plain_json, say
from benchmarks.quality import PARTS
from benchmarks.quality.contestants import Contestant, make_plan
from benchmarks.quality.scoring import lower_priority
from scenes.clips import FPS
from scenes.training.classifier import Judge

WRITE_SECONDS = 10.0  # between two writings of the results
WAITING = 6  # edits per scoring process that may wait for it
# Kinds of cache entries that all contestants share. Each contestant is charged for them in full; the calibration is
# measured before the first one.
SHARED = ("latents", "features", "inversion", CALIBRATION)


class Results:
    """The one file that all reports are made from: rewritten as rows come, complete at any time."""

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        self.path = path
        self.data: dict[str, Any] = {"meta": meta, **{part: [] for part in PARTS}}
        self._written = 0.0
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, part: str, row: dict[str, Any]) -> None:
        self.data[part].append(plain_json(row))
        if time.monotonic() - self._written > WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        trial = self.path.with_suffix(".part")
        trial.write_text(json.dumps(self.data, allow_nan=False) + "\n")
        trial.replace(self.path)
        self._written = time.monotonic()


@dataclass
class Bench:
    """Runs edits on the device, and scores them in other processes meanwhile."""

    backbone: Backbone
    judge: Judge
    results: Results
    folder: Path  # for frames on their way to the scorers
    pool: ProcessPoolExecutor
    workers: int
    deadline: float  # on the clock of time.monotonic()
    size: int
    shared: bool  # other runs use the device too, so that measured seconds mean nothing
    _pending: list[tuple[Future[Any], Callable[[Any], None]]] = field(default_factory=list)
    _first: dict[tuple[str, str], float] = field(default_factory=dict)  # seconds of shared stages, per clip

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.deadline

    def timed(self, seconds: float) -> float | None:
        return None if self.shared else seconds

    def engine(self) -> AdaFlow:
        """Return a new engine without plans, on a cache with the `SHARED` entries only; a contestant makes the rest."""
        cache = Cache(self.folder / "cache")
        for kind in cache.root.glob("*"):
            if kind.name not in SHARED:
                shutil.rmtree(kind)
        return AdaFlow(self.backbone, cache)

    def plan(self, who: Contestant, clip: str, source: np.ndarray, prompt: str, keyframes: int | None) -> Planned:
        engine = self.engine()
        start = time.perf_counter()
        plan, edit_config = make_plan(who, engine, source, prompt, keyframes, FPS)
        seconds = time.perf_counter() - start
        for stage in ("encode", "features"):  # run once per clip
            if stage in plan.seconds:
                self._first[clip, stage] = plan.seconds[stage]
            else:
                seconds += self._first.get((clip, stage), 0.0)
        return Planned(engine, plan, edit_config, seconds)

    def edit(self, planned: Planned, clip: str, prompt: str, config: EditConfig | None = None) -> Edited:
        """Run an edit; its seconds are given as if no frame had been inverted before."""
        config = config or planned.config
        start = time.perf_counter()
        result = planned.engine.edit(planned.plan, prompt, config).forget_state()
        seconds = time.perf_counter() - start
        settings = result.report["settings"]["edit"]
        # Each contestant is charged for inverting all frames that it edits, even if an earlier one had inverted some.
        spent, edited = result.report["seconds"].get("invert", 0.0), len(result.report["edited"])
        of_a_frame = self._first.setdefault(
            (clip, f"invert {settings['steps']}/{settings['inversion_steps']}"), spent / edited
        )
        seconds += of_a_frame * edited - spent
        return Edited(result.frames, seconds, result.report["peak_memory_bytes"], settings)

    # --- scores beside the device -----------------------------------------------------------------

    def submit(self, then: Callable[[Any], None], work: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        """Run `work` in another process, then `then` with its result here; waits while the scorers are far behind."""
        self._pending.append((self.pool.submit(work, *arguments, **named), then))
        self.collect(at_most=WAITING * self.workers)

    def collect(self, at_most: int = 0) -> None:
        """Handle finished results, and wait until at most `at_most` are pending."""
        while True:
            done = [pair for pair in self._pending if pair[0].done()]
            self._pending = [pair for pair in self._pending if not pair[0].done()]
            for future, then in done:
                then(future.result())
            if len(self._pending) <= at_most:
                return
            wait([future for future, _ in self._pending], timeout=0.5, return_when="FIRST_COMPLETED")


@dataclass(frozen=True)
class Planned:
    engine: AdaFlow
    plan: Plan
    config: EditConfig
    seconds: float


@dataclass(frozen=True)
class Edited:
    frames: np.ndarray  # [T, H, W, 3] uint8
    seconds: float
    peak_memory: int  # bytes
    settings: dict[str, Any]


@contextmanager
def open_bench(
    backbone: Backbone,
    judge: Judge,
    results: Results,
    *,
    workers: int,
    minutes: float | None,
    size: int,
    shared: bool = False,
) -> Iterator[Bench]:
    """Yield a bench; at its end all results are written, and its frames and caches are deleted."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # for the scorers; this process's torch has read them already
    deadline = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    context = get_context("spawn")  # CUDA does not survive a fork
    with (
        tempfile.TemporaryDirectory(prefix="adaflow-quality-") as folder,
        ProcessPoolExecutor(workers, mp_context=context, initializer=lower_priority) as pool,
    ):
        bench = Bench(backbone, judge, results, Path(folder), pool, workers, deadline, size, shared)
        try:
            yield bench
            bench.collect()
        finally:
            results.write()


def warm_up(bench: Bench, source: np.ndarray, prompt: str) -> None:
    """One short edit that is not measured: libraries choose kernels in it, and the engine measures its forecast."""
    engine = bench.engine()
    start = time.perf_counter()
    plan = engine.plan(source, replace(Contestant("", "", "method").plan, source_prompt=prompt), fps=FPS)
    engine.edit(plan, prompt, EditConfig(steps=2, inversion_steps=2)).forget_state()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    say(f"warmed up in {time.perf_counter() - start:.1f} s")
