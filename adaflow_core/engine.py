"""The facade: `AdaFlow.from_pretrained(...)`, `.plan(video)`, `.edit(plan, prompt)`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import torch

from adaflow_core.config import EditConfig, ModelProfile, PlanConfig, edit_of, resolve_edit, resolve_plan
from adaflow_core.editing.checkpoint import frames_digest
from adaflow_core.editing.forecast import Forecaster, Passing, of_draft
from adaflow_core.editing.place import wording
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.draft import Draft, check_drafts, keyframes_alone, told_of_draft
from adaflow_core.film.known import draft_key, part_keys, remember
from adaflow_core.film.retake import (
    around_of,
    frames_of,
    laid_take,
    stretch_frames,
    surroundings,
    take_of,
    with_take,
)
from adaflow_core.film.stretch import Laid, lay_into, lay_over, ramp, stretch_of, together
from adaflow_core.film.thinned import Thinned
from adaflow_core.film.timeline import PromptRange, Stretch, Timeline, shown, stretches, timeline_result
from adaflow_core.job import Job
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.files.parts import ModelParts
from adaflow_core.model.loading import load_backbone
from adaflow_core.model.memory import on_device
from adaflow_core.motion.carrying import NEAR, about_to_edit
from adaflow_core.motion.flow import flow_is_known, source_flow
from adaflow_core.picture.by_hand import ByHand
from adaflow_core.picture.over import Asked, asked_over
from adaflow_core.picture.region import Region, RegionMask
from adaflow_core.picture.region.track import region_mask
from adaflow_core.planning.analysis import (
    VideoLike,
    check_edit_of,
    source_cuts,
    source_features,
    source_latents,
    source_video,
)
from adaflow_core.planning.planner import Planner, build_layout, counted_layout, drawn_layouts
from adaflow_core.planning.residual import edited_residual
from adaflow_core.progress import Monitor, Progress, beside, in_part
from adaflow_core.report.scores import Scores, Shown, score
from adaflow_core.storage.cache import Cache
from adaflow_core.types import EditResult, Embedding, Features, Forecast, Grid, Place, Plan, Segments
from adaflow_core.video.types import Video

Report = Callable[[Progress], None]
Stop = Callable[[], bool]


class AdaFlow:
    """Plans and edits videos with one diffusion model. Safe to call from several threads: jobs take turns."""

    def __init__(self, backbone: Backbone, cache: Cache | None = None) -> None:
        self.backbone = backbone
        self.cache = cache or Cache.default()
        self._turn = threading.Lock()
        self._planner = Planner(backbone.device, backbone.team)
        self._forecaster = Forecaster(backbone, self.cache)

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
        config = resolve_plan(config or PlanConfig(), self.profile, self.backbone.device.type)
        with self._exclusive(monitor):
            decoded = source_video(
                video, self.cache, size=size, usual=self.profile.size, frame_range=frames, fps=fps, monitor=monitor
            )
            wanted = self._wanted(edit, config)
            with self._following(decoded, wanted, monitor):
                latents = source_latents(self.backbone, decoded, self.cache, monitor)
                features, key = source_features(self.backbone, decoded, latents, config, self.cache, monitor)
                cuts = source_cuts(decoded, self.cache, monitor)
                choose = partial(self._planner.choose, features, latents, cuts, key, config, monitor)
                choice = self.backbone.team.lead(choose)
                grids = self.backbone.grids(*decoded.size)
                layout = self._planner.layout(features, key, choice, grids, config, monitor)
                again = self._layout_seconds(features, choice.segments, grids, config, wanted, monitor)
            edited = self._edited(decoded, choice.segments, wanted, monitor)
            passing = Passing.of(len(edited), len(decoded))
            predicted = self._forecaster.predict(decoded, layout, passing, wanted, monitor, again)
        of_model = self.backbone.notes if wanted.guidance != 1 else ()  # they are on guidance
        return Plan(
            video=decoded,
            model=self.backbone.name,
            config=config,
            features=features,
            layout=layout,
            forecast=predicted,
            seconds=monitor.seconds,
            **vars(choice) | {"notes": (*decoded.notes, *of_model, *monitor.notes, *choice.notes)},
        )

    def _wanted(self, edit: EditConfig | None, config: PlanConfig) -> EditConfig:
        """The settings that a forecast is for. What will be asked for is not known, so that no frame is carried far."""
        wanted = resolve_edit(edit or EditConfig(), self.profile, config)
        return replace(wanted, stride=wanted.stride or NEAR)

    def _layout_seconds(
        self,
        features: Features,
        segments: Segments,
        grids: list[Grid],
        config: PlanConfig,
        wanted: EditConfig,
        monitor: Monitor,
    ) -> float:
        """What laying out anew takes, where each step does: tried, as the first time also reads the features."""
        if not config.resample:
            return 0.0
        device, low_memory = self.backbone.device, wanted.low_memory
        lay_out = drawn_layouts(features, segments, grids, config, wanted.seed, device, monitor, low_memory)
        began = time.perf_counter()
        lay_out(0)
        return time.perf_counter() - began

    def _following(self, video: Video, wanted: EditConfig, monitor: Monitor) -> AbstractContextManager[None]:
        """On a GPU the processor finds cuts and follows the motion while the model looks at the frames."""
        if self.backbone.device.type == "cpu":
            return nullcontext()
        works = [partial(source_cuts, video, self.cache.beside)]
        if wanted.follows_motion or wanted.stride != 1:
            works.append(partial(source_flow, video, self.cache.beside))
        return beside(monitor, *works)

    def _edited(self, video: Video, segments: Segments, wanted: EditConfig, monitor: Monitor) -> np.ndarray:
        """[F] the frames that the model will edit; about as many where the source's motion is not known yet."""
        assert wanted.stride
        frames = len(video), segments.cuts, segments.keyframes, wanted.stride
        if wanted.stride == 1 or (self.backbone.device.type == "cpu" and not flow_is_known(video, self.cache)):
            return about_to_edit(*frames)
        return Thinned.of(video, *frames[1:], self.backbone, self.cache, monitor).frames

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
            result = job.edit()
            if not result.report["resumed_at_step"] and job.over.crop is None:
                self._forecaster.learn(plan, job.config, job.monitor.seconds, len(result.report["edited"]))
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
        asked = draft_key(plan, prompt, config, asked_over(region, by_hand))
        with self._job(plan, prompt, of_draft(config), progress, stop, region, by_hand) as whole:
            alone = keyframes_alone(whole.plan)
            job = replace(whole, plan=alone, latents=whole.latents[keyframes], over=whole.over.at(keyframes))
            frames, told = job.kept("drafts", partial(told_of_draft, plan), partial(whole.invert, keyframes))
            remember(self.cache, asked, "drafts", job.key)
            return Draft(keyframes, frames, told["report"] | whole.over.asked, tuple(told["warnings"]))

    def forecast_draft(self, plan: Plan, config: EditConfig | None = None) -> Forecast:
        """What `draft` takes with nothing in the cache but the plan."""
        with self._exclusive(Monitor(), plan):
            return self._forecast(keyframes_alone(plan), of_draft(config or EditConfig()), Monitor())

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

    def _film(
        self,
        asked: Asked,
        timeline: Timeline,
        asked_for: Iterable[tuple[Stretch, str]],  # of it, with the keys of what is asked for in each, for forecasts
        config: EditConfig,
        progress: Report | None,
        stop: Stop | None,
    ) -> EditResult:
        """The film of a timeline in frames of the plan; its report lacks `frames_digest`."""
        began, plan, parts, laid = time.perf_counter(), asked.plan, [], []
        for number, (part, key) in enumerate(asked_for):
            monitor = Monitor(in_part(progress, number), stop)  # whose seconds and notes are this part's
            self._check_request(plan, part.prompt)
            piece = self._stretch(plan, part.start, part.end, part.source_prompt, monitor)
            alone = part.prompt == piece.config.source_prompt
            inside = asked.over(alone, monitor).at(slice(part.start, part.end))
            job = Job.of(self.backbone, self.cache, piece, part.prompt, config, monitor, over=inside)
            frames, report = self._kept(job, key)
            laid.append(Laid(part.start, frames, ramp(len(frames), part.rise, part.fall)))
            parts.append(report | {"first_frame": part.start})
        seconds = time.perf_counter() - began
        return timeline_result(plan, timeline, config, parts, laid, seconds, self.backbone.team)

    def forecast_timeline(self, plan: Plan, timeline: Timeline, config: EditConfig | None = None) -> Forecast:
        """What `edit_timeline` takes with nothing in the cache but the plan."""
        found, monitor, T = [], Monitor(), len(plan.video)
        with self._exclusive(monitor, plan):
            for part in stretches(timeline.on(plan.video), plan.segments.cuts, T):
                piece = stretch_of(plan, part.start, part.end, part.source_prompt, counted_layout)
                found.append(self._forecast(piece, config or EditConfig(), monitor))
        return together(found)

    def forecast_retake(self, plan: Plan, frames: tuple[int, int], config: EditConfig | None = None) -> Forecast:
        """What `retake` takes with nothing in the cache but the plan. AdaFlowError where there are no such frames."""
        frames, monitor = stretch_frames(plan, frames), Monitor()
        config = self._wanted(config, plan.config)
        with self._exclusive(monitor, plan):
            edited = self._edited(plan.video, plan.segments, config, monitor)
            begin, end, segments, held = surroundings(plan.segments, *frames, edited)
            edited = np.union1d(edited, begin + segments.keyframes)
            inside = int(((edited >= frames[0]) & (edited < frames[1])).sum())
            passing = Passing(inside + len(held), frames[1] - frames[0] - inside)
            piece = stretch_of(plan, begin, end, None, counted_layout, segments)
            return self._forecast(piece, config, monitor, passing)

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
        it is, so that several takes lie side by side. Raises as `edit`.
        """
        monitor, asked = Monitor(progress, stop), Asked(self.backbone, self.cache, plan, region, by_hand)
        take = take_of(plan, result, *stretch_frames(plan, frames), prompt, source_prompt)
        self._check_request(plan, take.prompt)
        with self._exclusive(monitor, plan):
            laid, result = self._taken(asked, result, take, config or EditConfig(), monitor)
            film = lay_over(result.frames, [laid], self.backbone.team)
            return self._with_digest(replace(result, frames=film))

    def _taken(
        self, asked: Asked, result: EditResult, take: PromptRange, config: EditConfig, monitor: Monitor, key: str = ""
    ) -> tuple[Laid, EditResult]:
        """A take as it is laid over the film, and the result with what its report then says but for the digest."""
        plan, start, end = asked.plan, take.start, take.end
        source = plan.config.source_prompt if take.source_prompt is None else take.source_prompt
        edited = frames_of(
            result.report, start, end, config.stride or wording(source, take.prompt).stride(config.structure)
        )
        begin, stop_at, segments, held = surroundings(plan.segments, start, end, edited)
        piece = self._stretch(plan, begin, stop_at, take.source_prompt, monitor, segments)
        only = slice(start - begin, end - begin)
        around = None
        if len(held) or edited is not None:
            around = around_of(result, piece, only, begin, held, edited)
        alone = take.prompt == piece.config.source_prompt
        inside = asked.over(alone, monitor).at(slice(begin, stop_at))
        job = Job.of(self.backbone, self.cache, piece, take.prompt, config, monitor, around, inside)
        new, report = self._kept(job, key)
        return laid_take(plan, result.frames, take, new), with_take(plan, result, take, config, report, begin)

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
        if not isinstance(timeline, Timeline):
            raise AdaFlowError(
                f"the timeline is {timeline!r:.80}; give a Timeline of PromptRanges, or one text to edit()"
            )
        timeline, asked = timeline.on(plan.video), Asked(self.backbone, self.cache, plan, region, by_hand)
        parts, takes = stretches(timeline, plan.segments.cuts, len(plan.video)), list(takes)
        keys = part_keys(plan, parts, config, takes, asked_over(region, by_hand))
        with self._exclusive(Monitor(progress, stop), plan):
            result = self._film(asked, timeline, zip(parts, keys[: len(parts)], strict=True), config, progress, stop)
            for number, row in enumerate(takes, len(parts)):
                frames, named = stretch_frames(plan, row["frames"]), row.get("source_prompt")
                take = take_of(plan, result, *frames, row["prompt"], named)
                self._check_request(plan, take.prompt)
                monitor, settings = Monitor(in_part(progress, number), stop), edit_of(row["settings"])
                laid, result = self._taken(asked, result, take, settings, monitor, keys[number])
                lay_into(result.frames, laid, self.backbone.team)  # nobody else has the film yet
            return self._with_digest(result)

    def region(
        self, plan: Plan, region: Region, *, progress: Report | None = None, stop: Stop | None = None
    ) -> RegionMask:
        """The region in every frame of the planned video, as an edit takes it; kept in the cache."""
        monitor = Monitor(progress, stop)
        with self._exclusive(monitor, plan):
            return region_mask(self.backbone, plan, region, self.cache, monitor)

    def _with_digest(self, result: EditResult) -> EditResult:
        digest = frames_digest(result.frames, self.backbone.team)
        return replace(result, report=result.report | {"frames_digest": digest})

    def _stretch(
        self,
        plan: Plan,
        start: int,
        end: int,
        source_prompt: str | None,
        monitor: Monitor,
        segments: Segments | None = None,
    ) -> Plan:
        device, team = self.backbone.device, self.backbone.team
        lay_out = partial(build_layout, device=device, monitor=monitor, team=team)
        return stretch_of(plan, start, end, source_prompt, lay_out, segments)

    def _kept(self, job: Job, asked: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Edited frames of a stretch, kept in the cache, and their report; `asked`: the key of what is asked for."""
        frames, told = job.kept("takes", lambda result: {"report": result.report})
        if asked:
            remember(self.cache, asked, "takes", job.key)
        return frames, told["report"] | job.over.asked

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
        assert job.config.structure is not None
        if mask is not None:
            why = ""
        elif not job.config.focus:
            why = "at focus 0 it is held to no part of it"
        elif not job.source.text:
            why = "it is not said what is in the video"
        else:
            why = "both prompts are alike" if job.positive.text == job.source.text else "the prompts differ all over it"
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
            for each in shown(result.report, len(plan.video)):
                if each is None:
                    prompts.append(None)
                    continue
                source = usual if each.source_prompt is None else each.source_prompt
                prompts.append(Shown(each.prompt, source, wording(source, each.prompt).kept is not None))
            residual = edited_residual(self.backbone, plan, result.frames, monitor)
            mask = None if region is None else region_mask(self.backbone, plan, region, self.cache, monitor)
            place = None if mask is None else mask.place(self.backbone.factor)
            found = score(self.backbone, plan, result.frames, prompts, monitor, place)
            return replace(found, residual=tuple(round(float(value), 4) for value in residual))

    def _check_request(self, plan: Plan, prompt: str, alone: bool = False) -> None:
        if not isinstance(prompt, str):
            raise AdaFlowError(f"the prompt is {prompt!r:.80}; give one text that says what the video should show")
        if not prompt.strip() and not alone:
            raise AdaFlowError("the prompt is empty; say what the video should show")
        if plan.model != self.backbone.name:
            raise AdaFlowError(
                f"the plan was made with {plan.model!r}, this engine holds {self.backbone.name!r}; plan again"
            )

    def _forecast(self, plan: Plan, config: EditConfig, monitor: Monitor, passing: Passing | None = None) -> Forecast:
        wanted = self._wanted(config, plan.config)
        if passing is None:
            edited = self._edited(plan.video, plan.segments, wanted, monitor)
            passing = Passing.of(len(edited), len(plan.video))
        return self._forecaster.predict(plan.video, plan.layout, passing, wanted, monitor)

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
    ) -> Iterator[Job]:
        """What is asked for, when it is its turn."""
        source_prompt = plan.config.source_prompt
        if by_hand is not None and isinstance(prompt, str) and not prompt.strip():
            prompt = source_prompt
            if not prompt.strip():
                raise AdaFlowError(
                    "keyframes by hand alone need what is in the video; give the plan a source prompt, or give a prompt"
                )
        alone = by_hand is not None and prompt == source_prompt
        self._check_request(plan, prompt, alone)
        monitor = Monitor(progress, stop)
        with self._exclusive(monitor, plan):
            over = Asked(self.backbone, self.cache, plan, region, by_hand).over(alone, monitor)
            yield Job.of(self.backbone, self.cache, plan, prompt, config, monitor, over=over)

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
