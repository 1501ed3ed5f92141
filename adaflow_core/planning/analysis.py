"""What a video's plan and edits start from, computed once and kept in the cache: frames, cuts, latents, features."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adaflow_core.config import PlanConfig
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.memory import in_chunks, writing
from adaflow_core.motion.flow import one_opencv_thread
from adaflow_core.planning.features import extract_features, load_features
from adaflow_core.progress import Monitor, in_threads
from adaflow_core.storage.cache import Cache, cache_key, file_digest
from adaflow_core.types import EditResult, Features
from adaflow_core.video.client import check_source
from adaflow_core.video.decode import DECODING, checked_range, checked_size, decode_video, video_of
from adaflow_core.video.types import Video

if TYPE_CHECKING:
    from PIL.Image import Image

# Of `detect_cuts`, chosen on validation films (benchmarks/RESULTS.md); of pixels, and so the same for all models.
CUT_SIDE = 128  # pixels of the shorter side at which frames are compared
CUT_WINDOW = 8  # pixels of a side of the windows whose grey levels are correlated
CUT_CONTRAST = 6.0  # standard deviation, in grey levels of 255, under which a window counts as flat
CUT_UNLIKE = 0.4  # unlikeness from which a frame begins a shot: 0 as around it, 1 nothing in common
CUT_PART = 16  # frames that a thread compares at a time
# Their work is small and mostly Python's, so that more gain little, and kernels of the model are given late meanwhile.
CUT_THREADS = 4
_NAME = "{name}"  # stands in a cached note for the file's: the same content may come under another
FLASH = 3  # frames that a flash or a damaged stretch lasts at most

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
    """The decoded video at `size`: the frames of a file, or those that are decoded already.

    `size`: (width, height) in pixels, or the shorter side; None: for a file `usual`, the shorter side that the model
    was trained at, else as the frames are. `fps`: the rate of frames that come without a file, and of a folder's
    pictures.
    """
    frame_range, size = checked_range(frame_range), size if size is None else checked_size(size)
    if not isinstance(video, (str, Path)):
        return video_of(video, fps, size=size, frame_range=frame_range)
    path, size = Path(video), usual if size is None else size
    check_source(path)
    every = (frame_range.start, frame_range.stop) == (None, None)
    chosen = None if every else [frame_range.start, frame_range.stop]
    digest = file_digest(path)
    rate = {"fps": str(fps)} if path.is_dir() else {}
    key = cache_key(file=digest, size=size, frames=chosen, decoding=DECODING, **rate)

    def build(folder: Path) -> dict[str, Any]:
        decoded = decode_video(path, size=size, frames=frame_range, fps=fps, monitor=monitor, out=folder / "frames.npy")
        return {
            "fps": str(decoded.fps),
            "digest": decoded.digest,
            "start": decoded.start,
            "times": decoded.times,
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
    )


def check_edit_of(video: Video, result: EditResult) -> None:
    """AdaFlowError where `result` is an edit of another video: of other frames, where its report names them."""
    remedy = "give the plan that was edited"
    (T, height, width), (count, h, w) = (frames.shape[:3] for frames in (result.frames, video.frames))
    if (T, height, width) != (count, h, w):
        raise AdaFlowError(
            f"the result has {T} frames of {width}x{height} and the planned video {count} of {w}x{h}; {remedy}"
        )
    if result.report.get("source_digest", video.digest) != video.digest:
        raise AdaFlowError(f"the result is an edit of another video than the planned one, of as many frames; {remedy}")


def source_cuts(video: Video, cache: Cache, monitor: Monitor) -> np.ndarray:
    """[C] int64, frames that begin a new shot."""
    key = cache_key(video=video.digest)
    _, meta, _ = cache.get("cuts", key, lambda _: {"cuts": detect_cuts(video.frames, monitor).tolist()}, monitor.note)
    return np.array(meta["cuts"], dtype=np.int64)


def detect_cuts(frames: np.ndarray, monitor: Monitor) -> np.ndarray:
    """[C] int64, frames of [T, H, W, 3] uint8 that begin a new shot.

    A cut is a lone frame whose picture is not the one before, moved. Fast motion, dissolves and fades through black
    spread the change over several frames; after a flash of up to `FLASH` frames the picture is as it was. None counts.
    """
    T, unlike = len(frames), _Unlikeness(frames)
    values = np.zeros(T)

    def work(first: int) -> int:
        part = range(first, min(first + CUT_PART, T))
        compare = _Unlikeness(frames)  # not one for all threads
        values[part.start : part.stop] = [compare(t - 1, t) for t in part]
        return len(part)

    with monitor.stage("cuts", T - 1) as stage, one_opencv_thread():
        in_threads(work, range(1, T, CUT_PART), stage.advance, CUT_THREADS)
    cuts = []
    for t in range(1, T):
        sides = [side for side in (values[max(1, t - 3) : t], values[t + 1 : t + 4]) if len(side)]
        usual = max((float(np.median(side)) for side in sides), default=0.0)
        limit = usual + CUT_UNLIKE * (1 - usual)
        around = ((a, a + gap) for gap in range(2, FLASH + 2) for a in range(max(0, t - gap), t) if a + gap < T)
        if values[t] >= limit and all(unlike(a, b) >= limit for a, b in around):
            cuts.append(t)
    return np.array(cuts, dtype=np.int64)


class _Unlikeness:
    """How little of frame b of [T, H, W, 3] uint8 is frame a, moved along the optical flow: 0 nothing new, 1 all new.

    One less the mean correlation of small windows, weighted by their contrast: a flash or a fade, which scales the
    grey levels, leaves it as it is. The flow is dense inverse search (Kroeger et al. 2016), by OpenCV.
    """

    def __init__(self, frames: np.ndarray) -> None:
        import cv2

        self.frames = frames
        self.search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        scale = CUT_SIDE / min(frames.shape[1:3])
        self.size = round(frames.shape[2] * scale), round(frames.shape[1] * scale)
        self.places = np.stack(np.meshgrid(*map(np.arange, self.size)), axis=-1).astype(np.float32)  # [h, w, 2] x, y
        self.small = lru_cache(maxsize=2 * FLASH)(self._small)

    def _small(self, t: int) -> np.ndarray:
        import cv2

        grey = cv2.cvtColor(np.ascontiguousarray(self.frames[t]), cv2.COLOR_RGB2GRAY)
        return cv2.resize(grey, self.size, interpolation=cv2.INTER_AREA)

    def __call__(self, a: int, b: int) -> float:
        import cv2

        first, second = self.small(a), self.small(b)
        flow = self.search.calc(first, second, None)  # type: ignore[call-overload]
        places = self.places + flow
        moved = cv2.remap(second, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        x, y = first.astype(np.float32), moved.astype(np.float32)
        windows = self.size[0] // CUT_WINDOW, self.size[1] // CUT_WINDOW
        mean_x, mean_y, xx, yy, xy = (
            cv2.resize(values, windows, interpolation=cv2.INTER_AREA) for values in (x, y, x * x, y * y, x * y)
        )
        var_x, var_y = np.maximum(xx - mean_x**2, 0), np.maximum(yy - mean_y**2, 0)
        flat = CUT_CONTRAST**2
        correlation = (xy - mean_x * mean_y + flat) / np.sqrt((var_x + flat) * (var_y + flat))
        return 1 - float(np.average(correlation, weights=np.sqrt(np.maximum(var_x, var_y)) + 1e-3))


def source_latents(backbone: Backbone, video: Video, cache: Cache, monitor: Monitor) -> np.ndarray:
    """[T, c, h, w] float32, memory-mapped."""
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
    """The features, memory-mapped, and a name for them by their content."""
    # The prompt shapes the features only where its words weigh the tokens.
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
