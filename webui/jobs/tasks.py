"""The tasks of the page, planning, looking for a place and editing, as data that can be sent to another process."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from adaflow_core.config import EditConfig, PlanConfig, resolve_edit
from adaflow_core.progress import Monitor, Progress
from adaflow_core.report.export import edit_command
from adaflow_core.report.scores import Scores
from adaflow_core.types import EditResult, Place, Plan
from adaflow_core.video.write import write_video
from webui.jobs.engines import Engines
from webui.jobs.queue import Report, Stop

if TYPE_CHECKING:
    from adaflow_core import AdaFlow
    from webui.jobs.safety import SafetyChecker

_MADE_BY_AI = "Edited by AI (AdaFlow). What it shows was changed by a diffusion model."


@dataclass(frozen=True)
class Request:
    """What a plan is made from; equal requests give equal plans."""

    video: str
    config: PlanConfig
    edit: EditConfig = field(default_factory=EditConfig)  # for the forecast
    size: tuple[int, int] | None = None  # (width, height); None: the model's own
    frames: slice | None = None  # of the file's frames; None: all
    model: str = ""  # "": the page's default


@dataclass(frozen=True)
class FinishedEdit:
    """The files, frames, scores and warnings of an edit."""

    folder: Path
    source: Path  # the frames that were edited, at the working size
    edit: Path
    report: Path
    before: np.ndarray  # [T, H, W, 3] uint8, a memory map
    after: np.ndarray  # [T, H, W, 3] uint8, a memory map
    fps: float
    video: str  # the name of the file that was edited
    prompt: str
    settings: str  # those that are not the model's own, as flags
    scores: Scores
    command: str  # repeats the edit in a shell
    reused: bool  # the inversion came from the cache
    warnings: tuple[str, ...]


class Task(Protocol):
    """Runs in this process or in another one."""

    @property
    def seconds(self) -> float:
        """Expected running time on a GPU."""

    def run(self, engines: Engines, report: Report, stop: Stop) -> object: ...


Runner = Callable[[Task, Report, Stop], object]
"""Runs a task, in this process or elsewhere, and returns its result."""


@dataclass(frozen=True)
class PlanTask:
    """Plans a video; the result is a `Plan`."""

    model: str
    request: Request
    seconds: float = 60.0  # a guess: the video has not been looked at yet

    def run(self, engines: Engines, report: Report, stop: Stop) -> Plan:
        report(Progress("load", 0, 1, 0.0))
        engine, _ = engines.load(self.model, report, stop)
        request = self.request
        return engine.plan(
            request.video,
            request.config,
            edit=request.edit,
            size=request.size,
            frames=request.frames,
            progress=report,
            stop=stop,
        )


@dataclass(frozen=True)
class PlaceTask:
    """Finds where an edit of a planned video changes it; the result is a `Place`."""

    model: str
    plan: Plan
    prompt: str
    config: EditConfig

    @property
    def seconds(self) -> float:
        return 60.0 + 0.1 * len(self.plan.video)  # a guess

    def run(self, engines: Engines, report: Report, stop: Stop) -> Place:
        report(Progress("load", 0, 1, 0.0))
        engine, _ = engines.load(self.model, report, stop)
        return engine.place(self.plan, self.prompt, config=self.config, progress=report, stop=stop)


@dataclass(frozen=True)
class EditTask:
    """Edits a planned video and writes its files; the result is a `FinishedEdit`."""

    model: str
    label: str  # the model's name for visitors
    request: Request
    plan: Plan
    prompt: str
    config: EditConfig
    folder: Path  # created for the files

    @property
    def seconds(self) -> float:
        # The forecast leaves out loading, checking, scoring and writing, and a job that is cut short loses everything.
        return 30.0 + 1.5 * self.plan.forecast.total

    def run(self, engines: Engines, report: Report, stop: Stop) -> FinishedEdit:
        report(Progress("load", 0, 1, 0.0))
        engine, checker = engines.load(self.model, report, stop)
        # With a safety checker there are no previews: they would show frames that were not checked yet.
        progress = _without_previews(report) if checker else report
        command, video = self._command(engine), Path(self.request.video)
        name = _file_name(video.stem, self.prompt)
        result = engine.edit(self.plan, self.prompt, self.config, progress=progress, stop=stop)
        monitor = Monitor(report, stop)
        warnings = result.warnings + (_blacken_unsafe(checker, result.frames, monitor) if checker else ())
        finished = FinishedEdit(
            folder=self.folder,
            source=self.folder / f"{_file_name(video.stem, 'source')}.mp4",
            edit=self.folder / f"{name}.mp4",
            report=self.folder / f"{name}.json",
            before=self.plan.video.frames,
            after=result.frames,
            fps=float(self.plan.video.fps),
            video=video.name,
            prompt=self.prompt,
            settings=_settings(command),
            scores=engine.score(self.plan, result, progress=report, stop=stop),
            command=command,
            reused=bool(result.report["inversion_reused"]),
            warnings=warnings,
        )
        self._write(finished, result, {"comment": _MADE_BY_AI} if engines.public else None, monitor)
        return finished

    def _command(self, engine: AdaFlow) -> str:
        return edit_command(
            Path(self.request.video).name,
            self.prompt,
            self.plan.config,
            resolve_edit(self.config, engine.profile, self.plan.config.source_prompt),
            engine.profile,
            model=self.label,
            device=engine.backbone.device.type,
            size=self.request.size,
            frames=self.request.frames,
        )

    def _write(
        self, finished: FinishedEdit, result: EditResult, metadata: dict[str, str] | None, monitor: Monitor
    ) -> None:
        video = self.plan.video
        self.folder.mkdir(parents=True)
        write_video(
            finished.source,
            video.frames,
            video.fps,
            audio_from=video.source,
            start=video.start,
            times=video.times,
            transfer=video.transfer,
            monitor=monitor,
        )
        result.save(finished.edit, metadata)
        report = {
            **result.report,
            "model": self.label,
            "scores": asdict(finished.scores),
            "command": finished.command,
        }
        finished.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _file_name(*parts: str) -> str:
    """The name of a download from what a visitor typed: letters of any language and digits, not too long."""
    return "-".join(re.sub(r"[\W_]+", "-", part).strip("-")[:60].strip("-") or "video" for part in parts)


def _settings(command: str) -> str:
    """The flags of a command but for its prompts, which are shown beside them."""
    flags = [word for word in shlex.split(command) if word.startswith("--")]
    return " ".join(flag for flag in flags if not flag.startswith(("--prompt", "--source-prompt")))


def _without_previews(report: Report) -> Report:
    return lambda progress: report(replace(progress, preview=None))


def _blacken_unsafe(checker: SafetyChecker, frames: np.ndarray, monitor: Monitor) -> tuple[str, ...]:
    """Blacken the frames [T, H, W, 3] that the checker flags, in place; returns the warnings about them."""
    unsafe = checker.unsafe(frames, monitor)
    if not unsafe.any():
        return ()
    frames[unsafe] = 0
    return (f"the model's safety checker held back {unsafe.sum()} of {len(unsafe)} frames: they are black",)
