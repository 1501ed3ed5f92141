"""Measures an edit: seconds, memory and needed operations of each stage."""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from adaflow_core.config import PRESETS, EditConfig, FilledEdit, PlanConfig, resolve_edit
from adaflow_core.editing.agreement import agreeing_steps
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import Stopped
from adaflow_core.model.backbone import Backbone
from adaflow_core.picture.region import Region
from adaflow_core.progress import Progress
from adaflow_core.several.engine import TeamEngine
from adaflow_core.storage.cache import Cache
from adaflow_core.types import Plan
from benchmarks.output import write_json
from benchmarks.run import describe_machine
from benchmarks.speed.clock import GIB, Clock, matrix_rate
from benchmarks.speed.stand_ins import make_backbone, make_film, make_region
from benchmarks.speed.work import count_passes, resized, stage_work

# Stages by the clock's names; those of one group always run together.
STAGES = ("encode", "features", "similarity", "refine", "match", "invert", "decode source", "edit", "decode frames")
# Edits whose forecast is tried: preset, frames, keyframes, steps, low memory.
FORECAST = (
    ("default", 120, 16, 3, False),
    ("default", 240, 32, 2, True),
    ("fast", 160, 12, 4, False),
    ("paper", 120, 24, 3, False),
    ("paper", 160, 48, 2, False),
)


def describe_rate(backbone: Backbone) -> dict[str, Any]:
    """The machine, with what its rate depends on."""
    return describe_machine(backbone) | {
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "attention": backbone.attend.__name__,
        "matrix_tflops": round(matrix_rate(backbone.device, backbone.dtype) / 1e12, 3),
    }


def make_configs(given: argparse.Namespace) -> tuple[PlanConfig, EditConfig]:
    """The preset with what was given on the command line."""
    plan, edit = PRESETS[given.preset]
    if given.keyframes is not None:
        plan = replace(plan, keyframes=given.keyframes)
    if given.prune is not None:
        plan = replace(plan, prune=given.prune, kv_frames=None)
    if given.kv_frames is not None:
        plan = replace(plan, prune=None, kv_frames=given.kv_frames)
    if given.steps is not None:
        ratio = edit.inversion_steps // edit.steps if edit.steps and edit.inversion_steps else None
        edit = replace(edit, steps=given.steps, inversion_steps=ratio and ratio * given.steps)
    return plan, replace(
        edit,
        chunk=given.chunk,
        low_memory=given.low_memory,
        stride=edit.stride if given.stride is None else given.stride,
    )


