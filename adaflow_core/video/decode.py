"""Videos in: probe a file, decode it to the working size, or take frames as they are.

PyAV decodes the frames that are edited. Measured on 900 frames of 1080p H.264 scaled to 896x512, two cores: decord
takes 3.0 s and 187 MB at 38.6 dB to an ideally filtered frame (bilinear, nearest chroma sample), PyAV with
`pixels.FILTER` 4.6 s and 96 MB at 48.1 dB. decord ignores rotation, reads ahead 1.2 GB at full size and fails on AV1,
but is faster at exact frames scattered over a file (24 of those 900 in 1.6 s, PyAV 3.1 s), so `thumbnails` uses it.
All reading takes place in a process with limits (`client`, `worker`).
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adaflow_core.errors import AdaFlowError
from adaflow_core.progress import Monitor
from adaflow_core.storage.arrays import Frames
from adaflow_core.video.client import Decoder
from adaflow_core.video.types import LIGHT, MAX_SIDE, Video, VideoInfo, check_size, working_size

DECODING = 4  # changes whenever other frames are made of the same file: a part of what cached ones are known by
_CHUNK = 8  # frames between two looks at the stop signal
_CLOSEST = 0.001  # seconds between two frames; those that are closer are moved apart
_EVEN = 0.005  # seconds by which frames may be off an even rate: clocks of whole milliseconds are


def probe(path: str | Path) -> VideoInfo:
    """What is in a file: its header, checked against its packets, and one decoded frame."""
    with Decoder(Path(path)) as decoder:
        return decoder.probe()


def decode_video(
    path: str | Path,
    *,
    size: tuple[int, int] | int,
    frames: slice | None = None,
    fps: float | Fraction | None = None,
    monitor: Monitor | None = None,
    out: Path | None = None,
) -> Video:
    """The frames of a file, or of a folder of pictures, upright; in a memory map at `out` (.npy) if given.

    `size`: (width, height), or the shorter side, which `working_size` completes. The rate is the file's mean rate, or
    `fps` of a folder's pictures, which have none. `frames` is a Python slice of step 1.
    """
    frames, size = checked_range(frames), checked_size(size)
    path, monitor = Path(path), monitor or Monitor()
    numbers: list[int] = []
    times: list[float | None] = []
    duration: float | None = None
    with Decoder(path, monitor) as decoder:
        info = decoder.probe()
        if isinstance(size, int):
            size = working_size(info.width, info.height, size)
            check_size(size)
        rate = info.fps if fps is None or not path.is_dir() else _rate(fps)
        begin, end = _within(frames, info.frames, path.name)
        notes = list(info.notes)
        store = Frames(out, (size[1], size[0], 3), end - begin)
        hasher = blake2b(digest_size=16)
        with store, monitor.stage("decode", end - begin) as stage:
            for decoded in decoder.frames(size, begin, end - begin):
                store.append(decoded.picture)
                numbers.append(decoded.number)
                times.append(decoded.time)
                duration = decoded.duration
                hasher.update(decoded.picture.data)
                if store.length % _CHUNK == 0:
                    stage.advance(_CHUNK)
            if store.length % _CHUNK:
                stage.advance(store.length % _CHUNK)
            if not store.length:
                raise AdaFlowError(
                    f"no frame from {begin} to {end - 1} of {path.name} can be read; choose another range"
                )
            pixels = store.finish()
    if len(pixels) < end - begin:  # the container lists more: it is damaged, or cut short
        notes.append(f"{path.name} is damaged: {len(pixels)} of {end - begin} frames could be read")
    digest = _digest(hasher, pixels.shape, rate)
    first = numbers[0]
    uneven = _uneven_times(times, duration, rate, first)
    apart = tuple(numbers) if numbers[-1] - first >= len(numbers) else None
    return Video(pixels, rate, digest, path, first, uneven, tuple(notes), info.transfer, numbers=apart)


def _uneven_times(
    found: list[float | None], duration: float | None, fps: Fraction, begin: int
) -> tuple[float, ...] | None:
    """When the frames from number `begin` on begin and the last, of `duration`, ends [T + 1]; None for an even rate."""
    times, frame = np.array(found, np.float64), 1 / float(fps)  # nan where a frame has none
    if np.isnan(times).any():  # then two with one time are a stamp that the first one should not have
        times[:-1][times[:-1] == times[1:]] = np.nan
    known = np.flatnonzero(~np.isnan(times))
    if not len(known):
        return None
    times = _filled(times, known, frame)
    times = np.append(times, times[-1] + (duration or frame))
    steps = _CLOSEST * np.arange(len(times))
    times = np.maximum.accumulate(times - steps) + steps
    off = np.abs(times - (begin + np.arange(len(times))) * frame)
    return None if off[:-1].max() < min(_EVEN, 0.5 * frame) and off[-1] < 0.5 * frame else tuple(times.tolist())


def _filled(times: np.ndarray, known: np.ndarray, frame: float) -> np.ndarray:
    """Times for those that have none: between the `known` ones evenly, before and after them at the usual rate."""
    numbers = np.arange(len(times))
    before, after = np.minimum(numbers - known[0], 0), np.maximum(numbers - known[-1], 0)
    return np.interp(numbers, known, times[known]) + frame * (before + after)


def checked_size(size: tuple[int, int] | int) -> tuple[int, int] | int:
    """(width, height), or the shorter side, in whole numbers; AdaFlowError for what is neither."""
    try:
        if not isinstance(size, (tuple, list)):
            return operator.index(size)
        width, height = map(operator.index, size)
    except (TypeError, ValueError) as problem:
        raise AdaFlowError(f"size is {size!r:.80}; give (width, height) in pixels, for example (512, 512)") from problem
    check_size((width, height))
    return width, height


def checked_range(frames: slice | None) -> slice:
    """A range of frames as a slice of whole numbers; AdaFlowError for what is none, or leaves frames out.

    Motion is followed from frame to frame, so that every second frame would be another video.
    """
    if frames is None:
        return slice(None)
    if not isinstance(frames, slice):
        raise AdaFlowError(f"frames is {frames!r:.80}; give the range as a slice, for example slice(0, 48)")
    try:
        first, end, step = (None if x is None else operator.index(x) for x in (frames.start, frames.stop, frames.step))
    except TypeError as problem:
        raise AdaFlowError(f"frames is {frames}; give whole numbers, for example slice(0, 48)") from problem
    if step not in (None, 1):
        raise AdaFlowError(f"frames is {frames}; give a range without a step, for example slice(0, 48)")
    return slice(first, end)


def _within(frames: slice, count: int, name: str) -> tuple[int, int]:
    """The first frame of a range and its end, in a video of `count` frames."""
    begin, end, _ = frames.indices(count)
    if begin >= end:
        raise AdaFlowError(f"the frame range holds no frame; {name} has the frames 0:{count}")
    return begin, end


def from_frames(frames: np.ndarray | Iterable[np.ndarray | Image.Image], fps: float | Fraction = 24) -> Video:
    """A video of [T, H, W, 3] uint8, or of arrays [H, W, 3] uint8 or PIL images of one size, one after another.

    Sides must be multiples of 8.
    """
    pixels, rate = _stacked(frames), _rate(fps)
    check_size((pixels.shape[2], pixels.shape[1]))
    return Video(pixels, rate, _digest_of(pixels, rate))


def video_of(
    frames: Video | np.ndarray | Iterable[np.ndarray | Image.Image],
    fps: float | Fraction,
    *,
    size: tuple[int, int] | int | None,
    frame_range: slice | None,
) -> Video:
    """Those of `frame_range` at `size`, of frames that are decoded already; None: all of them, as they are.

    They may have any size where another is asked for. `fps`: the rate of frames that come without one.
    """
    if isinstance(frames, Video):
        video = frames
    else:
        pixels, rate = _stacked(frames), _rate(fps)
        video = Video(pixels, rate, "")
    begin, end = _within(checked_range(frame_range), len(video), "the video")
    wanted = video.size if size is None else checked_size(size)
    if isinstance(wanted, int):
        wanted = working_size(*video.size, wanted)
    check_size(wanted)
    if (begin, end, wanted) != (0, len(video), video.size):
        pixels = video.frames[begin:end] if wanted == video.size else _resized(video.frames[begin:end], wanted)
        # Named by its own content: as a part of the whole it would have the whole analysed.
        video = replace(video.part(begin, end), frames=pixels, digest="", part_of=None)
    return video if video.digest else replace(video, digest=_digest_of(video.frames, video.fps))


def picture_of(picture: Any, name: str, ground: int = LIGHT) -> np.ndarray:
    """[H, W, 3] uint8 of a PIL image, over a `ground` of 0..255 where it is transparent, or of such an array.

    AdaFlowError for values on another scale, not black or white.
    """
    if isinstance(picture, Image.Image):
        if picture.mode == "F" or picture.mode.startswith("I"):  # which `convert` would clip
            raise AdaFlowError(f"{name} is a PIL image of mode {picture.mode}; scale it to 8 bits, as of mode RGB")
        if picture.has_transparency_data:  # as in files
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, (ground, ground, ground, 255)), picture)
        return np.asarray(picture.convert("RGB"))
    pixels = as_array(picture, name)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise AdaFlowError(
            f"{name} is {pixels.dtype} {pixels.shape}; give uint8 [H, W, 3]: height, width and 3 colours of 0 to 255"
        )
    return pixels


def as_array(values: Any, name: str) -> np.ndarray:
    """What numpy makes of an array of another library, such as a tensor; AdaFlowError where that is none of numbers."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as problem:  # as of rows that differ, or on a GPU
        raise AdaFlowError(f"{name} cannot be read as an array; give it as one of numpy ({problem})") from problem
    if array.dtype.kind not in "biuf" or not array.ndim:
        raise AdaFlowError(f"{name} is {type(values).__name__}, no picture; give an array of numpy")
    return array


