"""What a video's plan and edits start from, computed once and kept in the cache: frames, latents, features."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adaflow_core.config import PlanConfig
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone
from adaflow_core.planning.features import extract_features, load_features
from adaflow_core.progress import Monitor
from adaflow_core.storage.arrays import allocated
from adaflow_core.storage.cache import Cache, cache_key, file_digest
from adaflow_core.types import Features
from adaflow_core.video.client import check_source
from adaflow_core.video.decode import decode_video, from_frames
from adaflow_core.video.types import Video

if TYPE_CHECKING:
    from PIL.Image import Image

VideoLike = str | Path | np.ndarray | Sequence["Image"] | Video


def source_video(
    video: VideoLike,
    cache: Cache,
    *,
    size: tuple[int, int] | int,
    frame_range: slice | None,
    fps: float | Fraction,
    monitor: Monitor,
) -> Video:
    """The decoded video: a file's frames at `size`, or what is decoded already as it is.

    `size`: (width, height) in pixels, or the shorter side. `fps`: the rate of frames that come without a file.
    """
    if isinstance(video, Video):
        return video
    if not isinstance(video, (str, Path)):
        return from_frames(video, fps=Fraction(fps).limit_denominator(1001))
    path = Path(video)
    check_source(path)
    chosen = [frame_range.start, frame_range.stop] if frame_range else None
    key = cache_key(file=file_digest(path), size=size, frames=chosen)

    def build(folder: Path) -> dict[str, Any]:
        decoded = decode_video(path, size=size, frames=frame_range, monitor=monitor, out=folder / "frames.npy")
        return {
            "fps": str(decoded.fps),
            "digest": decoded.digest,
            "start": decoded.start,
            "times": decoded.times,
            "notes": decoded.notes,
        }

    folder, meta, _ = cache.get("frames", key, build, monitor.note)
    return Video(
        np.load(folder / "frames.npy", mmap_mode="r"),
        Fraction(meta["fps"]),
        meta["digest"],
        source=path,
        start=meta["start"],
        times=None if meta["times"] is None else tuple(meta["times"]),
        notes=tuple(meta["notes"]),
    )


def source_latents(backbone: Backbone, video: Video, cache: Cache, monitor: Monitor) -> np.ndarray:
    """[T, 4, h, w] float32, memory-mapped."""
    T, (width, height) = len(video), video.size
    factor, chunk = backbone.factor, backbone.vae_chunk(width, height)

    def build(folder: Path) -> dict[str, Any]:
        out = allocated(folder / "latents.npy", np.float32, (T, 4, height // factor, width // factor))
        with monitor.stage("encode", T) as stage:
            for part in stage.chunks(T, chunk):
                out[part] = backbone.encode(video.frames[part]).cpu().numpy()
        return {}

    key = cache_key(video=video.digest, model=backbone.fingerprint)
    folder, _, _ = cache.get("latents", key, build, monitor.note)
    return np.load(folder / "latents.npy", mmap_mode="r")


def source_features(
    backbone: Backbone, video: Video, latents: np.ndarray, config: PlanConfig, cache: Cache, monitor: Monitor
) -> tuple[Features, str]:
    """The features, memory-mapped, and a name for them by their content."""
    # The prompt shapes the features only where its words weigh the tokens.
    prompt = config.source_prompt if config.importance == "prompt" else ""
    if config.importance == "prompt" and not prompt:
        raise AdaFlowError("importance by prompt needs a source prompt that says what is in the video")
    key = cache_key(
        video=video.digest,
        model=backbone.fingerprint,
        prompt=prompt,
        block=backbone.profile.feature_block,
        timestep=backbone.profile.feature_timestep,
    )
    folder, meta, _ = cache.get(
        "features",
        key,
        lambda folder: extract_features(backbone, latents, prompt, folder, monitor),
        monitor.note,
    )
    return load_features(folder, meta), key
