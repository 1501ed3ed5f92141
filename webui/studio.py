"""What the page does, without its components: load the engine, plan, edit, keep plans and results."""

from __future__ import annotations

import json
import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adaflow_core.config import EditConfig, ModelProfile, PlanConfig, resolve_edit
from adaflow_core.export import edit_command
from adaflow_core.scores import Scores
from adaflow_core.types import AdaFlowError, Monitor, Plan, Progress
from webui.jobs import Jobs, Report, Stop

if TYPE_CHECKING:
    from adaflow_core import AdaFlow


_ENGINES = 2  # held at a time: the page's own and one that a visitor chose


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
class Planned:
    id: str
    request: Request
    plan: Plan


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


class Studio:
    """One device, its engines and its visitors.

    Plans are held here and known by an unguessable id, never sent out. `models` are what visitors may choose
    besides `model`, with which the page starts.
    """

    def __init__(self, model: str, device: str, folder: Path, models: Sequence[str] = (), keep_plans: int = 16) -> None:
        self.model, self.device, self.folder = model, device, folder
        self.models = tuple(dict.fromkeys((model, *models)))
        self.jobs = Jobs(discard=_discard)
        self._engines: OrderedDict[str, AdaFlow] = OrderedDict()  # the last used ones, guarded by _loading
        self._loading = threading.Lock()
        self._plans: OrderedDict[str, Planned] = OrderedDict()
        self._keep_plans = keep_plans
        self._plans_lock = threading.Lock()

    def profile(self, model: str = "") -> ModelProfile:
        """A model's own values: Stable Diffusion's for one that is not on this machine yet."""
        from adaflow_core.backbone import EMBEDDED

        name = self.offered(model)
        engine = self._engines.get(name)
        if engine is not None:
            return engine.profile
        return ModelProfile.load(EMBEDDED if name == "embedded" else Path(name)) or ModelProfile()

    def offered(self, model: str) -> str:
        """The model of that name, the page's own for none; AdaFlowError for one that visitors may not choose."""
        if model and model not in self.models:
            raise AdaFlowError(f"the model {model!r} is not offered here; choose one of {', '.join(self.models)}")
        return model or self.model

    def engine(self, model: str = "") -> AdaFlow:
        """The engine of a model, loaded on the first call (seconds, minutes where it must be downloaded)."""
        name = self.offered(model)
        with self._loading:
            if name not in self._engines:
                from adaflow_core import AdaFlow

                while len(self._engines) >= _ENGINES:  # before the next one asks for their memory
                    self._engines.popitem(last=False)
                self._engines[name] = AdaFlow.from_pretrained(name, device=self.device)
            self._engines.move_to_end(name)
            return self._engines[name]

    def load(self, model: str = "") -> str:
        """Load a model as a job, so that whoever plans with it does not wait for it."""
        name = self.offered(model)

        def work(report: Report, stop: Stop) -> None:
            report(Progress("load", 0, 1, 0.0))
            self.engine(name)

        return self.jobs.submit("load", work)

    def plan(self, request: Request) -> str:
        """Queue planning; the job's result is the plan's id: the plan itself is large, and held here only."""

        def work(report: Report, stop: Stop) -> str:
            report(Progress("load", 0, 1, 0.0))
            plan = self.engine(request.model).plan(
                request.video,
                request.config,
                edit=request.edit,
                size=request.size,
                frames=request.frames,
                progress=report,
                stop=stop,
            )
            planned = Planned(secrets.token_urlsafe(16), request, plan)
            self._hold(planned)
            return planned.id

        return self.jobs.submit("plan", work, urgent=True)

    def planned(self, plan_id: str | None) -> Planned | None:
        """A plan that is still held."""
        with self._plans_lock:
            planned = self._plans.get(plan_id or "")
            if planned is not None:
                self._plans.move_to_end(planned.id)
            return planned

    def edit(self, plan_id: str | None, prompt: str, config: EditConfig) -> str:
        """Queue an edit of a plan; the job's result is an `Edited`."""
        planned = self.planned(plan_id)
        if planned is None:
            raise AdaFlowError("there is no plan to edit from; preview the keyframes first")
        if not prompt.strip():
            raise AdaFlowError("the prompt is empty; describe what the edited video should show")

        def work(report: Report, stop: Stop) -> Edited:
            return self._edit(planned, prompt, config, report, stop)

        return self.jobs.submit("edit", work, forecast=planned.plan.forecast.seconds)

    def _edit(self, planned: Planned, prompt: str, config: EditConfig, report: Report, stop: Stop) -> Edited:
        from adaflow_core.video import write_video

        request, plan = planned.request, planned.plan
        engine = self.engine(request.model)
        result = engine.edit(plan, prompt, config, progress=report, stop=stop)
        scores = engine.score(plan, result, progress=report, stop=stop)
        command = edit_command(
            Path(request.video).name,
            prompt,
            plan.config,
            resolve_edit(config, engine.profile, plan.config.source_prompt),
            engine.profile,
            model=plan.model,
            device=engine.backbone.device.type,
            size=request.size,
            frames=request.frames,
        )
        folder = self.folder / secrets.token_urlsafe(12)
        folder.mkdir(parents=True)
        video = plan.video
        edited = Edited(
            folder,
            folder / "source.mp4",
            folder / "edit.mp4",
            folder / "report.json",
            video.frames,
            result.frames,
            float(video.fps),
            prompt,
            scores,
            command,
            bool(result.report["inversion_reused"]),
            result.warnings,
        )
        write_video(
            edited.source,
            video.frames,
            video.fps,
            audio_from=video.source,
            start=video.start,
            times=video.times,
            monitor=Monitor(report, stop),
        )
        result.save(edited.edit)
        told = result.report | {"scores": asdict(scores), "command": command}
        edited.report.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        return edited

    def doubts(self, prompt: str, model: str = "") -> list[str]:
        """What of a prompt the model will not take, in sentences."""
        if not prompt.strip():
            return []
        embedding = self.engine(model).check_prompt(prompt)
        sentences = []
        if embedding.unknown:
            words = ", ".join(f"“{word}”" for word in embedding.unknown)
            sentences.append(f"The model does not know {words}; it will be as if that were not said.")
            others = [name for name in self.models if not self.profile(name).vocabulary]
            if others:
                sentences.append(f"These know more words: {', '.join(others)}. Choose one as the model under Advanced.")
        if embedding.dropped:
            sentences.append(f"The prompt is too long for the model; this part is left out: “{embedding.dropped}”.")
        return sentences

    def forget(self, plan_id: str) -> None:
        """Let go of a plan that another has replaced; edits that are queued keep theirs."""
        with self._plans_lock:
            self._plans.pop(plan_id, None)

    def _hold(self, planned: Planned) -> None:
        with self._plans_lock:
            self._plans[planned.id] = planned
            while len(self._plans) > self._keep_plans:
                self._plans.popitem(last=False)


def _discard(result: object) -> None:
    if isinstance(result, Edited):
        shutil.rmtree(result.folder, ignore_errors=True)