def _stacked(frames: Any) -> np.ndarray:
    """[T, H, W, 3] uint8."""
    if isinstance(frames, Image.Image):
        raise AdaFlowError("the video is one picture; give a list of them, one for each frame")
    if hasattr(frames, "__array__"):
        pixels = as_array(frames, "the video")
    elif isinstance(frames, Iterable) and not isinstance(frames, (str, bytes)):
        found = [picture_of(frame, f"frame {t} of the video") for t, frame in enumerate(frames)]
        if len({frame.shape for frame in found}) != 1:
            raise AdaFlowError("the frames are none, or differ in size; give one or more of one size")
        pixels = np.stack(found)
    else:
        raise AdaFlowError(f"the video is {type(frames).__name__}; give a path, an array of frames or PIL images")
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or not len(pixels):
        raise AdaFlowError(f"frames are {pixels.dtype} {pixels.shape}; give uint8 [T, H, W, 3] with T at least 1")
    return pixels


def _rate(fps: float | Fraction) -> Fraction:
    try:
        rate = Fraction(fps if isinstance(fps, Fraction) else float(fps)).limit_denominator(1001)
    except (TypeError, ValueError, OverflowError):  # no number, not a number, infinite
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise AdaFlowError(f"fps is {fps}; it must lie above 0 and up to 1000")
    return rate


