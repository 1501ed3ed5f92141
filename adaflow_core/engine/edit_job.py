"""One edit of a plan, from the prompt to frames: inversion, place, the denoising loop, and the source around it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from adaflow_core.config import EditConfig, JobEdit, resolve_edit, settings_dict
from adaflow_core.editing.agreement import Agreement
from adaflow_core.editing.checkpoint import Checkpoint, layout_digest
from adaflow_core.editing.editor import Editor, Layouts
from adaflow_core.editing.finish.film import EditedFilm
from adaflow_core.editing.finish.finished import finished_frames
from adaflow_core.editing.inversion import invert, load_inversion
from adaflow_core.editing.place import Wording, keeps_shapes, wording
from adaflow_core.engine.edit_place import EditPlace
from adaflow_core.engine.edit_report import EditRun, edit_result
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.retake import Around, hold
from adaflow_core.film.stretch import only_frames
from adaflow_core.film.thinned import Thinned
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.memory import PeakMemory
from adaflow_core.motion.carrying import interpolated
from adaflow_core.picture.by_hand import HandFilm, held_to_it
from adaflow_core.picture.over import NOTHING, OverThePicture
from adaflow_core.picture.region import RegionMask
from adaflow_core.picture.region.crops import Crop, cropped_plan
from adaflow_core.planning.analysis import source_latents
from adaflow_core.planning.planner import drawn_layouts
from adaflow_core.progress import Monitor
from adaflow_core.report.preview import latent_preview
from adaflow_core.storage.arrays import taken
from adaflow_core.storage.cache import Cache, cache_key
from adaflow_core.types import EditResult, Embedding, Inversion, Plan
from adaflow_core.version import MADE
from adaflow_core.video.types import Video

Invert = Callable[[], tuple[Inversion, bool]]
"""Gives the inversion, and whether the cache had all of it."""


def check_request(backbone: Backbone, plan: Plan, prompt: str, alone: bool = False) -> None:
    """Raises AdaFlowError if `prompt` is not a string, if it is empty (allowed with `alone`), or if the plan was made
    with another model."""
    if not isinstance(prompt, str):
        raise AdaFlowError(f"the prompt is {prompt!r:.80}; give one text that says what the video should show")
    if not prompt.strip() and not alone:
        raise AdaFlowError("the prompt is empty; say what the video should show")
    if plan.model != backbone.name:
        raise AdaFlowError(f"the plan was made with {plan.model!r}, this engine holds {backbone.name!r}; plan again")


@dataclass(frozen=True)
class _Made:
    """What the model made of a job's frames."""

    frames: np.ndarray  # [F, H, W, 3] uint8
    renewed: np.ndarray | None  # [F, h, w] 0..1, where a thing takes another's place
    settings: JobEdit  # the job's, with what its place decided, and the frames of a pass as memory allowed
    state: Path  # the file of the latents after the last step
    inversion_reused: bool
    resumed_at_step: int  # 0: from the beginning


