"""The tasks of the page, from planning to retakes, as data that can be sent to another process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.film.draft import Draft
from adaflow_core.film.project import Project
from adaflow_core.film.timeline import Timeline, for_all
from adaflow_core.picture.by_hand import ByHand
from adaflow_core.picture.region import Region, RegionMask
from adaflow_core.progress import Monitor, Report, Stop, in_part
from adaflow_core.report.export import edit_command
from adaflow_core.types import EditResult, Place, Plan
from adaflow_core.video.decode import probe
from adaflow_core.video.types import working_size
from webui.jobs.engines import Engines
from webui.jobs.finished import FinishedEdit, blacken_unsafe, without_previews, write_finished

if TYPE_CHECKING:
    from adaflow_core import AdaFlow


@dataclass(frozen=True)
class Request:
    """What a plan is made from; equal requests give equal plans."""

    video: str
    config: PlanConfig
    edit: EditConfig = field(default_factory=EditConfig)  # for the forecast
    size: tuple[int, int] | None = None  # (width, height); None: the model's own
    frames: slice | None = None  # of the file's frames; None: all
    model: str = ""  # "": the page's default

    @property
    def range(self) -> str | None:
        """The frames as a text, for the command line."""
        if self.frames is None:
            return None
        first, end = self.frames.start, self.frames.stop
        return f"{first or 0}:{'' if end is None else end}"


@dataclass(frozen=True)
class OfPlan:
    """A result that was made from a plan and a prompt, and is valid for this plan only."""

    video: str  # digest of the plan's frames
    config: PlanConfig
    model: str
    prompt: str

    def fits(self, plan: Plan) -> bool:
        return (self.video, self.config, self.model) == (plan.video.digest, plan.config, plan.model)


@dataclass(frozen=True)
class FoundPlace(OfPlan):
    place: Place


@dataclass(frozen=True)
class Drafts(OfPlan):
    """Drafts to compare, each with its label and settings."""

    made: tuple[tuple[str, EditConfig, Draft], ...]


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
    usual: int = 512  # the model's own size, pixels of the shorter side

    @property
    def seconds(self) -> float:
        request, info = self.request, probe(self.request.video)
        width, height = request.size or working_size(info.width, info.height, self.usual)
        frames = len(range(info.frames)[request.frames or slice(None)])
        return 40.0 + 1.5e-7 * frames * width * height  # a guess: nothing was measured for the video yet

    def run(self, engines: Engines, report: Report, stop: Stop) -> Plan:
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
    """Finds where an edit of a planned video changes it; the result is a `FoundPlace`."""

    model: str
    plan: Plan
    prompt: str
    config: EditConfig

    @property
    def seconds(self) -> float:
        return 60.0 + 0.1 * len(self.plan.video)  # a guess

    def run(self, engines: Engines, report: Report, stop: Stop) -> FoundPlace:
        engine, _ = engines.load(self.model, report, stop)
        place = engine.place(self.plan, self.prompt, config=self.config, progress=report, stop=stop)
        return FoundPlace(self.plan.video.digest, self.plan.config, self.plan.model, self.prompt, place)


@dataclass(frozen=True)
class RegionTask:
    """Finds a region in all frames of a planned video; the result is a `RegionMask`."""

    model: str
    plan: Plan
    region: Region

    @property
    def seconds(self) -> float:
        return 30.0 + 0.1 * len(self.plan.video)  # a guess

    def run(self, engines: Engines, report: Report, stop: Stop) -> RegionMask:
        engine, _ = engines.load(self.model, report, stop)
        return engine.region(self.plan, self.region, progress=report, stop=stop)


@dataclass(frozen=True)
class DraftTask:
    """Edits the keyframes alone; the result is `Drafts`."""

    model: str
    plan: Plan
    prompt: str
    configs: tuple[tuple[str, EditConfig], ...]  # with their labels
    region: Region | None = None
    by_hand: ByHand | None = None
    expected: float = field(kw_only=True)  # seconds, by the forecast

    @property
    def seconds(self) -> float:
        return _with_spare(self.expected)

    def run(self, engines: Engines, report: Report, stop: Stop) -> Drafts:
        engine, checker = engines.load(self.model, report, stop)
        shown = without_previews(report) if checker else report
        drafts, over = [], _over(self)
        for number, (label, config) in enumerate(self.configs):
            progress = in_part(shown, number)
            draft = engine.draft(self.plan, self.prompt, config, progress=progress, stop=stop, **over)
            if checker:
                frames, warnings = blacken_unsafe(checker, draft.frames, Monitor(report, stop))
                draft = replace(draft, frames=frames, warnings=draft.warnings + warnings)
            drafts.append((label, config, draft))
        return Drafts(self.plan.video.digest, self.plan.config, self.plan.model, self.prompt, tuple(drafts))


@dataclass(frozen=True)
class EditTask:
    """Edits a planned video and writes its files; the result is a `FinishedEdit`."""

    model: str
    label: str  # the model's name for visitors
    request: Request
    plan: Plan
    timeline: Timeline  # in frames of the plan
    config: EditConfig
    folder: Path  # created for the files
    takes: tuple[dict[str, Any], ...] = ()  # retakes to apply after it, in the report's format
    region: Region | None = None
    by_hand: ByHand | None = None
    deliver: str = "source"  # the size to write; one of `adaflow_core.config.DELIVERIES`
    expected: float = field(kw_only=True)  # seconds, by the forecast

    @property
    def seconds(self) -> float:
        return _with_spare(self.expected)

    def run(self, engines: Engines, report: Report, stop: Stop) -> FinishedEdit:
        return _finish(self, self._edit, engines, report, stop)

    def _edit(self, engine: AdaFlow, report: Report, stop: Stop) -> EditResult:
        prompt = self.timeline.one_prompt(self.plan.video)
        if prompt is not None and not self.takes:
            return engine.edit(self.plan, prompt, self.config, progress=report, stop=stop, **_over(self))
        return engine.replay(
            self.plan, self.timeline, self.config, self.takes, progress=report, stop=stop, **_over(self)
        )


@dataclass(frozen=True)
class RetakeTask:
    """Makes a stretch of a finished edit again; the result is a `FinishedEdit`."""

    before: EditTask  # the edit that it changes
    result: EditResult  # the result of that edit
    frames: tuple[int, int]
    prompt: str | None  # None: as before
    config: EditConfig
    folder: Path  # created for the files
    expected: float  # seconds, by the forecast

    @property
    def seconds(self) -> float:
        return _with_spare(self.expected)

    def run(self, engines: Engines, report: Report, stop: Stop) -> FinishedEdit:
        asked = replace(self.before, folder=self.folder)
        return _finish(asked, self._retake, engines, report, stop)

    def _retake(self, engine: AdaFlow, report: Report, stop: Stop) -> EditResult:
        plan, prompt = self.before.plan, self.prompt
        over = _over(self.before)
        return engine.retake(plan, self.result, self.frames, prompt, self.config, progress=report, stop=stop, **over)


def _with_spare(expected: float) -> float:
    """Add a margin: forecasts leave out loading and checking, and a job that is cut short loses everything."""
    return 30.0 + 1.5 * expected


def _over(task: DraftTask | EditTask) -> dict[str, Any]:
    """The engine's arguments for a task's region and keyframes by hand."""
    return {"region": task.region, "by_hand": task.by_hand}


def _finish(
    asked: EditTask,
    edit: Callable[[AdaFlow, Report, Stop], EditResult],
    engines: Engines,
    report: Report,
    stop: Stop,
) -> FinishedEdit:
    """Make the edit, check it for unsafe frames, score it, and write its files."""
    engine, checker = engines.load(asked.model, report, stop)
    # With a safety checker there are no previews: they would show frames that were not checked yet.
    result = edit(engine, without_previews(report) if checker else report, stop)
    after = in_part(report, -1)
    monitor = Monitor(after, stop)
    if checker:
        frames, held_back = blacken_unsafe(checker, result.frames, monitor)
        result = replace(result, frames=frames, warnings=result.warnings + held_back)
    request, video, takes = asked.request, Path(asked.request.video), tuple(result.report["takes"])
    project = Project(
        video=video,
        plan=request.config,
        edit=asked.config,
        prompts=tuple(asked.timeline.as_json()),
        model=asked.label,
        size=request.size and f"{request.size[0]}x{request.size[1]}",
        frames=request.range,
        keyframes=tuple(asked.plan.segments.keyframes.tolist()),
        takes=takes,
        crossfade=asked.timeline.crossfade,
    )
    one = asked.timeline.one_prompt(asked.plan.video) if not takes else None
    scores = engine.score(asked.plan, result, region=asked.region, progress=after, stop=stop)
    return write_finished(
        asked.folder,
        asked.plan,
        result,
        project,
        takes[-1]["prompt"] if takes else asked.timeline.text,
        _command(asked, engine, engines.dtype, one or ""),
        scores,
        monitor,
        public=engines.public,
        whole=one is not None,
        deliver=asked.deliver,
        over=(asked.region, asked.by_hand),
    )


def _command(asked: EditTask, engine: AdaFlow, dtype: str, prompt: str) -> str:
    return edit_command(
        Path(asked.request.video).name,
        for_all(prompt, len(asked.plan.video)),
        asked.plan.config,
        asked.config,
        engine.profile,
        model=asked.label,
        device=engine.device.type,
        dtype=dtype,
        size=asked.request.size,
        frames=asked.request.frames,
        over=[flag for part in (asked.region, asked.by_hand) if part for flag in part.flags],
        deliver=asked.deliver,
    )