class Measurement:
    """One plan and edit under the clock; `results` is written to `path` whenever a stage ends."""

    def __init__(self, backbone: Backbone, given: argparse.Namespace, folder: Path) -> None:
        self.backbone, self.given, self.folder = backbone, given, folder
        self.cache: Path = given.cache or folder / "cache"
        self.path: Path = given.json
        self.width, self.height = map(int, given.size.split("x"))
        self.passes = self.inside = count_passes(backbone, self.width, self.height)
        self.work: dict[str, int] = {}
        self.rounds, self.moves, self.window = 1, 1, None
        self.results: dict[str, Any] = {
            "machine": describe_rate(backbone),
            "command": {name: str(value) for name, value in vars(given).items() if value is not None},
            "tflop_per_pass": {name: count / 1e12 for name, count in asdict(self.passes).items()},
        }
        self.clock = Clock(backbone.device, self.write)
        self._wanted_from = max(STAGES.index(stage) for stage in given.stages)
        self._enough = False

    def report(self, progress: Progress) -> None:
        if progress.stage == "invert" and not progress.done:
            self.counted(progress.total // self.moves)
        if progress.stage == "edit" and not progress.done:
            self.clock.frames = progress.total // self.rounds  # the frames that the model edits
        self.clock.report(progress)
        if progress.stage in STAGES:
            self._enough = STAGES.index(progress.stage) > self._wanted_from

    def run(self) -> None:
        given, T = self.given, self.given.frames
        plan_config, edit_config = make_configs(given)
        film = make_film(self.folder, T, self.width, self.height)
        engine = self._engine()
        stop = lambda: self._enough  # noqa: E731
        with self.clock, suppress(Stopped):
            began = time.perf_counter()
            plan = engine.plan(film, plan_config, edit=edit_config, progress=self.report, stop=stop)
            self.results["plan_seconds"] = time.perf_counter() - began
            region = None
            if given.region is not None:
                region = make_region(T, self.width, self.height, given.region, given.crop)
            self._planned(engine, plan, edit_config, region)
            self.write()
            if self._wanted_from < STAGES.index("invert"):
                return
            began = time.perf_counter()
            followed: dict[str, Any] = {"region": region, "progress": self.report, "stop": stop}
            result = engine.edit(plan, "another film", edit_config, **followed).forget_state()
            self.results["edit_seconds"] = time.perf_counter() - began
            self._count_work(plan, resolve_edit(edit_config, engine.profile, plan.config), len(result.report["edited"]))
            self.results["deviation"] = float(result.frames[:: max(1, T // 8)].std())
            self.results["peak_gib"] = result.report["peak_memory_bytes"] / GIB
            if given.again:
                began = time.perf_counter()
                engine.edit(plan, "one film more", edit_config, region=region).forget_state()
                self.results["second_prompt_seconds"] = time.perf_counter() - began
        self.write()

    def _engine(self) -> AdaFlow:
        given, cache = self.given, Cache(self.cache, limit_bytes=100 * GIB)
        if given.gpus == 1:
            return AdaFlow(self.backbone, cache)
        engine = TeamEngine(partial(make_backbone, given.arch, given.device), given.gpus, cache)
        engine.check_prompt("")  # starts the processes before the clock
        return engine

    def _planned(self, engine: AdaFlow, plan: Plan, edit_config: EditConfig, region: Region | None) -> None:
        T, K = self.given.frames, len(plan.layout.keyframes)
        resolved = resolve_edit(edit_config, engine.profile, plan.config)
        agreeing = agreeing_steps(resolved.agreements, resolved.steps)
        self.rounds, self.clock.keyframes = resolved.steps + len(agreeing), K
        self.clock.agreeing = frozenset(done + number for number, done in enumerate(agreeing))
        self.moves = (resolved.steps - 1) * (resolved.inversion_steps // resolved.steps) + 1
        self.counted = partial(self._count_work, plan, resolved)
        self.window = None if region is None else engine.region(plan, region).window
        if self.window is not None:
            self.results["crop"] = self.window.as_json()
            self.inside = count_passes(self.backbone, *self.window.size)  # takes seconds: not while the clock runs
        self._count_work(plan, resolved, T)
        self.results["keyframes"], self.results["tokens_kept"] = K, plan.tokens_kept
        self.results["forecast"] = {"seconds": plan.forecast.seconds, "gib": plan.forecast.peak_memory_bytes / GIB}

    def _count_work(self, plan: Plan, resolved: FilledEdit, edited: int) -> None:
        counts = resolved, self.given.frames, edited
        self.work = stage_work(self.backbone, self.passes, plan.layout, *counts)
        if self.window is not None:
            layout = resized(plan.layout, self.backbone.grids(*self.window.size))
            inside = stage_work(self.backbone, self.inside, layout, *counts)
            # Only the plan's stages work on whole frames; the edit works on the crop.
            self.work = inside | {name: inside[name] + self.work[name] for name in ("encode", "features")}
        self.results["edited"] = edited

    def _on_disk(self) -> int:
        """Return the bytes in the cache, unfinished entries included, and of the film's frames.

        The film is in memory here, but an edit of a file has its frames in the cache.
        """
        total = self.given.frames * self.height * self.width * 3
        for file in self.cache.rglob("*"):
            with suppress(OSError):  # it was renamed or removed just now
                total += file.stat().st_size
        return total

    def write(self) -> None:
        T, matrix = self.given.frames, self.results["machine"]["matrix_tflops"]
        stages = {}
        for name, spent in self.clock.stages.items():
            whole = spent.seconds / spent.share if spent.share else 0.0  # extrapolated, for a stage that was stopped
            stages[name] = {
                "seconds": round(spent.seconds, 3),
                "share_done": round(spent.share, 3),
                "seconds_per_1000_frames": round(1000 * whole / T, 2),
                "gpu_gib": round(spent.gpu_bytes / GIB, 2),
                "host_gib": round(spent.host_bytes / GIB, 2),
            }
            if whole and name in self.work:
                rate = self.work[name] / whole / 1e12 / self.given.gpus  # per GPU
                stages[name] |= {
                    "needed_tflop": float(f"{self.work[name] / 1e12:.4g}"),
                    "tflops": float(f"{rate:.4g}"),
                    "share_of_matrix": float(f"{rate / matrix:.3g}"),
                }
        self.results["stages"] = stages
        self.results["cache_gib"] = max(self.results.get("cache_gib", 0.0), self._on_disk() / GIB)
        if "edit_seconds" in self.results:
            total = self.results["plan_seconds"] + self.results["edit_seconds"]
            # Stages whose results were in the cache (`--cache`) did not run, and are not counted.
            needed = sum(count for name, count in self.work.items() if name in self.clock.stages) / 1e12
            self.results["total"] = {
                "seconds": total,
                "seconds_per_1000_frames": 1000 * total / T,
                "frames_per_second": T / total,
                "needed_tflop": needed,
                "share_of_matrix": needed / total / matrix / self.given.gpus,
                "gpu_gib": max(stage["gpu_gib"] for stage in stages.values()),
                "host_gib": max(stage["host_gib"] for stage in stages.values()),
            }
        write_json(self.path, self.results)


def run_forecasts(backbone: Backbone, given: argparse.Namespace) -> None:
    """Predicted and measured seconds and GiB of the edits in `FORECAST`, each planned and run in a cache of its own."""
    results: dict[str, Any] = {"machine": describe_rate(backbone), "edits": []}
    for preset, frames, keyframes, steps, low_memory in FORECAST:
        asked: dict[str, Any] = {
            "preset": preset,
            "frames": frames,
            "keyframes": keyframes,
            "steps": steps,
            "low_memory": low_memory,
        }
        with tempfile.TemporaryDirectory(prefix="adaflow-speed-") as folder:
            path = Path(folder) / "one.json"
            measurement = Measurement(
                backbone, argparse.Namespace(**vars(given) | asked | {"json": path}), Path(folder)
            )
            measurement.run()
        found, predicted = measurement.results, measurement.results["forecast"]
        nothing = {"seconds": 0.0, "gpu_gib": 0.0, "host_gib": 0.0}  # for a stage that did not run
        stages = {name: found["stages"].get(name, nothing) for name in predicted["seconds"]}
        kind = "gpu_gib" if backbone.device.type == "cuda" else "host_gib"
        row = asked | {
            "seconds": found["edit_seconds"],
            "predicted_seconds": sum(predicted["seconds"].values()),
            "gib": max(stage[kind] for stage in stages.values()),
            "predicted_gib": predicted["gib"],
            "by_stage": {name: [predicted["seconds"][name], stage["seconds"]] for name, stage in stages.items()},
        }
        row["time_ratio"], row["memory_ratio"] = (
            row[f"predicted_{name}"] / row[name] if row[name] else None for name in ("seconds", "gib")
        )
        results["edits"].append(row)
        write_json(given.json, results)
