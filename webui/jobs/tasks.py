"""The long work itself, as data that can be carried to another process: making a plan, making an edit."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from adaflow_core.config import EditConfig, PlanConfig, resolve_edit
from adaflow_core.export import edit_command
from adaflow_core.scores import Scores
from adaflow_core.types import Monitor, Plan, Progress
from webui.jobs import Report, Stop

if TYPE_CHECKING:
    from adaflow_core import AdaFlow
    from adaflow_core.safety import SafetyChecker


_ENGINES = 2  # held at a time: the page's own and one that a visitor chose
_MADE_BY_AI = "Edited by AI (AdaFlow). What it shows was changed by a diffusion model."


@dataclass(frozen=True)
class Request:
    """What a plan is made from; equal requests give equal plans."""

    video: str
    config: PlanConfig
    edit: EditConfig = field(default_factory=EditConfig)  # what the forecast is for
    size: tuple[int, int] | None = None  # (width, height); None: the model's own
    frames: slice | None = None  # of the file's frames; None: all
    model: str = ""  # "": the one that the page was started with


@dataclass(frozen=True)
class Edited:
    """A finished edit: its files, its frames, and what there is to say about it."""

    folder: Path
    source: Path  # the frames that were edited, at the working size
    edit: Path
    report: Path
    before: np.ndarray  # [T, H, W, 3] uint8, on disk
    after: np.ndarray  # [T, H, W, 3] uint8, on disk
    fps: float
    prompt: str
    scores: Scores
    command: str  # repeats it in a shell
    reused: bool  # the inversion was that of an earlier edit
    warnings: tuple[str, ...]


class Engines:
    """The engines of one device, the last used ones. `public`: with what a page for strangers needs beside them."""

    def __init__(self, device: str, public: bool = False) -> None:
        self.device, self.public = device, public
        self._held: OrderedDict[str, tuple[AdaFlow, SafetyChecker | None]] = OrderedDict()
        self._loading = threading.Lock()

    def held(self, model: str) -> AdaFlow | None:
        """The engine of a model, if it is loaded."""
        pair = self._held.get(model)
        return pair and pair[0]

    def load(self, model: str) -> tuple[AdaFlow, SafetyChecker | None]:
        """A model's engine and safety checker, loaded on the first call: seconds, minutes where it is downloaded."""
        with self._loading:
            if model not in self._held:
                from adaflow_core import AdaFlow
                from adaflow_core.safety import load_safety_checker

                while len(self._held) >= _ENGINES:  # before the next one asks for their memory
                    self._held.popitem(last=False)
                checker = load_safety_checker(model, self.device) if self.public else None
                self._held[model] = AdaFlow.from_pretrained(model, device=self.device), checker
            self._held.move_to_end(model)
            return self._held[model]


class Work(Protocol):
    """What a job does, in whichever process it is called."""

    @property
    def seconds(self) -> float:
        """What it is expected to take on a GPU."""

    def __call__(self, engines: Engines, report: Report, stop: Stop) -> object: ...


Run = Callable[[Work, Report, Stop], object]
"""Does the work, here or elsewhere."""


@dataclass(frozen=True)
class PlanWork:
    model: str
    request: Request
    seconds: float = 60.0  # nothing is known of the video yet

    def __call__(self, engines: Engines, report: Report, stop: Stop) -> Plan:
        report(Progress("load", 0, 1, 0.0))
        request = self.request
        return engines.load(self.model)[0].plan(
            request.video,
            request.config,
            edit=request.edit,
            size=request.size,
            frames=request.frames,
            progress=report,
            stop=stop,
        )


@dataclass(frozen=True)
class EditWork:
    model: str
    label: str  # what visitors know the model by
    request: Request
    plan: Plan
    prompt: str
    config: EditConfig
    folder: Path  # that it makes, for its files

    @property
    def seconds(self) -> float:
        # Loading, checking, scoring and writing come on top of the forecast; to be cut short costs everything.
        return 30.0 + 1.5 * self.plan.forecast.total

    def __call__(self, engines: Engines, report: Report, stop: Stop) -> Edited:
        from adaflow_core.video import write_video

        request, plan, video = self.request, self.plan, self.plan.video
        report(Progress("load", 0, 1, 0.0))
        engine, checker = engines.load(self.model)
        monitor = Monitor(report, stop)
        # Nothing is shown of an edit that is still to be checked.
        result = engine.edit(plan, self.prompt, self.config, progress=_unseen(report) if checker else report, stop=stop)
        warnings = result.warnings
        if checker is not None and (unsafe := checker.unsafe(result.frames, monitor)).any():
            result.frames[unsafe] = 0
            held = f"{unsafe.sum()} of {len(unsafe)} frames"
            warnings += (f"the model's safety checker held back {held}: they are black",)
        scores = engine.score(plan, result, progress=report, stop=stop)
        command = edit_command(
            Path(request.video).name,
            self.prompt,
            plan.config,
            resolve_edit(self.config, engine.profile, plan.config.source_prompt),
            engine.profile,
            model=self.label,
            device=engine.backbone.device.type,
            size=request.size,
            frames=request.frames,
        )
        self.folder.mkdir(parents=True)
        edited = Edited(
            self.folder,
            self.folder / "source.mp4",
            self.folder / "edit.mp4",
            self.folder / "report.json",
            video.frames,
            result.frames,
            float(video.fps),
            self.prompt,
            scores,
            command,
            bool(result.report["inversion_reused"]),
            warnings,
        )
        write_video(
            edited.source,
            video.frames,
            video.fps,
            audio_from=video.source,
            start=video.start,
            times=video.times,
            monitor=monitor,
        )
        result.save(edited.edit, {"comment": _MADE_BY_AI} if engines.public else None)
        told = {**result.report, "model": self.label, "scores": asdict(scores), "command": command}
        edited.report.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        return edited


def _unseen(report: Report) -> Report:
    """The same reports without their pictures."""
    return lambda progress: report(replace(progress, preview=None))
