"""The facade: `AdaFlow.from_pretrained(...)`, `.plan(video)`, `.edit(plan, prompt)`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adaflow_core.config import (
    EditConfig,
    ModelProfile,
    PlanConfig,
    resolve_edit,
    resolve_plan,
    settings_dict,
)
from adaflow_core.editing.checkpoint import Checkpoint, frames_digest, layout_digest
from adaflow_core.editing.editor import Editor
from adaflow_core.editing.forecast import Calibration, calibrate, forecast, to_dict
from adaflow_core.editing.inversion import invert, load_inversion
from adaflow_core.editing.preservation import restore_detail
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone, prompt_warnings
from adaflow_core.model.loading import load_backbone
from adaflow_core.model.memory import PeakMemory, resident_bytes, to_device
from adaflow_core.planning.features import extract_features, load_features
from adaflow_core.planning.planner import Planner, build_layout, draw_keyframes
from adaflow_core.progress import Monitor, Progress
from adaflow_core.report.scores import Scores, score
from adaflow_core.storage.arrays import allocated, scratch
from adaflow_core.storage.cache import Cache, cache_key, file_digest
from adaflow_core.types import EditLayout, EditResult, Embedding, Features, Forecast, Plan
from adaflow_core.version import __version__
from adaflow_core.video.client import check_source
from adaflow_core.video.decode import decode_video, from_frames
from adaflow_core.video.types import Video

if TYPE_CHECKING:
    from PIL.Image import Image

Report = Callable[[Progress], None]
Stop = Callable[[], bool]


class AdaFlow:
    """Plans and edits videos with one diffusion model. Safe to call from several threads: jobs take turns."""

    def __init__(self, backbone: Backbone, cache: Cache | None = None) -> None:
        self.backbone = backbone
        self.cache = cache or Cache.default()
        self._turn = threading.Lock()
        self._planner = Planner(backbone.device, backbone.profile.cut)

    @classmethod
    def from_pretrained(
        cls,
        model: str = "embedded",
        *,
        device: str = "auto",
        dtype: str = "auto",
        attention: str = "auto",
        cache: Cache | None = None,
    ) -> AdaFlow:
        """`model`: "embedded", a Hub id ("ID" or "ID@REVISION"), or a folder in diffusers' format."""
        return cls(load_backbone(model, device=device, dtype=dtype, attention=attention), cache)

    @property
    def profile(self) -> ModelProfile:
        return self.backbone.profile

    def check_prompt(self, text: str) -> Embedding:
        """What the model makes of a prompt: its unknown words and the part it cannot take."""
        return self.backbone.embed(text)

    # --- plan ---------------------------------------------------------------------------------------

    def plan(
        self,
        video: str | Path | np.ndarray | Sequence[Image] | Video,
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
            decoded = self._decode(video, size, frames, Fraction(fps).limit_denominator(1001), monitor)
            latents = self._latents(decoded, monitor)
            features, key = self._features(decoded, latents, config, monitor)
            choice = self._planner.choose(features, latents, key, config, monitor)
            grids = self.backbone.grids(*decoded.size)
            began = time.perf_counter()
            layout = self._planner.layout(features, key, choice, grids, config, monitor)
            again = time.perf_counter() - began if config.resample else 0.0
            predicted = self._forecast(decoded, layout, edit or EditConfig(), config, again)
        return Plan(
            video=decoded,
            model=self.backbone.name,
            config=config,
            features=features,
            segments=choice.segments,
            layout=layout,
            adjacent=choice.adjacent,
            similarity=choice.similarity,
            window=choice.window,
            heat=choice.heat,
            heat_grid=choice.heat_grid,
            residual=choice.residual,
            forecast=predicted,
            seconds=monitor.seconds,
            notes=(*decoded.notes, *monitor.notes, *choice.notes),
        )

    def _decode(
        self,
        video: Any,
        size: tuple[int, int] | None,
        frames: slice | None,
        fps: Fraction,
        monitor: Monitor,
    ) -> Video:
        if isinstance(video, Video):
            return video
        if not isinstance(video, (str, Path)):
            return from_frames(video, fps=fps)
        path = Path(video)
        check_source(path)
        wanted = size or self.profile.size
        chosen = [frames.start, frames.stop] if frames else None
        key = cache_key(file=file_digest(path), size=wanted, frames=chosen)

        def build(folder: Path) -> dict[str, Any]:
            decoded = decode_video(path, size=wanted, frames=frames, monitor=monitor, out=folder / "frames.npy")
            return {
                "fps": str(decoded.fps),
                "digest": decoded.digest,
                "start": decoded.start,
                "times": decoded.times,
                "notes": decoded.notes,
            }

        folder, meta, _ = self.cache.get("frames", key, build, monitor.note)
        return Video(
            np.load(folder / "frames.npy", mmap_mode="r"),
            Fraction(meta["fps"]),
            meta["digest"],
            source=path,
            start=meta["start"],
            times=None if meta["times"] is None else tuple(meta["times"]),
            notes=tuple(meta["notes"]),
        )

    def _latents(self, video: Video, monitor: Monitor) -> np.ndarray:
        """[T, 4, h, w] float32, memory-mapped."""
        T, (width, height) = len(video), video.size
        factor, chunk = self.backbone.factor, self.backbone.vae_chunk(width, height)

        def build(folder: Path) -> dict[str, Any]:
            shape = (T, 4, height // factor, width // factor)
            out = allocated(folder / "latents.npy", np.float32, shape)
            with monitor.stage("encode", T) as stage:
                for part in stage.chunks(T, chunk):
                    out[part] = self.backbone.encode(video.frames[part]).cpu().numpy()
            return {}

        key = cache_key(video=video.digest, model=self.backbone.fingerprint)
        folder, _, _ = self.cache.get("latents", key, build, monitor.note)
        return np.load(folder / "latents.npy", mmap_mode="r")

    def _features(
        self, video: Video, latents: np.ndarray, config: PlanConfig, monitor: Monitor
    ) -> tuple[Features, str]:
        # The prompt shapes the features only where its words weigh the tokens.
        prompt = config.source_prompt if config.importance == "prompt" else ""
        if config.importance == "prompt" and not prompt:
            raise AdaFlowError("importance by prompt needs a source prompt that says what is in the video")
        key = cache_key(
            video=video.digest,
            model=self.backbone.fingerprint,
            prompt=prompt,
            block=self.profile.feature_block,
            timestep=self.profile.feature_timestep,
        )
        folder, meta, _ = self.cache.get(
            "features",
            key,
            lambda folder: extract_features(self.backbone, latents, prompt, folder, monitor),
            monitor.note,
        )
        return load_features(folder, meta), key

    def _forecast(
        self, video: Video, layout: EditLayout, edit: EditConfig, plan: PlanConfig, layout_seconds: float
    ) -> Forecast:
        backbone, (width, height) = self.backbone, video.size
        key = cache_key(
            model=backbone.fingerprint, size=(width, height), device=str(backbone.device),
            threads=torch.get_num_threads(), attend=backbone.attend.__name__, gather=backbone.gather.__module__, kind=3,
        )  # fmt: skip
        _, meta, _ = self.cache.get("calibration", key, lambda _: to_dict(calibrate(backbone, width, height)))
        resolved = resolve_edit(edit, self.profile, plan.source_prompt)
        on_gpu = backbone.device.type == "cuda"
        base = torch.cuda.memory_allocated(backbone.device) if on_gpu else resident_bytes()
        kept = None
        if layout.slimming is not None:
            kept = {grid: part.kept.shape[1] for grid, part in layout.slimming.items()}
        return forecast(
            Calibration(**meta),
            backbone,
            list(layout.correspondence.index),
            resolved,
            frames=len(video),
            keyframes=len(layout.keyframes),
            kept=kept,
            inverted=False,
            base_bytes=base,
            frame_size=video.size,
            layout_seconds=layout_seconds,
        )

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
        if not prompt.strip():
            raise AdaFlowError("the prompt is empty; say what the video should show")
        if plan.model != self.backbone.name:
            raise AdaFlowError(
                f"the plan was made with {plan.model!r}, this engine holds {self.backbone.name!r}; plan again"
            )
        monitor = Monitor(progress, stop)
        backbone, video = self.backbone, plan.video
        source_prompt = plan.config.source_prompt
        began = time.perf_counter()
        with self._exclusive(monitor), PeakMemory(backbone.device) as peak:
            config = resolve_edit(config or EditConfig(), self.profile, source_prompt)
            config = replace(config, chunk=config.chunk or backbone.chunk_for(config.low_memory))
            steps, inversion_steps, chunk = config.steps, config.inversion_steps, config.chunk
            assert steps and inversion_steps and chunk and config.negative_prompt is not None
            source, negative, positive = map(backbone.embed, (source_prompt, config.negative_prompt, prompt))
            latents = self._latents(video, monitor)
            key = cache_key(
                video=video.digest, model=backbone.fingerprint, prompt=source_prompt, steps=steps,
                inversion_steps=inversion_steps, chunk=chunk,
            )  # fmt: skip

            def build(folder: Path) -> dict[str, Any]:
                invert(
                    backbone, latents, source_prompt, steps=steps, inversion_steps=inversion_steps,
                    chunk=chunk, folder=folder, monitor=monitor,
                )  # fmt: skip
                return {}

            folder, _, inverted = self.cache.get("inversion", key, build, monitor.note, resumable=True)
            inversion = load_inversion(folder, backbone, steps, source_prompt)
            editor = Editor(backbone, source, negative, positive, config, monitor)
            checkpoint = Checkpoint(
                self.cache.state("edits", cache_key(
                    video=video.digest, model=backbone.fingerprint, device=str(backbone.device), prompt=prompt,
                    settings=settings_dict(plan.config, config), layout=layout_digest(plan.layout),
                ))
            )  # fmt: skip
            edited, resumed_at_step = editor.run(
                inversion, latents, self._layouts(plan, config, monitor), _preview(latents, video), checkpoint
            )
            if checkpoint.problem:
                monitor.note(f"the edit could not be saved between its steps ({checkpoint.problem})")
            frames = self._decode_latents(edited, latents, video, config.detail, monitor, config.low_memory)
            checkpoint.remove()
        warnings = (*monitor.notes, *prompt_warnings(positive), *prompt_warnings(source))
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
                **monitor.seconds,
                "total": sum(plan.seconds.values()) + time.perf_counter() - began,
            },
            "peak_memory_bytes": peak.bytes,
            "inversion_reused": inverted,
            "resumed_at_step": resumed_at_step,  # 0: from the beginning
            "frames_digest": frames_digest(frames),
            "prompt": prompt,
            "settings": settings_dict(plan.config, replace(config, chunk=editor.chunk)),  # as memory allowed
            "seed": config.seed,
            "model": backbone.name,
            "version": __version__,
            "warnings": list(warnings),
        }
        return EditResult(frames, video.fps, report, video.source, video.start, warnings, video.times)

    def score(
        self, plan: Plan, result: EditResult, *, progress: Report | None = None, stop: Stop | None = None
    ) -> Scores:
        """What can be said of `result`, an edit of `plan`, without knowing what it should look like."""
        monitor = Monitor(progress, stop)
        with self._exclusive(monitor):
            prompt, source_prompt = result.report["prompt"], plan.config.source_prompt
            return score(self.backbone, plan, result.frames, prompt, source_prompt, monitor)

    def _layouts(self, plan: Plan, config: EditConfig, monitor: Monitor) -> Callable[[int], EditLayout]:
        if not plan.config.resample:
            return lambda _step: plan.layout
        return lambda step: build_layout(
            plan.features,
            draw_keyframes(plan.segments, config.seed, step),
            plan.grids,
            plan.config,
            device=self.backbone.device,
            monitor=monitor.quiet(),
        )

    def _decode_latents(
        self,
        edited: Tensor,  # [T, 4, h, w]
        source: np.ndarray,  # [T, 4, h, w]
        video: Video,
        detail: float,
        monitor: Monitor,
        low_memory: bool = False,
    ) -> np.ndarray:
        """[T, H, W, 3] uint8."""
        decode, device = self.backbone.decode_there, self.backbone.device
        T = len(video)
        out = scratch(np.uint8, video.frames.shape)
        with monitor.stage("decode frames", T) as stage:
            for part in stage.chunks(T, self.backbone.vae_chunk(*video.size, low_memory)):
                frames = decode(edited[part])
                if detail:
                    rebuilt = decode(to_device(source[part], device))
                    frames = restore_detail(frames, rebuilt, to_device(video.frames[part], device), detail)
                out[part] = frames.cpu().numpy()
        return out

    @contextmanager
    def _exclusive(self, monitor: Monitor) -> Iterator[None]:
        """One job at a time on the device; a job that is stopped while it waits leaves the queue."""
        while not self._turn.acquire(timeout=0.2):
            monitor.check()
        try:
            yield
        except torch.OutOfMemoryError:
            # From None: the exception would keep the failed call's tensors alive.
            raise AdaFlowError(
                "the device's memory does not do; choose fewer keyframes, more pruning, a smaller size or low memory "
                "(--low-memory). What was finished is kept"
            ) from None
        finally:
            self._turn.release()


def _preview(latents: np.ndarray, video: Video, samples: int = 4) -> Callable[[Tensor], np.ndarray]:
    """A cheap picture of latents [K, 4, h, w] -> [K, h, w, 3] uint8: a linear map fitted on this video."""
    chosen = np.unique(np.linspace(0, len(video) - 1, samples).round().astype(np.int64))
    sample = torch.from_numpy(latents[chosen]).float()  # [F, 4, h, w]
    pixels = torch.from_numpy(video.frames[chosen]).float().permute(0, 3, 1, 2)
    colours = F.adaptive_avg_pool2d(pixels, (sample.shape[-2], sample.shape[-1])).permute(0, 2, 3, 1).reshape(-1, 3)

    def design(x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        return torch.cat([rows, torch.ones(len(rows), 1)], dim=1)

    mapping = torch.linalg.lstsq(design(sample), colours).solution  # [5, 3]

    def picture(x: Tensor) -> np.ndarray:
        flat = (design(x.float().cpu()) @ mapping).clamp(0, 255).to(torch.uint8)
        return flat.reshape(len(x), *x.shape[-2:], 3).numpy()

    return picture
