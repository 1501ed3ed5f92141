"""The facade: `AdaFlow.from_pretrained(...)`, `.plan(video)`, `.edit(plan, prompt)`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adaflow_core.config import EditConfig, ModelProfile, PlanConfig, resolve_edit, resolve_plan, settings_dict
from adaflow_core.editing.checkpoint import Checkpoint, frames_digest, layout_digest
from adaflow_core.editing.editor import Editor, Layouts
from adaflow_core.editing.forecast import KIND, Measurement, calibrate, forecast, telling_seconds
from adaflow_core.editing.inversion import invert, load_inversion
from adaflow_core.editing.place import Wording, find_place, wording
from adaflow_core.editing.preservation import latent_preview, show_source
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.draft import Draft, kept_draft, keyframes_alone
from adaflow_core.film.retake import Around, around_of, hold, retaken, surroundings, take_of
from adaflow_core.film.stretch import Laid, ramp, stretch_of, together
from adaflow_core.film.timeline import PromptRange, Timeline, shown, stretches, timeline_result
from adaflow_core.model.backbone import Backbone, prompt_warnings
from adaflow_core.model.files.parts import ModelParts
from adaflow_core.model.loading import load_backbone
from adaflow_core.model.memory import PeakMemory, resident_bytes
from adaflow_core.planning.analysis import VideoLike, source_cuts, source_features, source_latents, source_video
from adaflow_core.planning.planner import Planner, build_layout, draw_keyframes
from adaflow_core.progress import Monitor, Progress
from adaflow_core.report.scores import Scores, score
from adaflow_core.storage.cache import Cache, cache_key
from adaflow_core.types import EditLayout, EditResult, Embedding, Forecast, Inversion, Place, Plan, Segments
from adaflow_core.version import __version__
from adaflow_core.video.types import Video

Report = Callable[[Progress], None]
Stop = Callable[[], bool]


class AdaFlow:
    """Plans and edits videos with one diffusion model. Safe to call from several threads: jobs take turns."""

    def __init__(self, backbone: Backbone, cache: Cache | None = None) -> None:
        self.backbone = backbone
        self.cache = cache or Cache.default()
        self._turn = threading.Lock()
        self._planner = Planner(backbone.device)

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
        named = ModelParts.parse(model)
        parts = ModelParts(named.model, (*named.loras, *loras), vae or named.vae, (*named.embeddings, *embeddings))
        monitor = Monitor(progress, stop)
        return cls(load_backbone(parts, device=device, dtype=dtype, attention=attention, monitor=monitor), cache)

    @property
    def profile(self) -> ModelProfile:
        return self.backbone.profile

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

        `video`: a path, frames [T, H, W, 3] uint8, or PIL images (then `fps` is their rate). `size`: working
        (width, height) in pixels; by default the model's own for the shorter side. `frames`: a range of the
        file's frames. `edit`: the settings that the forecast is for. A second plan of the same video with
        other settings reuses its features.
        """
        monitor = Monitor(progress, stop)
        config = resolve_plan(config or PlanConfig(), self.profile, self.backbone.device.type)
        with self._exclusive(monitor):
            decoded = source_video(
                video, self.cache, size=size or self.profile.size, frame_range=frames, fps=fps, monitor=monitor
            )
            cuts = source_cuts(decoded, self.cache, monitor)
            latents = source_latents(self.backbone, decoded, self.cache, monitor)
            features, key = source_features(self.backbone, decoded, latents, config, self.cache, monitor)
            choice = self._planner.choose(features, latents, cuts, key, config, monitor)
            grids = self.backbone.grids(*decoded.size)
            began = time.perf_counter()
            layout = self._planner.layout(features, key, choice, grids, config, monitor)
            again = time.perf_counter() - began if config.resample else 0.0
            wanted = resolve_edit(edit or EditConfig(), self.profile, config.source_prompt)
            predicted = self._forecast(decoded, layout, wanted, monitor, again)
        return Plan(
            video=decoded,
            model=self.backbone.name,
            config=config,
            features=features,
            layout=layout,
            forecast=predicted,
            seconds=monitor.seconds,
            **vars(choice) | {"notes": (*decoded.notes, *monitor.notes, *choice.notes)},
        )

    def _forecast(
        self, video: Video, layout: EditLayout, edit: EditConfig, monitor: Monitor, layout_seconds: float = 0.0
    ) -> Forecast:
        """`edit`: with every value filled in."""
        backbone, (width, height) = self.backbone, video.size

        def measure(_: Path) -> dict[str, Any]:
            with monitor.stage("measure", 1):
                return asdict(Measurement(calibrate(backbone, width, height)))

        key = cache_key(
            model=backbone.fingerprint, size=(width, height), device=str(backbone.device),
            threads=torch.get_num_threads(), attend=backbone.attend.__name__, gather=backbone.gather.__module__, kind=5,
        )  # fmt: skip
        _, meta, _ = self.cache.get(KIND, key, measure)
        on_gpu = backbone.device.type == "cuda"
        predicted = forecast(
            Measurement.of(meta),
            backbone,
            layout,
            edit,
            frames=len(video),
            base_bytes=torch.cuda.memory_allocated(backbone.device) if on_gpu else resident_bytes(),
            frame_size=video.size,
            layout_seconds=layout_seconds,
        )
        return replace(predicted, measurement=key)

    def _correct_forecast(self, job: _Job) -> None:
        """After an edit from its first step to its last: the next forecast knows how long it took."""
        plan, cache = job.plan, self.cache
        predicted = self._forecast(plan.video, plan.layout, job.config, Monitor())
        meta = cache.find(KIND, predicted.measurement)
        if meta is None or plan.config.resample:  # what laying out anew takes is not known here
            return
        took = telling_seconds(job.monitor.seconds)

        def measure() -> Measurement:
            anew = Measurement(calibrate(self.backbone, *plan.video.size), edits=1)
            cache.renew(KIND, predicted.measurement, asdict(anew))
            says = telling_seconds(self._forecast(plan.video, plan.layout, job.config, Monitor()).seconds)
            return replace(anew, factor=took / says)

        told = Measurement.of(meta).told(took, telling_seconds(predicted.seconds), measure)
        cache.renew(KIND, predicted.measurement, asdict(told))

    # --- edit ---------------------------------------------------------------------------------------

    def edit(
        self,
        plan: Plan,
        prompt: str,
        config: EditConfig | None = None,
        *,
        progress: Report | None = None,
        stop: Stop | None = None,
    ) -> EditResult:
        """Edit the planned video so that it shows `prompt`. The inversion is reused by later edits.

        Raises AdaFlowError for a prompt that is empty or a plan of another model, `Stopped` when stopped.
        """
        self._check_request(plan, prompt)
        monitor = Monitor(progress, stop)
        with self._exclusive(monitor):
            job = self._prepare(plan, prompt, config or EditConfig(), monitor)
            result = self._edit(job, lambda: self._invert(job))
            if not result.report["resumed_at_step"]:
                self._correct_forecast(job)
        return result

    def draft(
        self,
        plan: Plan,
        prompt: str,
        config: EditConfig | None = None,
        *,
        progress: Report | None = None,
        stop: Stop | None = None,
    ) -> Draft:
        """The edited keyframes, as `edit` makes them before it smooths in time; only they are inverted.

        An edit with the same settings goes on from their inversion, and with `smoothing` 0 it shows the very same
        keyframes. Drafts are kept in the cache. Raises as `edit`, and AdaFlowError for a plan that `resample`s.
        """
        self._check_request(plan, prompt)
        alone, keyframes = keyframes_alone(plan), plan.layout.keyframes
        monitor = Monitor(progress, stop)
        with self._exclusive(monitor):
            whole = self._prepare(plan, prompt, replace(config or EditConfig(), smoothing=0.0), monitor)
            job = replace(whole, plan=alone, latents=whole.latents[keyframes])

            def make() -> EditResult:
                return self._edit(job, lambda: self._invert(whole, keyframes))

            return kept_draft(self.cache, self._key(job), keyframes, make, monitor)

    def forecast_draft(self, plan: Plan, config: EditConfig | None = None) -> Forecast:
        """What `draft` takes with nothing in the cache but the plan."""
        alone, config = keyframes_alone(plan), replace(config or EditConfig(), smoothing=0.0)
        with self._exclusive(Monitor()):
            wanted = resolve_edit(config, self.profile, plan.config.source_prompt)
            return self._forecast(alone.video, alone.layout, wanted, Monitor())

    def _edit(
        self, job: _Job, invert: Callable[[], tuple[Inversion, bool]], around: Around | None = None
    ) -> EditResult:
        """The edit of a job; `around`: of a part of its frames, which fits into what lies around it."""
        monitor, began, T = job.monitor, time.perf_counter(), len(job.latents)
        first, end, _ = (around.only if around else slice(None)).indices(T)
        with PeakMemory(self.backbone.device) as peak:
            inversion, reused = invert()
            checkpoint = Checkpoint(self.cache.state("edits", self._key(job, around)))
            place = self._place(job)
            held = hold(self.backbone, inversion, job.latents, around) if around else None
            prompts, only = (job.source, job.negative, job.positive), slice(first, end)
            editor = Editor(self.backbone, *prompts, job.config, monitor, place, held, only)
            preview = latent_preview(job.latents, job.plan.video)
            edited, resumed = editor.run(inversion, job.latents, self._layouts(job), preview, checkpoint)
            if checkpoint.problem:
                monitor.note(f"the edit could not be saved between its steps ({checkpoint.problem})")
            renewed = place if job.config.structure is not None and job.config.structure < 1 else None
            frames = show_source(
                self.backbone, edited[first:end], job.latents[first:end], job.plan.video.part(first, end),
                job.plan.segments.cuts - first, job.config, self.cache, monitor,
                None if renewed is None else renewed[first:end],
            )  # fmt: skip
            checkpoint.remove()
        return job.result(
            frames,
            seconds=time.perf_counter() - began,
            peak_memory_bytes=peak.bytes,
            inversion_reused=reused,
            resumed_at_step=resumed,
            chunk=editor.chunk,
        )

    def edit_timeline(
        self,
        plan: Plan,
        timeline: Timeline,
        config: EditConfig | None = None,
        *,
        progress: Report | None = None,
        stop: Stop | None = None,
    ) -> EditResult:
        """Edit each range of the planned video by its own prompt; frames that no range names stay the source's.

        Finished ranges are kept in the cache: an edit that is stopped goes on with the next, and after a change of one
        prompt the others are not edited again. Raises as `edit`.
        """
        monitor, began, config = Monitor(progress, stop), time.perf_counter(), config or EditConfig()
        timeline = timeline.on(plan.video)
        with self._exclusive(monitor):
            parts, laid = [], []
            for part in stretches(timeline, plan.segments.cuts, len(plan.video)):
                self._check_request(plan, part.prompt)
                piece = self._stretch(plan, part.start, part.end, part.source_prompt, monitor)
                frames, report = self._kept(self._prepare(piece, part.prompt, config, monitor))
                laid.append(Laid(part.start, frames, ramp(len(frames), part.rise, part.fall)))
                parts.append(report | {"first_frame": part.start})
            return timeline_result(plan, timeline, config, parts, laid, time.perf_counter() - began)

    def forecast_timeline(self, plan: Plan, timeline: Timeline, config: EditConfig | None = None) -> Forecast:
        """What `edit_timeline` takes with nothing in the cache but the plan."""
        found, monitor, T = [], Monitor(), len(plan.video)
        with self._exclusive(monitor):
            for part in stretches(timeline.on(plan.video), plan.segments.cuts, T):
                piece = self._stretch(plan, part.start, part.end, part.source_prompt, monitor)
                wanted = resolve_edit(config or EditConfig(), self.profile, piece.config.source_prompt)
                found.append(self._forecast(piece.video, piece.layout, wanted, monitor))
        return together(found)

    def forecast_retake(self, plan: Plan, frames: tuple[int, int], config: EditConfig | None = None) -> Forecast:
        """What `retake` takes with nothing in the cache but the plan."""
        monitor = Monitor()
        begin, end, segments, held = surroundings(plan.segments, *frames)
        with self._exclusive(monitor):
            piece = self._stretch(plan, begin, end, None, monitor, segments)
            passing = piece.video.part(0, frames[1] - frames[0] + len(held))
            wanted = resolve_edit(config or EditConfig(), self.profile, piece.config.source_prompt)
            return self._forecast(passing, piece.layout, wanted, monitor)

    def retake(
        self,
        plan: Plan,
        result: EditResult,
        frames: tuple[int, int],
        prompt: str | None = None,
        config: EditConfig | None = None,
        *,
        source_prompt: str | None = None,
        progress: Report | None = None,
        stop: Stop | None = None,
    ) -> EditResult:
        """Frames `frames[0]` to `frames[1]` of `result`, an edit of `plan`, again; all others keep every byte.

        The keyframes on either side are held. By default what the frames show now is asked for again. `result` stays as
        it is, so that several takes lie side by side. Raises as `edit`.
        """
        monitor, (start, end) = Monitor(progress, stop), frames
        take = take_of(plan, result, start, end, prompt, source_prompt)
        self._check_request(plan, take.prompt)
        with self._exclusive(monitor):
            begin, stop_at, segments, held = surroundings(plan.segments, start, end)
            piece = self._stretch(plan, begin, stop_at, take.source_prompt, monitor, segments)
            around = around_of(result, piece, slice(start - begin, end - begin), begin, held) if len(held) else None
            job = self._prepare(piece, take.prompt, config or EditConfig(), monitor)
            new, report = self._kept(job, around)
            return retaken(plan, result, take, config or EditConfig(), new, report)

    def replay(
        self,
        plan: Plan,
        timeline: Timeline,
        config: EditConfig,
        takes: Iterable[Mapping[str, Any]],
        *,
        progress: Report | None = None,
        stop: Stop | None = None,
    ) -> EditResult:
        """The film of a timeline and of a report's takes, each over those before; what the cache has is not redone."""
        result = self.edit_timeline(plan, timeline, config, progress=progress, stop=stop)
        for take in takes:
            settings, (start, end) = EditConfig(**take["settings"]), take["frames"]
            result = self.retake(
                plan, result, (start, end), take["prompt"], settings,
                source_prompt=take.get("source_prompt"), progress=progress, stop=stop,
            )  # fmt: skip
        return result

    def _stretch(
        self,
        plan: Plan,
        start: int,
        end: int,
        source_prompt: str | None,
        monitor: Monitor,
        segments: Segments | None = None,
    ) -> Plan:
        text = plan.config.source_prompt if source_prompt is None else source_prompt
        return stretch_of(plan, start, end, text, self.backbone.device, monitor, segments)

    def _kept(self, job: _Job, around: Around | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Edited frames of a stretch, kept in the cache, and their report."""

        def build(folder: Path) -> dict[str, Any]:
            result = self._edit(job, lambda: self._invert(job, None if around is None else around.passing), around)
            np.save(folder / "frames.npy", result.frames)
            return {"report": result.report}

        folder, meta, _ = self.cache.get("takes", self._key(job, around), build, job.monitor.note)
        return np.load(folder / "frames.npy", mmap_mode="r"), meta["report"]

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
        self._check_request(plan, prompt)
        monitor = Monitor(progress, stop)
        with self._exclusive(monitor):
            job = self._prepare(plan, prompt, config or EditConfig(), monitor)
            mask = self._place(job)
        assert job.config.structure is not None
        if mask is not None:
            why = ""
        elif not job.config.focus:
            why = "focus is 0"
        else:
            why = "the prompts differ all over it" if job.source.text else "it is not said what is in the video"
        return Place(mask, job.config.structure, job.words.kept is not None, why)

    def _check_request(self, plan: Plan, prompt: str) -> None:
        if not prompt.strip():
            raise AdaFlowError("the prompt is empty; say what the video should show")
        if plan.model != self.backbone.name:
            raise AdaFlowError(
                f"the plan was made with {plan.model!r}, this engine holds {self.backbone.name!r}; plan again"
            )

    def _prepare(self, plan: Plan, prompt: str, config: EditConfig, monitor: Monitor) -> _Job:
        backbone, source_prompt = self.backbone, plan.config.source_prompt
        config = resolve_edit(config, self.profile, source_prompt)
        words, structure = wording(source_prompt, prompt), config.structure
        if structure is None:
            structure = words.structure if config.focus else 1.0
        chunk = config.chunk or backbone.chunk_for(config.low_memory)
        config = replace(config, chunk=chunk, structure=structure)
        assert config.negative_prompt is not None
        source, negative, positive = map(backbone.embed, (source_prompt, config.negative_prompt, prompt))
        latents = source_latents(backbone, plan.video, self.cache, monitor)
        return _Job(plan, config, source, negative, positive, words, latents, monitor)

    def _invert(self, job: _Job, frames: np.ndarray | None = None) -> tuple[Inversion, bool]:
        """The inversion of all frames, or of `frames` [F] ascending, and whether the cache had it.

        Of a part of a video it is a part of the whole's, and as long as the part; only `frames` of it are made.
        """
        steps, inversion_steps = job.config.steps, job.config.inversion_steps
        assert steps and inversion_steps
        backbone, prompt, rows = self.backbone, job.source.text, self.backbone.rows(job.config.chunk)
        (video, first), latents, given = job.plan.video.part_of or (job.plan.video, 0), job.latents, frames
        if video is not job.plan.video:
            latents = source_latents(backbone, video, self.cache, job.monitor)
            given = np.arange(first, first + len(job.latents))
            frames = given if frames is None else first + frames
        key = cache_key(
            video=video.digest, model=backbone.fingerprint, prompt=prompt, steps=steps,
            inversion_steps=inversion_steps, rows=rows,
        )  # fmt: skip

        def build(folder: Path) -> dict[str, Any]:
            made = invert(
                backbone, latents, prompt, frames, steps=steps, inversion_steps=inversion_steps,
                rows=rows, folder=folder, monitor=job.monitor,
            )  # fmt: skip
            return {"made": made}

        if frames is None:
            folder, _, reused = self.cache.get("inversion", key, build, job.monitor.note, resumable=True)
            return load_inversion(folder, backbone, steps, prompt), reused
        with self.cache.part("inversion", key) as folder:
            reused = not build(folder)["made"]
            return load_inversion(folder, backbone, steps, prompt, given), reused

    def _place(self, job: _Job) -> np.ndarray | None:
        """[T, h, w] 0..1 where the edit takes place; None: everywhere."""
        if not job.config.focus or not job.source.text:
            return None
        video, words = job.plan.video, job.words
        keyframes = job.plan.segments.keyframes
        return find_place(
            self.backbone, job.latents, video, keyframes, job.source, job.positive, words, self.cache, job.monitor
        )

    def _key(self, job: _Job, around: Around | None = None) -> str:
        """Of all that decides on an edit's bits."""
        backbone, plan = self.backbone, job.plan
        return cache_key(
            video=plan.video.digest, model=backbone.fingerprint, device=str(backbone.device), prompt=job.positive.text,
            settings=settings_dict(plan.config, job.config), layout=layout_digest(plan.layout),
            **({} if around is None else {"around": around.digest}),
        )  # fmt: skip

    def _layouts(self, job: _Job) -> Layouts:
        plan = job.plan
        if not plan.config.resample:
            return lambda _step: plan.layout
        return lambda step: build_layout(
            plan.features,
            draw_keyframes(plan.segments, job.config.seed, step),
            plan.grids,
            plan.config,
            device=self.backbone.device,
            monitor=job.monitor.quiet(),
        )

    def score(
        self, plan: Plan, result: EditResult, *, progress: Report | None = None, stop: Stop | None = None
    ) -> Scores:
        """What can be said of `result`, an edit of `plan`, without knowing what it should look like."""
        monitor = Monitor(progress, stop)
        with self._exclusive(monitor):
            usual, ranges = plan.config.source_prompt, shown(result.report, len(plan.video))
            prompts = [(r.prompt, usual if r.source_prompt is None else r.source_prompt) if r else None for r in ranges]
            return score(self.backbone, plan, result.frames, prompts, monitor)

    @contextmanager
    def _exclusive(self, monitor: Monitor) -> Iterator[None]:
        """One job at a time on the device; a job that is stopped while it waits leaves the queue."""
        while not self._turn.acquire(timeout=0.2):
            monitor.check()
        self.backbone.finite.forget()
        try:
            yield
        except torch.OutOfMemoryError:
            # From None: the exception would keep the failed call's tensors alive.
            raise AdaFlowError(
                "out of memory on the device; choose fewer keyframes, more pruning, a smaller size or low memory "
                "(--low-memory). What was finished is kept"
            ) from None
        finally:
            self._turn.release()


@dataclass(frozen=True)
class _Job:
    """One edit: what was asked for, with every value filled in."""

    plan: Plan
    config: EditConfig
    source: Embedding
    negative: Embedding
    positive: Embedding
    words: Wording  # of the source's prompt and the edit's
    latents: np.ndarray  # [T, 4, h, w] float32
    monitor: Monitor

    def result(
        self,
        frames: np.ndarray,  # [T, H, W, 3] uint8
        *,
        seconds: float,  # that the edit took
        peak_memory_bytes: int,
        inversion_reused: bool,
        resumed_at_step: int,  # 0: from the beginning
        chunk: int,  # as memory allowed
    ) -> EditResult:
        """The edited video with its report."""
        plan, video = self.plan, self.plan.video
        prompts = [(self.positive, "prompt"), (self.source, "source prompt")]
        if self.negative.text != self.source.text:  # which it is by default for some models
            prompts.append((self.negative, "negative prompt"))
        doubts = [doubt for prompt, name in prompts for doubt in prompt_warnings(prompt, name)]
        warnings = (*self.monitor.notes, *dict.fromkeys(doubts))
        report = {
            "frames": len(video),
            "width": video.size[0],
            "height": video.size[1],
            "fps": float(video.fps),
            "segments": len(plan.segments),
            "keyframes": plan.segments.keyframes.tolist(),
            "kept_ratio": plan.kept_ratio,
            "tokens_full": plan.tokens_full,
            "tokens_kept": plan.tokens_kept,
            "seconds": {  # of planning and of the edit, whenever each took place
                **plan.seconds,
                **self.monitor.seconds,
                "total": sum(plan.seconds.values()) + seconds,
            },
            "peak_memory_bytes": peak_memory_bytes,
            "inversion_reused": inversion_reused,
            "resumed_at_step": resumed_at_step,
            "frames_digest": frames_digest(frames),
            "prompt": self.positive.text,
            "prompts": [PromptRange(0, len(video), self.positive.text, self.source.text).as_json()],
            "takes": [],
            "settings": settings_dict(plan.config, replace(self.config, chunk=chunk)),
            "seed": self.config.seed,
            "model": plan.model,
            "version": __version__,
            "warnings": list(warnings),
        }
        return EditResult.of(video, frames, report, warnings)