@dataclass(frozen=True)
class EditJob:
    """One edit: the prompts and settings, with every value filled in, and the plan, model and cache it uses.

    A job may be cut down on its way, in pixels and in frames; the result is a job of the smaller film:

    | frames counted from | used by | how to get there |
    |---|---|---|
    | the first of the video | the inversion in the cache | add `video.part_of[1]`, where the plan is of a stretch |
    | the plan's first, of T | `plan`, `latents`, `around`, `over` | as it is; of a crop by `_in`, of fewer pixels |
    | the first of the part | `Thinned`, what `edit` returns | take `part.start` off |
    | the first that passes through the model | `_made`: place, denoising, decoding | `at(passing)` |
    """

    backbone: Backbone
    cache: Cache
    plan: Plan
    config: JobEdit  # as it is before the place is found
    source: Embedding
    negative: Embedding
    positive: Embedding
    words: Wording  # of the source's prompt and the edit's
    latents: np.ndarray  # [T, 4, h, w] float32, of `video`
    monitor: Monitor
    around: Around | None = None  # only a part is edited, and fits into this
    over: OverThePicture = NOTHING
    bounds: np.ndarray | None = None  # goes into the `EditResult`

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        cache: Cache,
        plan: Plan,
        prompt: str,
        config: EditConfig,
        monitor: Monitor,
        around: Around | None = None,
        over: OverThePicture = NOTHING,
    ) -> EditJob:
        source_prompt = plan.config.source_prompt
        words, by_hand = wording(source_prompt, prompt), over.by_hand
        if config.outlines is None and by_hand is not None:  # what is changed by hand has outlines of its own
            config = replace(config, outlines=0.0)
        focus = backbone.profile.focus if config.focus is None else config.focus
        config = resolve_edit(words.fill(config, focus), backbone.profile, plan.config)
        size = plan.video.size if over.crop is None else over.crop.window.size
        config = replace(config, chunk=config.chunk or backbone.chunk_for(*size, config.low_memory))
        source, negative, positive = map(backbone.embed, (source_prompt, config.negative_prompt, prompt))
        latents = source_latents(backbone, plan.video, cache, monitor) if by_hand is None else by_hand.latents
        place = EditPlace(backbone, cache, monitor, source, positive, words, over)
        video = plan.video if by_hand is None else by_hand.video
        config = place.decide_by_whole_frames(config, video, latents, plan.segments.keyframes)
        settings = JobEdit(**vars(config))
        job = cls(backbone, cache, plan, settings, source, negative, positive, words, latents, monitor, around, over)
        return job if over.crop is None else job._in(over.crop)

    def _in(self, crop: Crop) -> EditJob:
        """The job of the crop alone. Its settings were decided by whole frames."""
        with_these = self.cache, self.monitor
        plan = cropped_plan(self.backbone, self.plan, crop, *with_these)
        source = source_latents(self.backbone, crop.film, *with_these)
        by_hand, around = self.by_hand, self.around
        if by_hand is not None:
            by_hand = by_hand.within(crop, source, self.backbone, *with_these)
        if around is not None and len(around.frame_ids):
            around = replace(around, pictures=crop.window.at(around.frame_ids).cut(around.pictures))
        region = None if self.region is None else self.region.within(crop.window)
        return replace(
            self,
            plan=plan,
            latents=source if by_hand is None else by_hand.latents,
            around=around,
            over=OverThePicture(region, by_hand, crop),
        )

    @property
    def region(self) -> RegionMask | None:
        return self.over.region

    @property
    def by_hand(self) -> HandFilm | None:
        return self.over.by_hand

    @property
    def video(self) -> Video:
        """What is edited: the source, or what it became by hand."""
        return self.plan.video if self.by_hand is None else self.by_hand.video

    @property
    def edit_place(self) -> EditPlace:
        parts = self.source, self.positive, self.words, self.over
        return EditPlace(self.backbone, self.cache, self.monitor, *parts)

    def edit(self, invert: Invert | None = None) -> EditResult:
        """The edited frames with their report, without the monitor's notes.

        `invert` gives the inversion where it is not `self.invert`'s.

        The state after the last step stays in the cache until they are written, so that the same edit goes on from
        there if they are lost: by a full disk, say, or a stop while they are written.
        """
        began, thinned = time.perf_counter(), self.thinned()
        with PeakMemory(self.backbone.device) as peak, thinned.followed(self.config.follows_motion):
            passing = self._passing(thinned)
            of_passing = self if passing is None else self.at(passing)
            made = of_passing._made(invert or partial(self.invert, passing), thinned.flow)
            of_part = thinned.with_carried(made.frames, made.renewed)
            frames = self._laid(of_part)
        run = EditRun(
            settings=made.settings,
            edited=thinned.frame_ids,
            seconds=time.perf_counter() - began,
            stage_seconds=self.monitor.seconds,
            peak_memory_bytes=peak.bytes,
            inversion_reused=made.inversion_reused,
            resumed_at_step=made.resumed_at_step,
        )
        return self._result(frames, run, made.state)

    def _result(self, frames: np.ndarray, run: EditRun, state: Path) -> EditResult:
        """The edited frames [F, H, W, 3] uint8 with their report; `state`: the file that an edit goes on from."""
        result = edit_result(
            frames, run, self.plan, self.over, self.part, self.backbone.team,
            source=self.source, negative=self.negative, positive=self.positive, alike=self.edit_place.are_alike,
        )  # fmt: skip
        return replace(result, state=state, bounds=self.bounds)

    def _laid(self, frames: np.ndarray) -> np.ndarray:
        """The edited frames [F, h, w, 3] uint8 of the part: the source outside a region, and whole ones of a crop."""
        part, team = self.part, self.backbone.team
        if self.region is not None:
            frames = self.region.at(part).lay(frames, self.plan.video.frames[part], team)
        if self.over.crop is not None:
            crop = self.over.crop.at(part)
            frames = crop.window.lay(frames, crop.source.frames, team)
        return frames

    def kept(
        self, kind: str, described: Callable[[EditResult], dict[str, Any]], invert: Invert | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The edited frames, and what `described` says of them as JSON; both are kept in the cache as `kind`.

        `invert` as `edit` takes it. The monitor's notes are not kept: they are on this run.
        """
        made: list[EditResult] = []

        def build(folder: Path) -> dict[str, Any]:
            result = self.edit(invert=invert)
            made.append(result)
            self.backbone.team.lead(lambda: np.save(folder / "frames.npy", result.frames))
            return described(result)

        folder, meta, _ = self.cache.get(kind, self.key, build, self.monitor.note, together=True)
        for result in made:  # only now: on a full disk it is all that is left
            result.forget_state()
        return np.load(folder / "frames.npy", mmap_mode="r"), meta

    @property
    def part(self) -> slice:
        """The frames that the result is of."""
        return slice(*(self.around.only if self.around else slice(None)).indices(len(self.latents))[:2])

    def thinned(self) -> Thinned:
        """The frames that the result is of, and which of them the model edits: keyframes and given ones among them."""
        part, stride = self.part, self.config.stride
        needed, cuts = self.plan.layout.keyframes, self.plan.segments.cuts
        if self.by_hand is not None:
            needed = np.union1d(needed, self.by_hand.given)
        known = None if self.around is None else self.around.edited
        needed = needed if known is None else np.union1d(needed, known)
        needed = needed[(needed >= part.start) & (needed < part.stop)] - part.start
        cuts = cuts[(cuts > part.start) & (cuts < part.stop)] - part.start
        video, with_these = self.video.part(part.start, part.stop), (self.backbone, self.cache, self.monitor)
        if known is not None:  # of a film that was not edited here it holds no end of a shot
            return Thinned(video, np.union1d(needed, np.concatenate([cuts - 1, cuts])), *with_these)
        return Thinned.of(video, cuts, needed, stride, *with_these)

    def _passing(self, thinned: Thinned) -> np.ndarray | None:
        """[F] the frames that pass through the model: those that it edits, and those that are held; None: all."""
        if thinned.whole:
            return None
        held = np.empty(0, np.int64) if self.around is None else self.around.frame_ids
        return np.union1d(thinned.frame_ids + self.part.start, held)

    def at(self, frame_ids: np.ndarray) -> EditJob:
        """The job of some frames [F], all keyframes among them."""
        around = None if self.around is None else self.around.at(frame_ids)
        return replace(
            self, plan=only_frames(self.plan, frame_ids), latents=taken(self.latents, frame_ids), around=around,
            over=replace(self.over, crop=None).at(frame_ids),
        )  # fmt: skip

    def _made(self, invert: Invert, flow: Callable[[], np.ndarray]) -> _Made:
        """All frames by the model. `flow`: their motion.

        Three versions of the settings are used. `self.config` is as before the place was found: the key in the cache
        is made of it, and nothing that the place decides matters for finishing the frames. `settled` has what the place
        decides, and goes into the report, by which the edit can be repeated. `of_loop` is for the denoising loop: of an
        edit by hand the place already holds the focus, which must not be applied twice.
        """
        monitor, around, part = self.monitor, self.around, self.part
        inversion, reused = invert()
        inversion = self._moved(inversion)
        checkpoint = Checkpoint(self.cache.state("edits", self.key))
        place = self._place() if self.region is None else self._region_place(self.region)
        held = hold(self.backbone, inversion, self.latents, around) if around and len(around.frame_ids) else None
        prompts = self.source, self.negative, self.positive
        settled = of_loop = self.edit_place.decide_by_place(self.config, place)
        if self.by_hand is not None:
            place = self.by_hand.place(place, self.backbone.factor, settled.focus)
            of_loop = held_to_it(settled)
        renewed = None if place is None or keeps_shapes(self.config.structure) else place[part]
        film = EditedFilm(
            self.backbone, self.video.part(part.start, part.stop), self.latents[part], flow,
            self.plan.segments.cuts - part.start, self.config, self.cache, monitor, renewed,
        )  # fmt: skip
        editor = Editor(self.backbone, *prompts, of_loop, monitor, place, held, part, Agreement(film))
        preview = latent_preview(self.latents, self.video)
        edited, resumed = editor.run(inversion, self.latents, self.layouts(), preview, checkpoint)
        if checkpoint.problem:
            monitor.note(f"the edit could not be saved between its steps ({checkpoint.problem})")
        frames = finished_frames(film, edited[part])
        return _Made(frames, renewed, replace(settled, chunk=editor.chunk), checkpoint.path, reused, resumed)

    @property
    def key(self) -> str:
        """Of all that decides on the edit's bits; on a GPU they also depend, by rounding, on what passes together."""
        plan = self.plan
        return cache_key(
            video=plan.video.digest, model=self.backbone.fingerprint, device=str(self.backbone.device),
            prompt=self.positive.text, settings=settings_dict(plan.config, self.config),
            layout=layout_digest(plan.layout), made=MADE, around=None if self.around is None else self.around.digest,
            region=None if self.region is None else self.region.digest,
            by_hand=None if self.by_hand is None else self.by_hand.video.digest,
        )  # fmt: skip

    def _moved(self, inversion: Inversion) -> Inversion:
        if self.by_hand is None:
            return inversion
        return self.by_hand.moved(
            inversion, [self.backbone.schedule.alpha(t) ** 0.5 for t in inversion.timesteps.tolist()]
        )

    def invert(self, frame_ids: np.ndarray | None = None) -> tuple[Inversion, bool]:
        """The inversion of all frames, or of `frame_ids` [F] ascending, and whether the cache had all of it.

        A part of a video takes its frames of the whole video's inversion, which other parts of it use too. Of a part
        that is fitted into what lies around it, only the frames that pass through the UNet are inverted.
        """
        steps, inversion_steps = self.config.steps, self.config.inversion_steps
        backbone, prompt, rows = self.backbone, self.source.text, self.backbone.rows(self.config.chunk)
        to_load = np.arange(len(self.latents)) if frame_ids is None else frame_ids
        to_invert = to_load if frame_ids is not None or self.around is None else self.around.passing
        video, latents = self.plan.video, self.latents if self.by_hand is None else self.by_hand.before
        whole_film = frame_ids is None and self.around is None and video.part_of is None
        if video.part_of is not None:
            video, first = video.part_of
            latents = source_latents(backbone, video, self.cache, self.monitor)
            to_load, to_invert = first + to_load, first + to_invert
        key = cache_key(
            video=video.digest, model=backbone.fingerprint, prompt=prompt, steps=steps,
            inversion_steps=inversion_steps, rows=rows,
        )  # fmt: skip

        def build(folder: Path) -> dict[str, Any]:
            made = invert(
                backbone, latents, prompt, to_invert, steps=steps, inversion_steps=inversion_steps,
                rows=rows, folder=folder, monitor=self.monitor,
            )  # fmt: skip
            return {"made": made}

        if whole_film:
            get = partial(self.cache.get, resumable=True, together=True)
            folder, _, reused = get("inversion", key, build, self.monitor.note)
            return load_inversion(folder, backbone, steps, prompt), reused
        with self.cache.part("inversion", key) as folder:
            reused = not build(folder)["made"]
            # All frames are read from the memory map, without a copy.
            some = None if len(to_load) == len(video) else to_load
            return load_inversion(folder, backbone, steps, prompt, some), reused

    def place(self) -> np.ndarray | None:
        """[T, h, w] 0..1 where the model finds that the edit takes place, carried frames by those around them; None:
        everywhere."""
        passing = self._passing(self.thinned())
        found = self._place() if passing is None else self.at(passing)._place()
        return found if found is None or passing is None else interpolated(found, passing, len(self.latents))

    def _place(self) -> np.ndarray | None:
        return self.edit_place.find(self.config, self.video, self.latents, self.plan.segments.keyframes)

    def _region_place(self, region: RegionMask) -> np.ndarray | None:
        return region.place(self.backbone.factor) if self.config.focus else None

    def layouts(self) -> Layouts:
        plan = self.plan
        if not plan.config.resample:
            return lambda _step: plan.layout
        # Each process matches for itself, and writes no file of each step for the others.
        config, device = self.config, self.backbone.device
        return drawn_layouts(
            plan.features, plan.segments, plan.grids, plan.config, config.seed, device, self.monitor, config.low_memory
        )
