"""What the page does, without its components: load the engine, plan, edit, keep plans and results."""

from __future__ import annotations

import json
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from adaflow_core.config import EditConfig, ModelProfile, PlanConfig
from adaflow_core.types import AdaFlowError, Monitor, Plan, Progress
from webui.jobs import Jobs, Report, Stop

if TYPE_CHECKING:
    from adaflow_core import AdaFlow


@dataclass(frozen=True)
class Request:
    """What a plan is made from; equal requests give equal plans."""

    video: str
    config: PlanConfig
    edit: EditConfig = field(default_factory=EditConfig)  # what the forecast is for
    size: tuple[int, int] | None = None  # (width, height); None: the model's own
    frames: slice | None = None  # of the file's frames; None: all


@dataclass(frozen=True)
class Planned:
    id: str
    request: Request
    plan: Plan


@dataclass(frozen=True)
class Edited:
    """The files of a finished edit."""

    folder: Path
    source: Path  # the frames that were edited, at the working size
    edit: Path
    report: Path
    plan: str  # id of its plan
    prompt: str
    seconds: float
    warnings: tuple[str, ...]


class Studio:
    """One engine and its visitors. Plans are held here and known by an unguessable id, never sent out."""

    def __init__(self, model: str, device: str, folder: Path, keep_plans: int = 16) -> None:
        self.model, self.device, self.folder = model, device, folder
        self.jobs = Jobs(discard=_discard)
        self._engine: AdaFlow | None = None
        self._loading = threading.Lock()
        self._plans: OrderedDict[str, Planned] = OrderedDict()
        self._keep_plans = keep_plans
        self._plans_lock = threading.Lock()

    def profile(self) -> ModelProfile:
        """The model's own values, known without loading it where it is a folder here."""
        from adaflow_core.backbone import EMBEDDED

        folder = EMBEDDED if self.model == "embedded" else Path(self.model)
        return ModelProfile.load(folder) or ModelProfile()

    def engine(self) -> AdaFlow:
        """The engine, loaded on the first call (seconds)."""
        with self._loading:
            if self._engine is None:
                from adaflow_core import AdaFlow

                self._engine = AdaFlow.from_pretrained(self.model, device=self.device)
            return self._engine

    def preload(self) -> str:
        """Load the engine as the first job, so that the first visitor does not wait for it."""

        def work(report: Report, stop: Stop) -> None:
            report(Progress("load", 0, 1, 0.0))
            self.engine()

        return self.jobs.submit("load", work)

    def plan(self, request: Request) -> str:
        """Queue planning; the job's result is the plan's id: the plan itself is large, and held here only."""

        def work(report: Report, stop: Stop) -> str:
            report(Progress("load", 0, 1, 0.0))
            plan = self.engine().plan(
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

        start = time.perf_counter()
        result = self.engine().edit(planned.plan, prompt, config, progress=report, stop=stop)
        folder = self.folder / secrets.token_urlsafe(12)
        folder.mkdir(parents=True)
        video = planned.plan.video
        edited = Edited(
            folder,
            folder / "source.mp4",
            folder / "edit.mp4",
            folder / "report.json",
            planned.id,
            prompt,
            time.perf_counter() - start,
            result.warnings,
        )
        write_video(
            edited.source,
            video.frames,
            video.fps,
            audio_from=video.source,
            start=video.start,
            monitor=Monitor(report, stop),
        )
        result.save(edited.edit)
        edited.report.write_text(json.dumps(result.report, indent=2) + "\n", encoding="utf-8")
        return edited

    def doubts(self, prompt: str) -> list[str]:
        """What of a prompt the model will not take, in sentences."""
        if not prompt.strip():
            return []
        embedding = self.engine().check_prompt(prompt)
        sentences = []
        if embedding.unknown:
            words = ", ".join(f"“{word}”" for word in embedding.unknown)
            sentences.append(f"The model does not know {words}; it will be as if that were not said.")
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