def _resized(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """[T, h, w, 3] uint8 of frames [T, H, W, 3], scaled as a file's are."""
    import av
    from av.video.reformatter import VideoReformatter

    from adaflow_core.video.pixels import FILTER

    scaler, out = VideoReformatter(), np.empty((len(frames), size[1], size[0], 3), np.uint8)
    for t, frame in enumerate(frames):
        whole = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        out[t] = scaler.reformat(whole, *size, "rgb24", interpolation=FILTER, threads=0).to_ndarray()
    return out


def thumbnails(path: str | Path, count: int, height: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """`count` small frames spread evenly over a file: numbers [N] and pictures [N, height, w, 3] uint8."""
    with Decoder(Path(path)) as decoder:
        info = decoder.probe()
        width = min(max(1, round(info.width * height / info.height)), MAX_SIDE)
        found = list(decoder.thumbnails(count, (width, height)))
    return np.array([number for number, _ in found], np.int64), np.stack([picture for _, picture in found])


def _digest_of(frames: np.ndarray, fps: Fraction) -> str:
    hasher = blake2b(digest_size=16)
    for frame in frames:
        hasher.update(np.ascontiguousarray(frame).data)
    return _digest(hasher, frames.shape, fps)


def _digest(hasher: Any, shape: tuple[int, ...], fps: Fraction) -> str:
    hasher.update(f"{shape} {fps}".encode())
    return str(hasher.hexdigest())
