"""The page's state without its components: engines, jobs, stored plans and results."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from adaflow_core.config import DELIVERIES, EditConfig, ModelProfile
from adaflow_core.editing.forecasting.forecast import corrected, measure_anew
from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.film.timeline import PromptRange, Timeline
from adaflow_core.model.backbone import foreign_syntax
from adaflow_core.model.files.parts import ModelParts, split_value
from adaflow_core.model.loading import local_folder
from adaflow_core.picture.by_hand import ByHand
from adaflow_core.picture.region import Region, RegionMask
from adaflow_core.progress import Report, Stop
from adaflow_core.storage.cache import Cache
from adaflow_core.types import Forecast, Plan
from webui.jobs import expected
from webui.jobs.engines import Engines
from webui.jobs.finished import FinishedEdit
from webui.jobs.queue import Jobs, Work
from webui.jobs.tasks import (
    Drafts,
    DraftTask,
    EditTask,
    FoundPlace,
    OfPlan,
    PlaceTask,
    PlanTask,
    RegionTask,
    Request,
    RetakeTask,
    Runner,
)
from webui.jobs.visitors import visitor
from webui.kept import Kept, PlanOutline, StoredPlan, files_of
from webui.limits import LARGEST_SIDE, Limits

M = TypeVar("M", bound=OfPlan)
# Large, because finished edits and retakes are limited by age (`Studio.forget_older_than`) and by bytes instead.
_KEEP_EDITS = 512


class Studio:
    """The engines, jobs, plans and results of one device, or of `gpus` GPUs of one kind that work together.

    Plans stay on the server; visitors know them by a secret id. `model` is the page's default model, `models` are the
    others that visitors may choose; `dtype` is their precision. `public`: the visitors are strangers. `runner` runs
    tasks elsewhere, such as on ZeroGPU; `device` then only does short work such as checking a prompt.
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
        runner: Runner | None = None,
        gpus: int = 1,
        dtype: str = "auto",
    ) -> None:
        self.folder, self.public = folder, public
        self.limits = limits or Limits()
        self._sources = _labelled([model, *models]) if public else {m: m for m in (model, *models)}
        self.models = tuple(self._sources)
        self.model = self.models[0]
        self.jobs = Jobs(
            keep_of={"edit": _KEEP_EDITS},
            keep_bytes=self.limits.keep_bytes // 2,  # the other half is left to uploads
            bytes_of=_held_bytes,
            discard=_delete_files,
            waiting=self.limits.waiting,
            seconds=self.limits.job_seconds,
        )
        self.engines = Engines(device, public, gpus, dtype)
        self._here = runner is None
        self._run: Runner = runner or (lambda task, report, stop: task.run(self.engines, report, stop))
        self.kept = Kept()

    def resolve_model(self, model: str) -> str:
        """`model`, or the page's default for ""; AdaFlowError if visitors may not choose it.

        On a page that is not public, visitors may name any model, with LoRAs, a VAE and embeddings.
        """
        if model and model not in self.models and not self.public:
            self._sources[model] = model
        elif model and model not in self.models:
            raise AdaFlowError(f"the model {model!r} is not offered here; choose one of {', '.join(self.models)}")
        return model or self.model

    def profile(self, model: str = "") -> ModelProfile:
        """A model's recommended settings; Stable Diffusion's if the model is not on this machine yet."""
        source = self._sources[self.resolve_model(model)]
        if engine := self.engines.get(source):
            return engine.profile
        folder = local_folder(ModelParts.parse(source).model)
        return (folder and ModelProfile.load(folder if folder.is_dir() else folder.parent)) or ModelProfile()

    def larger_model(self) -> str | None:
        """The first model without a closed vocabulary, if the default model has one and there is a GPU.

        None if there is no such model on this machine.
        """
        # With a runner, CUDA must not be touched here: the forked processes could not use it then.
        if self._here and self.profile().vocabulary and torch.cuda.is_available():
            for name in self.models:
                on_machine = local_folder(ModelParts.parse(self._sources[name]).model) is not None
                if on_machine and not self.profile(name).vocabulary:
                    return name
        return None

    def load(self, model: str = "") -> str:
        """Queue the loading of a model, and return the job's id."""
        source = self._sources[self.resolve_model(model)]

        def work(report: Report, stop: Stop) -> None:
            self.engines.load(source, report, stop)

        return self._submit("load", work, weights=expected.LOADING, urgent=True)

    def plan(self, request: Request, before: StoredPlan | None = None, then: Callable[[str], str] | None = None) -> str:
        """Queue planning, and return the job's id. The job's result is the id of the plan, which stays here.

        The plan keeps the id of `before` if the two requests differ only in their edit settings, which change the
        forecast alone. `then` is called with the plan's id when planning is done, even if the tab is closed by then.
        It queues a job and returns its id; that job is stopped too if the planning was asked to stop.
        """
        if self.public and request.size and min(request.size) > LARGEST_SIDE:
            raise AdaFlowError(f"this page works at up to {LARGEST_SIDE} pixels of the shorter side; take less")
        label = self.resolve_model(request.model)
        task = PlanTask(self._sources[label], request, self.profile(label).size)

        def work(report: Report, stop: Stop) -> str:
            try:
                plan = self._run(task, report, stop)
            except AdaFlowError as problem:  # visitors know their files by name, not by path
                raise AdaFlowError(str(problem).replace(request.video, Path(request.video).name)) from problem
            assert isinstance(plan, Plan)
            same = before is not None and replace(before.request, edit=request.edit) == request
            plan_id = self.kept.store_plan(request, plan, before.id if before and same else None)
            if then is not None:
                following = then(plan_id)
                if stop():  # the visitor stopped the planning before the following job had an id
                    self.jobs.stop(following)
                    raise Stopped
            return plan_id

        files = files_of(request.video)
        return self._submit("plan", work, weights=expected.PLANNING, urgent=True, files=files)

    def place(self, plan_id: str | None, prompt: str, config: EditConfig) -> str:
        """Queue the search for where an edit changes the video, and return the job's id. It makes a `FoundPlace`."""
        stored = self._check_edit(plan_id, prompt)
        request, plan = stored.request, stored.plan
        task = PlaceTask(self._sources[self.resolve_model(request.model)], plan, prompt, config)
        return self._submit(
            "place",
            lambda report, stop: self._run(task, report, stop),
            forecast=[expected.of_place(self.corrected(plan)).seconds],
            urgent=True,
            files=files_of(request.video, plan.video.frames),
        )

    def region(self, plan_id: str | None, region: Region) -> str:
        """Queue the search for a region in all frames, and return the job's id. The result is a `RegionMask`."""
        stored = self.kept.find_plan(plan_id)
        if stored is None:
            raise AdaFlowError("there is no plan yet; preview the keyframes first")
        request, plan = stored.request, stored.plan
        task = RegionTask(self._sources[self.resolve_model(request.model)], plan, region)

        def work(report: Report, stop: Stop) -> object:
            mask = self._run(task, report, stop)
            if isinstance(mask, RegionMask) and mask.window is not None:
                self.kept.keep_crop(_crop_key(plan, region), mask.window.share)
            return mask

        return self._submit("region", work, urgent=True, files=files_of(request.video, plan.video.frames))

    def draft(
        self,
        plan_id: str | None,
        prompt: str,
        configs: Sequence[tuple[str, EditConfig]],
        region: Region | None = None,
        by_hand: ByHand | None = None,
    ) -> str:
        """Queue drafts with these settings, and return the job's id. The result is `Drafts`."""
        stored = self._check_edit(plan_id, prompt, by_hand)
        request, plan = stored.request, self.corrected(stored.plan)
        model = self._sources[self.resolve_model(request.model)]
        asked = plan, prompt, [config for _, config in configs], region, by_hand, self._crop(plan, region)
        parts = expected.of_drafts(*asked)
        seconds = self._check_time(parts, expected.of_drafts(*asked, kept=False), stored.id)
        task = DraftTask(model, plan, prompt, tuple(configs), region, by_hand, expected=seconds)
        return self._submit(
            "draft",
            lambda report, stop: self._run(task, report, stop),
            forecast=[part.seconds for part in parts],
            urgent=True,
            files=files_of(request.video, plan.video.frames, plan.features.tokens),
        )

    def found_place(self, job_id: str | None, stored: StoredPlan | None) -> FoundPlace | None:
        """The place that a job has found; None if there is none, or if it belongs to another plan."""
        return self._made_of(FoundPlace, job_id, stored)

    def drafts(self, job_id: str | None, stored: StoredPlan | None) -> Drafts | None:
        """The drafts that a job has made; None if there are none, or if they belong to another plan."""
        return self._made_of(Drafts, job_id, stored)

    def _made_of(self, kind: type[M], job_id: str | None, stored: StoredPlan | None) -> M | None:
        snapshot = self.jobs.snapshot(job_id or "")
        made = snapshot.result if snapshot is not None else None
        return made if stored is not None and isinstance(made, kind) and made.fits(stored.plan) else None

    def edit(
        self,
        plan_id: str | None,
        prompts: str | Timeline,
        config: EditConfig,
        takes: Sequence[dict[str, Any]] = (),
        region: Region | None = None,
        by_hand: ByHand | None = None,
        deliver: str = "source",
        job_id: str = "",
    ) -> str:
        """Queue an edit of a stored plan, and return the job's id. The job's result is a `FinishedEdit`.

        `job_id`: the id to give the job; by default a new one.
        """
        stored = self._check_edit(plan_id, prompts, by_hand)
        if isinstance(prompts, str) and not prompts.strip():
            prompts = stored.plan.config.source_prompt
            if not prompts.strip():
                raise AdaFlowError("a keyframe by hand alone needs what is in the video; describe it in step 1")
        check_deliver(deliver)
        request, plan = stored.request, self.corrected(stored.plan)
        if isinstance(prompts, str):
            prompts = Timeline((PromptRange(0, len(plan.video), prompts),))
        timeline = prompts.on(plan.video)
        label = self.resolve_model(request.model)
        asked = plan, timeline, config, takes, region, by_hand, self._crop(plan, region)
        parts = expected.to_the_end(expected.of_edit(*asked), plan)
        anew = expected.to_the_end(expected.of_edit(*asked, kept=False), plan)
        seconds = self._check_time(parts, anew, stored.id)
        task = EditTask(
            self._sources[label], label, request, plan, timeline, config, self._new_folder(), tuple(takes),
            region, by_hand, deliver, expected=seconds,
        )  # fmt: skip
        stored = replace(stored, plan=plan)
        outline: Any = PlanOutline.of(stored)
        before = replace(task, plan=outline)
        return self._submit_edit(lambda plan: task, before, stored, timeline.text, parts, job_id=job_id)

    def check_room(self) -> None:
        """Raise AdaFlowError if an edit of this visitor would be refused now because of the queue's limits."""
        self.jobs.check_room(False, visitor(self.limits.own))

    def refuse_edit(self, job_id: str, problem: AdaFlowError) -> None:
        """Add a failed job in place of an edit that could not be queued, so that the visitor is told why later."""
        self.jobs.refuse("edit", problem, job_id)

    def finished(self, job_id: str | None) -> FinishedEdit | None:
        """The edit that a job has made; None if it has made none, or if the job is no longer known."""
        snapshot = self.jobs.snapshot(job_id or "")
        return snapshot.result if snapshot is not None and isinstance(snapshot.result, FinishedEdit) else None

    def retake(self, job_id: str, frames: tuple[int, int], prompt: str | None, config: EditConfig) -> str:
        """Queue a stretch of a finished edit again, and return the job's id. The job's result is a `FinishedEdit`."""
        finished = self.finished(job_id)
        if finished is None or finished.asked is None:
            raise AdaFlowError("there is no finished edit to take a stretch from, or no longer; edit first")
        before, stored = finished.asked, self.kept.find_plan(finished.asked.plan.id)
        plan = self.corrected(before.plan)
        parts = expected.to_the_end([expected.of_retake(plan, frames, self._crop(plan, before.region))], plan)
        seconds, result, folder = self._check_time(parts, parts), finished.result(before.plan), self._new_folder()

        def task(plan: Plan) -> RetakeTask:
            return RetakeTask(replace(before, plan=plan), result, frames, prompt, config, folder, seconds)

        return self._submit_edit(task, before, stored, prompt or finished.prompt, parts, job_id)

    def _submit_edit(
        self,
        task: Callable[[Plan], EditTask | RetakeTask],
        asked: EditTask,
        stored: StoredPlan | None,
        title: str,
        parts: Sequence[Forecast],
        parent: str = "",
        job_id: str = "",
    ) -> str:
        """Queue the task that `task` makes from the plan, and return the job's id.

        asked: the edit as it is remembered for retakes, with a `PlanOutline` in place of its plan. stored: the plan;
        if None, it is looked up again when the job runs, and planned again if it is no longer kept.
        """

        outline: Any = asked.plan

        def work(report: Report, stop: Stop) -> FinishedEdit:
            of = stored or self.kept.find_plan(outline.id) or self._plan_again(asked, report, stop)
            asked_for = task(of.plan)
            try:
                finished = self._run(asked_for, report, stop)
            except BaseException:  # a GPU process that was killed could not delete its files itself
                shutil.rmtree(asked_for.folder, ignore_errors=True)
                raise
            assert isinstance(finished, FinishedEdit)
            self.kept.keep_edited(of)
            return replace(finished, asked=asked, parent=parent)

        tokens = [] if stored is None else [stored.plan.features.tokens]
        files = files_of(asked.request.video, asked.plan.video.frames, *tokens)
        title = f"{Path(asked.request.video).name}, “{title}”"
        forecast = [part.seconds for part in parts]
        return self._submit("edit", work, forecast=forecast, files=files, title=title, job_id=job_id)

    def _plan_again(self, asked: EditTask, report: Report, stop: Stop) -> StoredPlan:
        """Plan a finished edit's video again, if its plan is no longer kept; the slowest stages are usually cached."""
        outline: Any = asked.plan
        plan = self._run(PlanTask(asked.model, asked.request, self.profile(asked.label).size), report, stop)
        assert isinstance(plan, Plan)
        return StoredPlan(outline.id, asked.request, plan)

    def _submit(self, kind: str, work: Work, **asked: Any) -> str:
        """Queue a visitor's job."""
        return self.jobs.submit(kind, work, visitor=visitor(self.limits.own), **asked)

    def _new_folder(self) -> Path:
        return self.folder / secrets.token_urlsafe(12)

    def corrected(self, plan: Plan) -> Plan:
        """Return the plan with its forecast corrected by the measured times of edits since it was made."""
        return replace(plan, forecast=corrected(plan.forecast, Cache.default()))

    def _crop(self, plan: Plan, region: Region | None) -> float:
        """The share of the frame that is edited; 1 if the region has not been found or has no crop."""
        share = None if region is None else self.kept.find_crop(_crop_key(plan, region))
        return 1.0 if share is None else share

    def _check_time(self, parts: Sequence[Forecast], anew: Sequence[Forecast], plan_id: str = "") -> float:
        """Return the most seconds that a job may need; AdaFlowError if it would exceed the limit of a job.

        parts: forecasts with what is in the cache now, which are compared with the limit. anew: forecasts without the
        cache. Their sum, at most the limit, is returned, because the cache may lose entries before the job runs, and a
        GPU that is lent for too short a time would be taken away. If the job is refused and no edit has confirmed the
        plan's forecast yet, the plan is marked so that the next preview measures anew.
        """
        limit, seconds = self.limits.job_seconds, sum(part.total for part in parts)
        if seconds <= limit:
            return min(sum(part.total for part in anew), limit)
        again = ""
        if plan_id and measure_anew(parts[0], Cache.default()):
            self.kept.expect_anew(plan_id)
            again = "; or preview again, for a forecast measured anew"
        raise AdaFlowError(
            f"this would take about {seconds / 60:.0f} min, and a job here may take {limit / 60:.0f}: "
            f"choose fewer frames or steps, or a smaller working size{again}"
        )

    def _check_edit(self, plan_id: str | None, prompts: str | Timeline, by_hand: ByHand | None = None) -> StoredPlan:
        stored = self.kept.find_plan(plan_id)
        if stored is None:
            raise AdaFlowError("there is no plan to edit from; preview the keyframes first")
        if isinstance(prompts, str) and not prompts.strip() and by_hand is None:
            raise AdaFlowError("the prompt is empty; describe what the edited video should show")
        return stored

    def prompt_problems(self, prompt: str, model: str = "", name: str = "prompt") -> list[str]:
        """Sentences on the parts of the prompt called `name` that the model ignores or misreads.

        Empty if the model is not loaded, because loading is a job of its own, and while a team of GPUs is busy,
        because it would answer only after its current edit.
        """
        if not prompt.strip():
            return []
        engine = self.engines.get(self._sources[self.resolve_model(model)])
        if engine is None or engine.busy:
            return []
        embedding = engine.check_prompt(prompt)
        sentences = []
        if embedding.unknown:
            words = ", ".join(f"“{word}”" for word in embedding.unknown)
            sentences.append(f"The model does not know {words}; it will ignore this part of the {name}.")
            others = [name for name in self.models if not self.profile(name).vocabulary]
            if others:
                sentences.append(f"These know more words: {', '.join(others)}. Choose one as the model under Advanced.")
        if signs := foreign_syntax(prompt):
            sentences.append(
                f"Weights, LoRAs and breaks mean nothing in a {name} here; they are read as words: {signs}"
            )
        if embedding.dropped:
            sentences.append(f"The {name} is too long for the model; this part is left out: “{embedding.dropped}”.")
        return sentences

    def forget_older_than(self, seconds: float) -> int:
        """Drop visitors' data last used, and jobs finished, more than `seconds` ago; return how many."""
        return self.kept.forget_older_than(seconds) + self.jobs.forget_older_than(seconds)


