"""What the page does, without its components: load the engine, plan, edit, keep plans and results."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from adaflow_core.config import EditConfig, ModelProfile
from adaflow_core.types import AdaFlowError, Plan, Progress
from webui.jobs import Jobs, Report, Stop
from webui.limits import Limits
from webui.work import Edited, EditWork, Engines, PlanWork, Request, Run


@dataclass(frozen=True)
class Planned:
    id: str
    request: Request
    plan: Plan
    used: float  # when it was last asked for, on the monotonic clock


class Studio:
    """One device, its engines and its visitors.

    Plans are held here and known by an unguessable id, never sent out. `models` are what visitors may choose
    besides `model`, with which the page starts. `public`: the visitors are strangers. `run` does the work where it
    is not done here; then `device` is only for what is quick.
    """

    def __init__(
        self,
        model: str,
        device: str,
        folder: Path,
        models: Sequence[str] = (),
        *,
        limits: Limits | None = None,
        public: bool = False,
        run: Run | None = None,
        keep_plans: int = 32,
    ) -> None:
        self.folder, self.public = folder, public
        self.limits = limits or Limits()
        # What visitors see of a model is not where the server keeps it.
        self._sources = {Path(m).name if public and Path(m).is_dir() else m: m for m in (model, *models)}
        self.models = tuple(self._sources)
        self.model = self.models[0]
        self.jobs = Jobs(discard=_discard, waiting=self.limits.waiting, seconds=self.limits.job_seconds)
        self.engines = Engines(device, public)
        self._run: Run = run or (lambda work, report, stop: work(self.engines, report, stop))
        self._plans: OrderedDict[str, Planned] = OrderedDict()  # guarded by _plans_lock
        self._keep_plans = keep_plans
        self._plans_lock = threading.Lock()

    def profile(self, model: str = "") -> ModelProfile:
        """A model's own values: Stable Diffusion's for one that is not on this machine yet."""
        from adaflow_core.backbone import whereabouts

        source = self._sources[self.offered(model)]
        engine = self.engines.held(source)
        return engine.profile if engine else ModelProfile.load(Path(whereabouts(source)[0])) or ModelProfile()

    def offered(self, model: str) -> str:
        """The model of that name, the page's own for none; AdaFlowError for one that visitors may not choose."""
        if model and model not in self.models:
            raise AdaFlowError(f"the model {model!r} is not offered here; choose one of {', '.join(self.models)}")
        return model or self.model

    def load(self, model: str = "") -> str:
        """Load a model as a job, so that whoever plans with it does not wait for it."""
        source = self._sources[self.offered(model)]

        def work(report: Report, stop: Stop) -> None:
            report(Progress("load", 0, 1, 0.0))
            self.engines.load(source)

        return self.jobs.submit("load", work)

    def plan(self, request: Request) -> str:
        """Queue planning; the job's result is the plan's id: the plan itself is large, and held here only."""
        request_work = PlanWork(self._sources[self.offered(request.model)], request)

        def work(report: Report, stop: Stop) -> str:
            plan = self._run(request_work, report, stop)
            assert isinstance(plan, Plan)
            planned = Planned(secrets.token_urlsafe(16), request, plan, time.monotonic())
            self._hold(planned)
            return planned.id

        return self.jobs.submit("plan", work, urgent=True, holds=_kept(request.video))

    def planned(self, plan_id: str | None) -> Planned | None:
        """A plan that is still held."""
        with self._plans_lock:
            planned = self._plans.get(plan_id or "")
            if planned is not None:
                planned = self._plans[planned.id] = replace(planned, used=time.monotonic())
                self._plans.move_to_end(planned.id)
            return planned

    def edit(self, plan_id: str | None, prompt: str, config: EditConfig) -> str:
        """Queue an edit of a plan; the job's result is an `Edited`."""
        planned = self.planned(plan_id)
        if planned is None:
            raise AdaFlowError("there is no plan to edit from; preview the keyframes first")
        if not prompt.strip():
            raise AdaFlowError("the prompt is empty; describe what the edited video should show")
        request, plan = planned.request, planned.plan
        label = self.offered(request.model)
        work = EditWork(
            self._sources[label], label, request, plan, prompt, config, self.folder / secrets.token_urlsafe(12)
        )
        return self.jobs.submit(
            "edit",
            lambda report, stop: self._run(work, report, stop),
            forecast=plan.forecast.seconds,
            holds=_kept(request.video, plan.video.frames, plan.features.tokens),
        )

    def doubts(self, prompt: str, model: str = "") -> list[str]:
        """What of a prompt the model will not take, in sentences."""
        if not prompt.strip():
            return []
        engine, _ = self.engines.load(self._sources[self.offered(model)])
        embedding = engine.check_prompt(prompt)
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

    def forget_before(self, seconds: float) -> int:
        """Let go of plans not used, and of results made, so long ago; returns how many."""
        oldest = time.monotonic() - seconds
        with self._plans_lock:
            old = [planned.id for planned in self._plans.values() if planned.used < oldest]
            for plan_id in old:
                del self._plans[plan_id]
        return len(old) + self.jobs.forget_before(seconds)

    def _hold(self, planned: Planned) -> None:
        with self._plans_lock:
            self._plans[planned.id] = planned
            while len(self._plans) > self._keep_plans:
                self._plans.popitem(last=False)


def _kept(video: str, *maps: np.ndarray) -> Iterable[Path]:
    """The files that a job will read: an upload, and what arrays on disk are maps of."""
    named: list[Any] = [getattr(array, "filename", None) for array in maps]
    return [Path(video), *(Path(os.fspath(name)) for name in named if name)]


def _discard(result: object) -> None:
    if isinstance(result, Edited):
        shutil.rmtree(result.folder, ignore_errors=True)
