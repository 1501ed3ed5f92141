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
# Finished edits and retakes are forgotten by age (`Studio.forget_older_than`), and by what they take.
_KEEP_EDITS = 512


class Studio:
    """One device, or `gpus` of one kind that work together, its engines (in the precision `dtype`) and its visitors.

    Plans stay on the server; visitors know them by a secret id. `model` is the page's default, `models` are others
    that visitors may choose. `public`: the visitors are strangers. `runner` runs tasks elsewhere; `device` then only
    does short work such as checking a prompt.
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

        Where they are no strangers, they may name any, with what is added to it.
        """
        if model and model not in self.models and not self.public:
            self._sources[model] = model
        elif model and model not in self.models:
            raise AdaFlowError(f"the model {model!r} is not offered here; choose one of {', '.join(self.models)}")
        return model or self.model

    def profile(self, model: str = "") -> ModelProfile:
        """A model's recommended settings; those of Stable Diffusion for one that is not on this machine yet."""
        source = self._sources[self.resolve_model(model)]
        if engine := self.engines.get(source):
            return engine.profile
        folder = local_folder(ModelParts.parse(source).model)
        return (folder and ModelProfile.load(folder if folder.is_dir() else folder.parent)) or ModelProfile()

    def larger_model(self) -> str | None:
        """The first model that knows any words, if it is on this machine and there is a GPU for it."""
        # Where a runner has the GPU, asking for it here would keep it from the processes that are forked.
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

        It is that of the plan `before` where only the forecast is another. `then` is called with it, and queues what
        follows the planning, whether or not anybody waits for it; what it queues is stopped with the planning.
        """
        if self.public and request.size and min(request.size) > LARGEST_SIDE:
            raise AdaFlowError(f"this page works at up to {LARGEST_SIDE} pixels of the shorter side; take less")
        label = self.resolve_model(request.model)
        task = PlanTask(self._sources[label], request, self.profile(label).size)

        def work(report: Report, stop: Stop) -> str:
            try:
                plan = self._run(task, report, stop)
            except AdaFlowError as problem:  # visitors know their files by name
                raise AdaFlowError(str(problem).replace(request.video, Path(request.video).name)) from problem
            assert isinstance(plan, Plan)
            same = before is not None and replace(before.request, edit=request.edit) == request
            plan_id = self.kept.store_plan(request, plan, before.id if before and same else None)
            if then is not None:
                following = then(plan_id)
                if stop():  # it was asked for before there was anything else to stop
                    self.jobs.stop(following)
                    raise Stopped
            return plan_id

        files = files_of(request.video)
        return self._submit("plan", work, weights=expected.PLANNING, urgent=True, files=files)

    def place(self, plan_id: str | None, prompt: str, config: EditConfig) -> str:
        """Queue the search for where an edit changes the video; returns the job's id. The result is a `FoundPlace`."""
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
        """The place that a job has found; None if it has found none, or one of another plan."""
        return self._made_of(FoundPlace, job_id, stored)

    def drafts(self, job_id: str | None, stored: StoredPlan | None) -> Drafts | None:
        """The drafts that a job has made; None if it has made none, or those of another plan."""
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

        `job_id`: the id that it shall have; by default a new one.
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
        """AdaFlowError if no edit of this visitor's would be queued now."""
        self.jobs.check_room(False, visitor(self.limits.own))

    def refuse_edit(self, job_id: str, problem: AdaFlowError) -> None:
        """A failed job in the place of an edit that could not be queued while nobody waited for it."""
        self.jobs.refuse("edit", problem, job_id)

    def finished(self, job_id: str | None) -> FinishedEdit | None:
        """The edit that a job has made; None of a job that has made none, or is not known any more."""
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
        """`asked` has the outline of its plan; `stored`: the plan itself, None where it is made again first."""

        outline: Any = asked.plan

        def work(report: Report, stop: Stop) -> FinishedEdit:
            of = stored or self.kept.find_plan(outline.id) or self._plan_again(asked, report, stop)
            asked_for = task(of.plan)
            try:
                finished = self._run(asked_for, report, stop)
            except BaseException:  # a process with a GPU that was ended from outside has not tidied up
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
        """The plan of a finished edit that is no longer kept; what takes longest of it is in the cache."""
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
        """The plan with its forecast by what edits have taken since it was made."""
        return replace(plan, forecast=corrected(plan.forecast, Cache.default()))

    def _crop(self, plan: Plan, region: Region | None) -> float:
        """The share of the frame that is edited, as far as the region was found."""
        share = None if region is None else self.kept.find_crop(_crop_key(plan, region))
        return 1.0 if share is None else share

    def _check_time(self, parts: Sequence[Forecast], anew: Sequence[Forecast], plan_id: str = "") -> float:
        """The most seconds that the parts may take; AdaFlowError for what would take too long.

        That is as if nothing was in the cache (`anew`): by the time that the job runs it may have lost some, and a GPU
        that is lent for less would be taken away. No job takes more than its limit. A forecast of a plan that no edit
        has confirmed is made anew when asked again.
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

        Nothing is said by a model that is not loaded, as loading is a job of its own; nor while a team of GPUs is at
        work, as the answer would come after its film.
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
        """Drop what visitors have, last used longer ago, and results finished longer ago; returns their number."""
        return self.kept.forget_older_than(seconds) + self.jobs.forget_older_than(seconds)


def check_deliver(deliver: str) -> None:
    """AdaFlowError for what is no size of a delivery."""
    if deliver not in DELIVERIES:
        raise AdaFlowError(f"deliver is {deliver!r}; it must be one of {', '.join(DELIVERIES)}")


def _labelled(models: Sequence[str]) -> dict[str, str]:
    """Models by what strangers see of them: their names, numbered where two have the same, without the folders."""
    found: dict[str, str] = {}
    for model in dict.fromkeys(models):
        parts = ModelParts.parse(model)
        loras, embeddings = tuple(map(_name_added, parts.loras)), tuple(map(_name_added, parts.embeddings))
        name = str(ModelParts(_name(parts.model), loras, _name(parts.vae), embeddings))
        labels = (name, *(f"{name} ({number})" for number in range(2, len(models) + 1)))
        found[next(label for label in labels if label not in found)] = model
    return found


def _name(file: str) -> str:
    """The name of a file or folder of this machine; what the Hub calls so stays."""
    path = Path(os.path.expanduser(file))
    return path.name if path.is_absolute() or path.exists() else file


def _name_added(given: str) -> str:
    """The same of FILE=VALUE."""
    file, value = split_value(given)
    return "=".join(filter(None, (_name(file), value)))


def _crop_key(plan: Plan, region: Region) -> str:
    """Of all that decides on the crop of a region."""
    return json.dumps([plan.video.digest, plan.model, plan.config.source_prompt, region.as_json()])


def _held_bytes(result: object) -> int:
    try:
        return result.held_bytes() if isinstance(result, FinishedEdit) else 0
    except OSError:  # its folder was cleared by somebody else
        return 0


def _delete_files(result: object) -> None:
    if isinstance(result, FinishedEdit):
        shutil.rmtree(result.folder, ignore_errors=True)