def check_deliver(deliver: str) -> None:
    """Raise AdaFlowError if `deliver` is not one of `DELIVERIES`."""
    if deliver not in DELIVERIES:
        raise AdaFlowError(f"deliver is {deliver!r}; it must be one of {', '.join(DELIVERIES)}")


def _labelled(models: Sequence[str]) -> dict[str, str]:
    """Map the label that strangers see to each model: its name without folders, numbered if two are equal."""
    found: dict[str, str] = {}
    for model in dict.fromkeys(models):
        parts = ModelParts.parse(model)
        loras, embeddings = tuple(map(_name_added, parts.loras)), tuple(map(_name_added, parts.embeddings))
        name = str(ModelParts(_name(parts.model), loras, _name(parts.vae), embeddings))
        labels = (name, *(f"{name} ({number})" for number in range(2, len(models) + 1)))
        found[next(label for label in labels if label not in found)] = model
    return found


def _name(file: str) -> str:
    """The last part of a local path; a Hub id is returned as it is."""
    path = Path(os.path.expanduser(file))
    return path.name if path.is_absolute() or path.exists() else file


def _name_added(given: str) -> str:
    """Apply `_name` to the file in FILE=VALUE."""
    file, value = split_value(given)
    return "=".join(filter(None, (_name(file), value)))


def _crop_key(plan: Plan, region: Region) -> str:
    """A key of everything that a region's crop depends on."""
    return json.dumps([plan.video.digest, plan.model, plan.config.source_prompt, region.as_json()])


def _held_bytes(result: object) -> int:
    try:
        return result.held_bytes() if isinstance(result, FinishedEdit) else 0
    except OSError:  # its folder was deleted by something else
        return 0


def _delete_files(result: object) -> None:
    if isinstance(result, FinishedEdit):
        shutil.rmtree(result.folder, ignore_errors=True)
