"""What planning and editing start from, computed once and cached: decoded frames, cuts, latents and features."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adaflow_core.config import PlanConfig
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.memory import in_chunks, writing
from adaflow_core.motion.cuts import detect_cuts
from adaflow_core.planning.features import extract_features, load_features
from adaflow_core.progress import Monitor
from adaflow_core.storage.cache import Cache, cache_key
from adaflow_core.storage.digests import quick_digest
from adaflow_core.types import EditResult, Features
from adaflow_core.video.client import check_source
from adaflow_core.video.decode import DECODING, checked_range, checked_size, decode_video, video_of
from adaflow_core.video.types import Video

if TYPE_CHECKING:
    from PIL.Image import Image

_NAME = "{name}"  # stands for the file's name in cached notes: the same content may be read under another

VideoLike = str | Path | np.ndarray | Iterable["np.ndarray | Image"] | Video


def source_video(
    video: VideoLike,
    cache: Cache,
    *,
    size: tuple[int, int] | int | None,
    usual: int,
    frame_range: slice | None,
    fps: float | Fraction,
    monitor: Monitor,
) -> Video:
    """Decode a video file and cache its frames, or wrap frames that are decoded already.

    `size` is (width, height) in pixels, or the shorter side. If it is None, a file is decoded at `usual`, the shorter
    side that the model was trained at, and given frames keep their size. `fps` is the frame rate of frames that come
    without a file, and of a folder of pictures.
    """
    frame_range, size = checked_range(frame_range), size if size is None else checked_size(size)
    if not isinstance(video, (str, Path)):
        return video_of(video, fps, size=size, frame_range=frame_range)
    path, size = Path(video), usual if size is None else size
    check_source(path)
    every = (frame_range.start, frame_range.stop) == (None, None)
    chosen = None if every else [frame_range.start, frame_range.stop]
    digest = quick_digest(path)
    rate = {"fps": str(fps)} if path.is_dir() else {}
    key = cache_key(file=digest, size=size, frames=chosen, decoding=DECODING, **rate)

    def build(folder: Path) -> dict[str, Any]:
        decoded = decode_video(path, size=size, frames=frame_range, fps=fps, monitor=monitor, out=folder / "frames.npy")
        return {
            "fps": str(decoded.fps),
            "digest": decoded.digest,
            "start": decoded.start,
            "times": decoded.times,
            "numbers": decoded.numbers,
            "notes": [note.replace(path.name, _NAME, 1) for note in decoded.notes],
            "transfer": decoded.transfer,
        }

    folder, meta, _ = cache.get("frames", key, build, monitor.note)
    return Video(
        np.load(folder / "frames.npy", mmap_mode="r"),
        Fraction(meta["fps"]),
        meta["digest"],
        source=path,
        start=meta["start"],
        times=None if meta["times"] is None else tuple(meta["times"]),
        notes=tuple(note.replace(_NAME, path.name, 1) for note in meta["notes"]),
        transfer=meta["transfer"],
        file_digest=digest,
        numbers=None if meta["numbers"] is None else tuple(meta["numbers"]),
    )


def check_edit_of(video: Video, result: EditResult) -> None:
    """Raise AdaFlowError unless `result` has the size, the frame count and, if reported, the digest of `video`."""
    remedy = "give the plan that was edited"
    (T, height, width), (count, h, w) = (frames.shape[:3] for frames in (result.frames, video.frames))
    if (T, height, width) != (count, h, w):
        raise AdaFlowError(
            f"the result has {T} frames of {width}x{height} and the planned video {count} of {w}x{h}; {remedy}"
        )
    if result.report.get("source_digest", video.digest) != video.digest:
        raise AdaFlowError(f"the result is an edit of another video than the planned one, of as many frames; {remedy}")


def source_cuts(video: Video, cache: Cache, monitor: Monitor) -> np.ndarray:
    """Return [C] int64, the frames that begin a new shot."""
    key = cache_key(video=video.digest)
    _, meta, _ = cache.get("cuts", key, lambda _: {"cuts": detect_cuts(video.frames, monitor).tolist()}, monitor.note)
    return np.array(meta["cuts"], dtype=np.int64)


def source_latents(backbone: Backbone, video: Video, cache: Cache, monitor: Monitor) -> np.ndarray:
    """Return the latents of all frames, [T, c, h, w] float32, memory-mapped."""
    if video.part_of is not None:
        whole, first = video.part_of
        return source_latents(backbone, whole, cache, monitor)[first : first + len(video)]
    T, (width, height) = len(video), video.size
    factor, chunk = backbone.factor, backbone.vae_chunk(width, height)

    def build(folder: Path) -> dict[str, Any]:
        shape = (T, backbone.latent_channels, height // factor, width // factor)
        own, size = backbone.share(T, chunk)
        out = backbone.team.array(folder / "latents.npy", np.float32, shape)[own]
        with monitor.stage("encode", len(out)) as stage, writing(out) as put:

            def encode(part: slice) -> None:
                put(part, backbone.send(backbone.encode(video.frames[own][part])))
                stage.advance(part.stop - part.start)

            in_chunks(len(out), size, encode)
        return {}

    key = cache_key(video=video.digest, model=backbone.fingerprint)
    folder, _, _ = cache.get("latents", key, build, monitor.note, together=True)
    return np.load(folder / "latents.npy", mmap_mode="r")


def source_features(
    backbone: Backbone, video: Video, latents: np.ndarray, config: PlanConfig, cache: Cache, monitor: Monitor
) -> tuple[Features, str]:
    """Return the features, memory-mapped, and a key that identifies their content.

    Raises AdaFlowError for importance by prompt without words in the source prompt.
    """
    # The prompt affects the features only if its words weigh the tokens.
    prompt = config.source_prompt if config.importance == "prompt" else ""
    if config.importance == "prompt" and not backbone.embed(prompt).words.any():
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
        together=True,
    )
    return load_features(folder, meta), key
