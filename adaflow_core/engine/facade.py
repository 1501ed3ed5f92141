"""The facade: `AdaFlow.from_pretrained(...)`, `.plan(video)`, `.edit(plan, prompt)`."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import torch

from adaflow_core.config import EditConfig, ModelProfile, PlanConfig, resolve_plan
from adaflow_core.editing.forecasting.forecast import of_draft
from adaflow_core.editing.place import say_the_same, wording
from adaflow_core.engine.edit_job import EditJob, check_request
from adaflow_core.engine.film_job import FilmJob, TakeJob
from adaflow_core.engine.forecasts import Forecasts
from adaflow_core.engine.plan_job import PlanJob
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.draft import Draft, check_drafts, keyframes_alone, told_of_draft
from adaflow_core.film.known import draft_key, remember
from adaflow_core.film.report import prompts_shown
from adaflow_core.film.retake import stretch_frames, take_of
from adaflow_core.film.timeline import Timeline
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.files.parts import ModelParts
from adaflow_core.model.loading import load_backbone
from adaflow_core.model.memory import on_device
from adaflow_core.picture.by_hand import ByHand
from adaflow_core.picture.over import Asked, asked_over
from adaflow_core.picture.region import Region, RegionMask
from adaflow_core.picture.region.track import region_mask
from adaflow_core.planning.analysis import VideoLike, check_edit_of, source_video
from adaflow_core.planning.planner import Planner
from adaflow_core.planning.residual import edited_residual
from adaflow_core.progress import Monitor, Report, Stop
from adaflow_core.report.scores import Scores, Shown, score
from adaflow_core.storage.cache import Cache
from adaflow_core.types import EditResult, Embedding, Forecast, Place, Plan


class AdaFlow:
    """Plans and edits videos with one diffusion model. Safe to call from several threads: jobs take turns."""

    def __init__(self, backbone: Backbone, cache: Cache | None = None) -> None:
        self.backbone = backbone
        self.cache = cache or Cache.default()
        self._turn = threading.Lock()
        self._planner = Planner(backbone.device, backbone.team)
        self._forecasts = Forecasts(backbone, self.cache)

    @classmethod
    def from_pretrained(
        cls,
        model: str = "embedded",
        *,
        device: str = "auto",
        dtype: str = "auto",
        attention: str = "auto",
        loras: Sequence[str] = (),
        vae: str = "",
        embeddings: Sequence[str] = (),
        cache: Cache | None = None,
        progress: Report | None = None,
        stop: Stop | None = None,
    ) -> AdaFlow:
        """`model`: "embedded", "sd15", "sd21-base", "sd21", another model of the Hub ("OWNER/NAME" or
        "OWNER/NAME@REVISION"), a folder in diffusers' format, or a .safetensors file.

        loras: "FILE" or "FILE=WEIGHT". vae: a folder or file, in place of the model's own. embeddings: textual
        inversions, "FILE" or "FILE=WORD". `progress` and `stop`: of a download.
        """
        parts = ModelParts.parse(model).with_more(loras, vae, embeddings)
        monitor = Monitor(progress, stop)
        return cls(load_backbone(parts, device=device, dtype=dtype, attention=attention, monitor=monitor), cache)

    @property
    def profile(self) -> ModelProfile:
        return self.backbone.profile

    @property
    def device(self) -> torch.device:
        return self.backbone.device

    @property
    def busy(self) -> bool:
        """Whether `check_prompt` would wait for the end of a job."""
        return False

    def check_prompt(self, text: str) -> Embedding:
        """What the model makes of a prompt: its unknown words and the part it cannot take."""
        return self.backbone.embed(text)

    # --- plan ---------------------------------------------------------------------------------------

    def plan(
        self,
        video: VideoLike,
        config: PlanConfig | None = None,
        *,
        edit: EditConfig | None = None,
        size: tuple[int, int] | None = None,
        frames: slice | None = None,
        fps: float | Fraction = 24,
        progress: Report | None = None,
        stop: Stop | None = None,
    ) -> Plan:
        """Choose keyframes and kept tokens, and say what the edit will take.

        `video`: a path, or frames [T, H, W, 3] uint8, such arrays or PIL images one after another. `fps`: the rate of
        these, and of a folder of pictures; a file has its own. `size`: working (width, height) in pixels; by default a
        file's shorter side becomes the model's own, and frames stay as they are. `frames`: a range of the video's
        frames. `edit`: the settings that the forecast is for.
        A second plan of the same video with other settings reuses its features.
        """
        monitor = Monitor(progress, stop)
        config = resolve_plan(config or PlanConfig(), self.profile, self.device.type)
        wanted = self._forecasts.settings(edit, config)
        job = PlanJob(self.backbone, self.cache, self._planner, self._forecasts, config, wanted, monitor)
        with self._exclusive(monitor):
            decoded = source_video(
                video, self.cache, size=size, usual=self.profile.size, frame_range=frames, fps=fps, monitor=monitor
            )
            return job.plan(decoded)

    # --- edit ---------------------------------------------------------------------------------------

    def edit(
        self,
        plan: Plan,
        prompt: str,
        config: EditConfig | None = None,
        *,
        region: Region | None = None,
        by_hand: ByHand | None = None,
        progress: Report | None = None,
        stop: Stop | None = None,
    ) -> EditResult:
        """Edit the planned video, or a region of it, so that it shows `prompt`. The inversion is reused by later edits.

        `by_hand`: frames that were edited elsewhere; what was changed in them goes on through the video. With the
        plan's source prompt, or with "" in its place, nothing else is edited, and all else keeps every byte.

        Raises AdaFlowError for a prompt that is empty or a plan of another model, `Stopped` when stopped.
        """
        with self._job(plan, prompt, config or EditConfig(), progress, stop, region, by_hand) as job:
            result = job.edit().noting(job.monitor.notes)
            if not result.report["resumed_at_step"] and job.over.crop is None:
                self._forecasts.learn(plan, job.config, job.monitor.seconds, len(result.report["edited"]))
        return result

    def draft(
        self,
        plan: Plan,
        prompt: str,
        config: EditConfig | None = None,
        *,
        region: Region | None = None,
        by_hand: ByHand | None = None,
        progress: Report | None = None,
        stop: Stop | None = None,
    ) -> Draft:
        """The edited keyframes, as `edit` makes them where frames are not brought to agree; only they are inverted.

        An edit with the same settings goes on from their inversion; with `agreements` and `smoothing` 0 it shows them
        as they are here. Drafts are kept in the cache. Raises as `edit`, and AdaFlowError for a plan that `resample`s.
        """
        check_drafts(plan)
        keyframes, config = plan.layout.keyframes, config or EditConfig()
        with self._job(plan, prompt, of_draft(config), progress, stop, region, by_hand) as whole:
            alone = keyframes_alone(whole.plan)
            job = replace(whole, plan=alone, latents=whole.latents[keyframes], over=whole.over.at(keyframes))
            asked = draft_key(plan, prompt, config, asked_over(region, by_hand))  # now, as its files may go meanwhile
            frames, told = job.kept("drafts", partial(told_of_draft, plan), partial(whole.invert, keyframes))
            remember(self.cache, asked, "drafts", job.key)
            warnings = tuple(dict.fromkeys([*job.monitor.notes, *told["report"]["warnings"]]))
            report = told["report"] | whole.over.asked | {"warnings": list(warnings)}
            return Draft(keyframes, frames, report, warnings)

    def forecast_draft(self, plan: Plan, config: EditConfig | None = None) -> Forecast:
        """What `draft` takes with nothing in the cache but the plan."""
        with self._exclusive(monitor := Monitor(), plan):
            return self._forecasts.of_draft(plan, config, monitor)

    def edit_timeline(
        self,
        plan: Plan,
        timeline: Timeline,
        config: EditConfig | None = None,
        *,
        region: Region | None = None,
        by_hand: ByHand | None = None,
        progress: Report | None = None,
        stop: Stop | None = None,
    ) -> EditResult:
        """Edit each range of the planned video by its own prompt; frames that no range names stay the source's.

        Finished ranges are kept in the cache: an edit that is stopped goes on with the next, and after a change of one
        prompt the others are not edited again. Raises as `edit`.
        """
        return self.replay(
            plan, timeline, config or EditConfig(), (), region=region, by_hand=by_hand, progress=progress, stop=stop
        )

    def forecast_timeline(self, plan: Plan, timeline: Timeline, config: EditConfig | None = None) -> Forecast:
        """What `edit_timeline` takes with nothing in the cache but the plan."""
        with self._exclusive(monitor := Monitor(), plan):
            return self._forecasts.of_timeline(plan, timeline, config, monitor)

    def forecast_retake(self, plan: Plan, frames: tuple[int, int], config: EditConfig | None = None) -> Forecast:
        """What `retake` takes with nothing in the cache but the plan. AdaFlowError where there are no such frames."""
        stretch_frames(plan, frames)  # before its turn comes
        with self._exclusive(monitor := Monitor(), plan):
            return self._forecasts.of_retake(plan, frames, config, monitor)

    def retake(
        self,
        plan: Plan,
        result: EditResult,
        frames: tuple[int, int],
        prompt: str | None = None,
        config: EditConfig | None = None,
        *,
        source_prompt: str | None = None,
        region: Region | None = None,
        by_hand: ByHand | None = None,
        progress: Report | None = None,
        stop: Stop | None = None,
    ) -> EditResult:
        """Frames `frames[0]` to `frames[1]` of `result`, an edit of `plan`, again; all others keep every byte.

        The keyframes on either side are held. By default what the frames show now is asked for again. `result` stays as
        it is, so that several takes lie side by side. `region` and `by_hand` must be those of `result`, or a film of
        takes could not be made again. Raises as `edit`, and AdaFlowError where they are others.
        """
        asked = Asked(self.backbone, self.cache, plan, region, by_hand)
        take = take_of(plan, result, *stretch_frames(plan, frames), prompt, source_prompt)
        check_request(self.backbone, plan, take.prompt)
        asked.check_film(result.report)
        job = TakeJob(asked, take, config or EditConfig(), Monitor(progress, stop))
        with self._exclusive(job.monitor, plan):
            return job.over(result)

    def replay(
        self,
        plan: Plan,
        timeline: Timeline,
        config: EditConfig,
        takes: Iterable[Mapping[str, Any]],
        *,
        region: Region | None = None,
        by_hand: ByHand | None = None,
        progress: Report | None = None,
        stop: Stop | None = None,
    ) -> EditResult:
        """The film of a timeline and of a report's takes, each over those before; what the cache has is not redone."""
        asked = Asked(self.backbone, self.cache, plan, region, by_hand)
        job = FilmJob.of(asked, timeline, config, takes, progress, stop)
        with self._exclusive(Monitor(progress, stop), plan):
            return job.film()

    def region(
        self, plan: Plan, region: Region, *, progress: Report | None = None, stop: Stop | None = None
    ) -> RegionMask:
        """The region in every frame of the planned video, as an edit takes it; kept in the cache."""
        monitor = Monitor(progress, stop)
        with self._exclusive(monitor, plan):
            return region_mask(self.backbone, plan, region, self.cache, monitor)

    def place(
        self,
        plan: Plan,
        prompt: str,
        *,
        config: EditConfig | None = None,
        progress: Report | None = None,
        stop: Stop | None = None,
    ) -> Place:
        """Where an edit to `prompt` would change the video; the edit itself reuses what is found. Raises as `edit`."""
        with self._job(plan, prompt, config or EditConfig(), progress, stop) as job:
            mask = job.place()
        if mask is not None:
            why = ""
        elif not job.config.focus:
            why = "at focus 0 it is held to no part of it"
        elif not job.source.text:
            why = "it is not said what is in the video"
        else:
            why = "both prompts are alike" if job.edit_place.are_alike else "the prompts differ all over it"
        return Place(mask, job.config.structure, job.words.kept is not None, why)

    def score(
        self,
        plan: Plan,
        result: EditResult,
        *,
        region: Region | None = None,
        progress: Report | None = None,
        stop: Stop | None = None,
    ) -> Scores:
        """What can be said of `result`, an edit of `plan`, without knowing what it should look like.

        `region`: the part of the picture that was to be edited. Raises AdaFlowError for an edit of another video.
        """
        check_edit_of(plan.video, result)
        monitor = Monitor(progress, stop)
        with self._exclusive(monitor, plan):
            usual, prompts = plan.config.source_prompt, list[Shown | None]()
            for each in prompts_shown(result.report, len(plan.video)):
                if each is None:
                    prompts.append(None)
                    continue
                source = usual if each.source_prompt is None else each.source_prompt
                source = each.prompt if say_the_same(each.prompt, source) else source
                prompts.append(Shown(each.prompt, source, wording(source, each.prompt).kept is not None))
            residual = edited_residual(self.backbone, plan, result.frames, monitor)
            mask = None if region is None else region_mask(self.backbone, plan, region, self.cache, monitor)
            place = None if mask is None else mask.place(self.backbone.factor)
            found = score(self.backbone, plan, result.frames, prompts, monitor, place)
            return replace(found, residual=tuple(round(float(value), 4) for value in residual))

    @contextmanager
    def _job(
        self,
        plan: Plan,
        prompt: str,
        config: EditConfig,
        progress: Report | None,
        stop: Stop | None,
        region: Region | None = None,
        by_hand: ByHand | None = None,
    ) -> Iterator[EditJob]:
        """What is asked for, when it is its turn."""
        source_prompt = plan.config.source_prompt
        if by_hand is not None and isinstance(prompt, str) and not prompt.strip():
            prompt = source_prompt
            if not prompt.strip():
                raise AdaFlowError(
                    "keyframes by hand alone need what is in the video; give the plan a source prompt, or give a prompt"
                )
        alone = by_hand is not None and isinstance(prompt, str) and say_the_same(prompt, source_prompt)
        check_request(self.backbone, plan, prompt, alone)
        monitor = Monitor(progress, stop)
        with self._exclusive(monitor, plan):
            asked = Asked(self.backbone, self.cache, plan, region, by_hand)
            over = asked.over(alone, monitor)
            job = EditJob.of(self.backbone, self.cache, plan, prompt, config, monitor, over=over)
            yield replace(job, bounds=asked.bounds)

    @contextmanager
    def _exclusive(self, monitor: Monitor, plan: Plan | None = None) -> Iterator[None]:
        """One job at a time on the device; a job that is stopped while it waits leaves the queue.

        The cache keeps what the job asks for, and what its `plan` is of.
        """
        while not self._turn.acquire(timeout=0.2):
            monitor.check()
        self.backbone.finite.forget()
        planned = () if plan is None else (plan.video.frames, plan.features.tokens)
        try:
            with self.cache.at_work(*planned), on_device(self.backbone.device):
                yield
        except torch.OutOfMemoryError:
            # From None: the exception would keep the failed call's tensors alive.
            raise AdaFlowError(
                "out of memory on the device; choose fewer keyframes, more pruning, a smaller size or low memory. "
                "What was finished is kept"
            ) from None
        finally:
            self._turn.release()
