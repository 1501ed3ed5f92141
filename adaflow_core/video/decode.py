"""Videos in: probe a file, decode it to the working size, or take frames as they are.

PyAV decodes the frames that are edited. Measured on 900 frames of 1080p H.264 scaled to 896x512, two cores: decord
takes 3.0 s and 187 MB at 38.6 dB to an ideally filtered frame (bilinear, nearest chroma sample), PyAV with
`pixels.FILTER` 4.6 s and 96 MB at 48.1 dB. decord ignores rotation, reads ahead 1.2 GB at full size and fails on AV1,
but is faster at exact frames scattered over a file (24 of those 900 in 1.6 s, PyAV 3.1 s), so `thumbnails` uses it.
All reading takes place in a process with limits (`client`, `worker`).
"""

from __future__ import annotations

from collections.abc import Sequence
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
from adaflow_core.video.types import MAX_SIDE, Video, VideoInfo, check_size, working_size

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
    monitor: Monitor | None = None,
    out: Path | None = None,
) -> Video:
    """The frames of a file, or of a folder of pictures, upright; in a memory map at `out` (.npy) if given.

    `size`: (width, height), or the shorter side, which `working_size` completes. The rate is the file's mean rate;
    `frames` is a Python slice of step 1.
    """
    if not isinstance(size, int):
        check_size(size)
    path, monitor = Path(path), monitor or Monitor()
    times: list[float | None] = []
    durations: list[float | None] = []
    with Decoder(path, monitor) as decoder:
        info = decoder.probe()
        if isinstance(size, int):
            size = working_size(info.width, info.height, size)
            check_size(size)
        begin, end, _ = (frames or slice(None)).indices(info.frames)
        if begin >= end:
            raise AdaFlowError(f"the frame range holds no frame; {path.name} has the frames 0:{info.frames}")
        notes = list(info.notes)
        store = Frames(out, (size[1], size[0], 3), end - begin)
        hasher = blake2b(digest_size=16)
        with store, monitor.stage("decode", end - begin) as stage:
            for time, duration, frame in decoder.frames(size, begin, end - begin):
                store.append(frame)
                times.append(time)
                durations.append(duration)
                hasher.update(frame.data)
                if store.length % _CHUNK == 0:
                    stage.advance(_CHUNK)
            if store.length % _CHUNK:
                stage.advance(store.length % _CHUNK)
            if not store.length:
                raise AdaFlowError(f"{path.name} ends before frame {begin}; choose an earlier range")
            pixels = store.finish()
    if len(pixels) < end - begin:  # the container lists more: it is damaged, or cut short
        notes.append(f"{path.name} is damaged: {len(pixels)} of {end - begin} frames could be read")
    digest = _digest(hasher, pixels.shape, info.fps)
    uneven = _uneven_times(times, durations[-1], info.fps, begin)
    return Video(pixels, info.fps, digest, path, begin, uneven, tuple(notes), info.transfer)


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


def from_frames(frames: np.ndarray | Sequence[Image.Image], fps: float | Fraction = 24) -> Video:
    """A video of [T, H, W, 3] uint8, or of PIL images of one size; sides must be multiples of 8."""
    if not isinstance(frames, np.ndarray):
        if len({image.size for image in frames}) != 1:
            raise AdaFlowError("the frames are none, or differ in size; give one or more of one size")
        frames = np.stack([np.asarray(image.convert("RGB")) for image in frames])
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise AdaFlowError(f"frames are {frames.dtype} {frames.shape}; give uint8 [T, H, W, 3] with T at least 1")
    check_size((frames.shape[2], frames.shape[1]))
    if not 0 < fps <= 1000:
        raise AdaFlowError(f"fps is {fps}; it must lie above 0 and up to 1000")
    rate = Fraction(fps).limit_denominator(1001)
    hasher = blake2b(digest_size=16)
    for frame in frames:
        hasher.update(np.ascontiguousarray(frame).data)
    return Video(frames, rate, _digest(hasher, frames.shape, rate))


def thumbnails(path: str | Path, count: int, height: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """`count` small frames spread evenly over a file: numbers [N] and pictures [N, height, w, 3] uint8."""
    with Decoder(Path(path)) as decoder:
        info = decoder.probe()
        width = min(max(1, round(info.width * height / info.height)), MAX_SIDE)
        found = list(decoder.thumbnails(count, (width, height)))
    return np.array([number for number, _ in found], np.int64), np.stack([picture for _, picture in found])


def _digest(hasher: Any, shape: tuple[int, ...], fps: Fraction) -> str:
    hasher.update(f"{shape} {fps}".encode())
    return str(hasher.hexdigest())
