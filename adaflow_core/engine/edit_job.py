"""One edit of a plan, from the prompt to frames: inversion, place, the denoising loop, and what is laid over it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from adaflow_core.config import EditConfig, resolve_edit, settings_dict
from adaflow_core.editing.agreement import Agreement
from adaflow_core.editing.checkpoint import Checkpoint, frames_digest, layout_digest
from adaflow_core.editing.editor import Editor, Layouts
from adaflow_core.editing.finish.film import EditedFilm
from adaflow_core.editing.finish.finished import finished_frames
from adaflow_core.editing.inversion import invert, load_inversion
from adaflow_core.editing.place import Wording, find_place, keeps_shapes, wording
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.retake import Around, hold
from adaflow_core.film.stretch import only_frames
from adaflow_core.film.thinned import Thinned
from adaflow_core.film.timeline import PromptRange
from adaflow_core.model.backbone import Backbone, prompt_warnings
from adaflow_core.model.memory import PeakMemory
from adaflow_core.motion.carrying import interpolated
from adaflow_core.picture.by_hand import HandFilm, held_to_it
from adaflow_core.picture.changes import hardly_changed
from adaflow_core.picture.over import NOTHING, OverThePicture
from adaflow_core.picture.region import RegionMask
from adaflow_core.picture.region.crops import Crop, cropped_plan
from adaflow_core.planning.analysis import source_latents
from adaflow_core.planning.planner import drawn_layouts
from adaflow_core.progress import Monitor, added
from adaflow_core.report.preview import latent_preview
from adaflow_core.storage.arrays import taken
from adaflow_core.storage.cache import Cache, cache_key
from adaflow_core.types import EditResult, Embedding, Inversion, Plan
from adaflow_core.version import MADE, __version__
from adaflow_core.video.types import Video

Invert = Callable[[], tuple[Inversion, bool]]
"""Gives the inversion, and whether the cache had it."""


def check_request(backbone: Backbone, plan: Plan, prompt: str, alone: bool = False) -> None:
    """AdaFlowError for what is no prompt, one that is empty unless it stands `alone`, or a plan of another model."""
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
    config: EditConfig  # the job's, with what its place decides, and the frames of a pass as memory allowed
    state: Path  # the file of the latents after the last step
    inversion_reused: bool
    resumed_at_step: int  # 0: from the beginning


@dataclass(frozen=True)
class EditJob:
    """What was asked for, with every value filled in, and what it is done with.

    A job may be cut down on its way, in pixels and in frames; each time it is a job of the smaller film:

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
    config: EditConfig
    source: Embedding
    negative: Embedding
    positive: Embedding
    words: Wording  # of the source's prompt and the edit's
    latents: np.ndarray  # [T, 4, h, w] float32, of `video`
    monitor: Monitor
    around: Around | None = None  # only a part is edited, and fits into this
    over: OverThePicture = NOTHING
    bounds: np.ndarray | None = None  # as in `EditResult`, of which it becomes a part

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
        assert config.negative_prompt is not None
        source, negative, positive = map(backbone.embed, (source_prompt, config.negative_prompt, prompt))
        latents = source_latents(backbone, plan.video, cache, monitor) if by_hand is None else by_hand.latents
        job = cls(backbone, cache, plan, config, source, negative, positive, words, latents, monitor, around, over)
        job = replace(job, config=job._judged_by_whole_frames())
        return job if over.crop is None else job._in(over.crop)

    def _in(self, crop: Crop) -> EditJob:
        """The same of the crop alone: what is asked for is judged by whole frames, and edited here."""
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
    def _only_by_hand(self) -> bool:
        """Whether nothing is asked for but what was changed by hand."""
        return self.by_hand is not None and self.positive.text == self.source.text

    def _judged_by_whole_frames(self) -> EditConfig:
        """The settings with what is decided before the edit is cut down to a region."""
        config = self.config
        if config.structure is None:
            config = replace(config, structure=self._structure())
        if config.coarse is None and self.region is not None:
            all_over = not self.words.keeps_shapes and self._all_over(self._keyframes_place())
            config = replace(config, coarse=self.words.coarse(all_over))
        return config

    def _structure(self) -> float:
        """The share of the steps with the source's structure where the edit takes place."""
        if self._only_by_hand:
            return 1.0
        within = self.region is not None or self.by_hand is not None
        if not self.config.focus or (within and self._keyframes_place() is None):
            return 1.0  # as of an edit all over the frame, such as one of its style
        return self.words.structure

    def _keyframes_place(self) -> np.ndarray | None:
        """[K, h, w] where the edit would take place in the keyframes; None: all over them."""
        keyframes = self.plan.segments.keyframes
        digest = cache_key(video=self.video.digest, keyframes=keyframes.tolist())
        video = replace(self.video, frames=self.video.frames[keyframes], digest=digest)
        return self._found(video, self.latents[keyframes], np.arange(len(keyframes)))

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
        return self._result(
            frames,
            seconds=time.perf_counter() - began,
            peak_memory_bytes=peak.bytes,
            inversion_reused=made.inversion_reused,
            resumed_at_step=made.resumed_at_step,
            config=made.config,
            edited=thinned.frames,
            state=made.state,
        )

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
        self, kind: str, told: Callable[[EditResult], dict[str, Any]], invert: Invert | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """The edited frames and what is `told` of them, kept in the cache as `kind`. `invert` as `edit` takes it.

        The monitor's notes are not kept: they are on this run.
        """
        made: list[EditResult] = []

        def build(folder: Path) -> dict[str, Any]:
            result = self.edit(invert=invert)
            made.append(result)
            self.backbone.team.lead(lambda: np.save(folder / "frames.npy", result.frames))
            return told(result)

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
        assert self.config.stride
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
        return np.union1d(thinned.frames + self.part.start, held)

    def at(self, frames: np.ndarray) -> EditJob:
        """The same of some frames, all keyframes among them."""
        around = None if self.around is None else self.around.at(frames)
        return replace(
            self, plan=only_frames(self.plan, frames), latents=taken(self.latents, frames), around=around,
            over=replace(self.over, crop=None).at(frames),
        )  # fmt: skip

    def _made(self, invert: Invert, flow: Callable[[], np.ndarray]) -> _Made:
        """All frames by the model. `flow`: their motion."""
        monitor, around, part = self.monitor, self.around, self.part
        inversion, reused = invert()
        inversion = self._moved(inversion)
        checkpoint = Checkpoint(self.cache.state("edits", self.key))
        place = self._place() if self.region is None else self._region_place(self.region)
        held = hold(self.backbone, inversion, self.latents, around) if around and len(around.frame_ids) else None
        prompts = self.source, self.negative, self.positive
        config = settled = self._settled(place)
        if self.by_hand is not None:
            assert config.focus is not None
            place = self.by_hand.place(place, self.backbone.factor, config.focus)
            config = held_to_it(config)
        assert self.config.structure is not None
        renewed = None if place is None or keeps_shapes(self.config.structure) else place[part]
        film = EditedFilm(
            self.backbone, self.video.part(part.start, part.stop), self.latents[part], flow,
            self.plan.segments.cuts - part.start, self.config, self.cache, monitor, renewed,
        )  # fmt: skip
        editor = Editor(self.backbone, *prompts, config, monitor, place, held, part, Agreement(film))
        preview = latent_preview(self.latents, self.video)
        edited, resumed = editor.run(inversion, self.latents, self.layouts(), preview, checkpoint)
        if checkpoint.problem:
            monitor.note(f"the edit could not be saved between its steps ({checkpoint.problem})")
        frames = finished_frames(film, edited[part])
        return _Made(frames, renewed, replace(settled, chunk=editor.chunk), checkpoint.path, reused, resumed)

    def _settled(self, place: np.ndarray | None) -> EditConfig:
        """The settings with what depends on the place that was found."""
        coarse = self.config.coarse
        if place is None and (self.words.keeps_shapes or not self.config.focus):
            coarse = 1.0  # all over the frame what stays would lose its own light
        elif coarse is None:
            coarse = self.words.coarse(self._all_over(place))
        return replace(self.config, coarse=coarse)

    def _all_over(self, place: np.ndarray | None) -> bool:
        """Whether the prompts differ all over the frames, by the place that was found; not of what is edited by hand,
        which keeps its colours."""
        return place is None and self._has_a_place_to_find and self.by_hand is None

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

    def invert(self, frames: np.ndarray | None = None) -> tuple[Inversion, bool]:
        """The inversion, and whether the cache had it: of all frames, or of `frames` [F] ascending.

        A part of a video takes its frames of the whole video's inversion, which other parts of it use too. Of a part
        that is fitted into what lies around it, only the frames that pass through the UNet are inverted.
        """
        steps, inversion_steps = self.config.steps, self.config.inversion_steps
        assert steps and inversion_steps
        backbone, prompt, rows = self.backbone, self.source.text, self.backbone.rows(self.config.chunk)
        to_load = np.arange(len(self.latents)) if frames is None else frames
        to_invert = to_load if frames is not None or self.around is None else self.around.passing
        video, latents = self.plan.video, self.latents if self.by_hand is None else self.by_hand.before
        whole_film = frames is None and self.around is None and video.part_of is None
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
            # Not a copy of all frames, of which there is a memory map.
            some = None if len(to_load) == len(video) else to_load
            return load_inversion(folder, backbone, steps, prompt, some), reused

    def place(self) -> np.ndarray | None:
        """[T, h, w] 0..1 where the model finds that the edit takes place, carried frames by those around them; None:
        everywhere."""
        passing = self._passing(self.thinned())
        found = self._place() if passing is None else self.at(passing)._place()
        return found if found is None or passing is None else interpolated(found, passing, len(self.latents))

    def _place(self) -> np.ndarray | None:
        return self._found(self.video, self.latents, self.plan.segments.keyframes)

    @property
    def _has_a_place_to_find(self) -> bool:
        return bool(self.config.focus and self.source.text) and self.positive.text != self.source.text

    def _found(self, video: Video, latents: np.ndarray, keyframes: np.ndarray) -> np.ndarray | None:
        if not self._has_a_place_to_find:
            return None
        prompts = self.source, self.positive, self.words
        return find_place(self.backbone, latents, video, keyframes, *prompts, self.cache, self.monitor)

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

    def _result(
        self,
        frames: np.ndarray,  # [T, H, W, 3] uint8
        *,
        seconds: float,  # that the edit took
        peak_memory_bytes: int,
        inversion_reused: bool,
        resumed_at_step: int,
        config: EditConfig,
        edited: np.ndarray,  # [F] frames of the plan that the model edited; the others are carried
        state: Path,
    ) -> EditResult:
        """The edited video with its report.

        Its warnings are on the edit alone, whenever it was made; what is said of this run are the monitor's notes.
        """
        plan, crop = self.plan, self.over.crop
        video = plan.video if crop is None else crop.source
        prompts = [(self.positive, "prompt"), (self.source, "source prompt")]
        if self.negative.text != self.source.text:  # which it is by default for some models
            prompts.append((self.negative, "negative prompt"))
        doubts = [doubt for prompt, name in prompts for doubt in prompt_warnings(prompt, name)]
        of_region = [self.region.doubt] if self.region is not None and self.region.doubt else []
        warnings = tuple(dict.fromkeys([*of_region, *doubts, *self._left_as_it_was(frames, video)]))
        report = {
            "frames": len(video),
            "source_digest": video.digest,
            "width": video.size[0],
            "height": video.size[1],
            "fps": float(video.fps),
            "segments": len(plan.segments),
            "keyframes": plan.segments.keyframes.tolist(),
            "edited": edited.tolist(),
            "stride": self.config.stride,
            "kept_ratio": plan.kept_ratio,
            "tokens_full": plan.tokens_full,
            "tokens_kept": plan.tokens_kept,
            # Of planning and of the edit, whenever each took place.
            "seconds": added(plan.seconds, self.monitor.seconds) | {"total": sum(plan.seconds.values()) + seconds},
            "peak_memory_bytes": peak_memory_bytes,
            "inversion_reused": inversion_reused,
            "resumed_at_step": resumed_at_step,
            "frames_digest": frames_digest(frames, self.backbone.team),
            "prompt": self.positive.text,
            **self.over.asked,
            "crop": None if crop is None else crop.window.as_json(),
            "prompts": [PromptRange(0, len(video), self.positive.text, self.source.text).as_json()],
            "takes": [],
            "settings": settings_dict(plan.config, config),
            "seed": self.config.seed,
            "model": plan.model,
            "version": __version__,
            "warnings": list(warnings),
        }
        return replace(EditResult.of(video, frames, report, warnings), state=state, bounds=self.bounds)

    def _left_as_it_was(self, frames: np.ndarray, video: Video) -> list[str]:
        """A sentence where two prompts made next to no difference to the video."""
        inside = None if self.region is None else self.region.weights[self.part]
        if self.positive.text == self.source.text or not hardly_changed(frames, video.frames[self.part], inside):
            return []
        remedy = "word the two prompts alike but for what is to change"
        if inside is not None:
            remedy = "see whether the region holds what is to change, or " + remedy
        return [f"the edit changed next to nothing; {remedy}"]
