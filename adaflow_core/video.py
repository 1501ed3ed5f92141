"""Video files in and out: probe, decode to the working size, write with the source's sound.

PyAV reads the frames that are edited. Measured on 900 frames of 1080p H.264 scaled to 896x512, two cores:
decord takes 3.0 s and 187 MB and comes within 38.6 dB of an ideally filtered frame (it scales bilinearly,
with the nearest chroma sample); PyAV with `reader.FILTER` takes 4.6 s and 96 MB at 48.1 dB. A range deep in
a file costs both the same, and decord ignores rotation, reads ahead 1.2 GB at full size and fails on AV1.
Where decord gains is exact frames scattered over a file (24 of those 900 in 1.6 s, PyAV 3.1 s): `thumbnails`
uses it. All reading takes place in a process with limits (`sandbox`, `decoding`).
"""

from __future__ import annotations

import os
import re
import uuid
import warnings
from collections.abc import Mapping, Sequence
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import Colorspace, Interpolation
from PIL import Image

from adaflow_core.reader import FILTER
from adaflow_core.sandbox import Decoder
from adaflow_core.store import Frames
from adaflow_core.types import AdaFlowError, Monitor, Video, VideoInfo

_CHUNK = 8  # frames between two looks at the stop signal
_MIN_SIDE, _MAX_SIDE = 64, 4096
_CLOSEST = 0.002  # seconds between two frames whose times are kept
_CLOCK = 90_000  # ticks a second in which uneven times are written
_LARGE = 4096 * 2304  # pixels above which it is said that a video is scaled down


# --- sizes and ranges -------------------------------------------------------------------------------


def working_size(width: int, height: int, target: int) -> tuple[int, int]:
    """(width, height) with the shorter side `target`, the aspect kept, both sides multiples of 64 or of 8.

    Multiples of 64 halve evenly all the way down a Stable Diffusion UNet; multiples of 8 are taken where
    those of 64 would change the aspect by more than 4 %.
    """
    if not _MIN_SIDE <= target <= _MAX_SIDE:
        raise AdaFlowError(f"size is {target}; the shorter side must lie between {_MIN_SIDE} and {_MAX_SIDE}")
    aspect = max(width, height) / min(width, height)
    for multiple in (64, 8):
        short = round(target / multiple) * multiple
        long = round(short * aspect / multiple) * multiple
        if abs(long / short / aspect - 1) <= 0.04:
            break
    return (long, short) if width >= height else (short, long)


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) of a text such as 896x512."""
    match = re.fullmatch(r"\s*(\d{1,5})\s*[xX]\s*(\d{1,5})\s*", text)
    if match is None:
        raise AdaFlowError(f"size is {text!r}; give it as WIDTHxHEIGHT, for example 512x512")
    size = int(match[1]), int(match[2])
    _check_size(size)
    return size


def parse_range(text: str) -> slice:
    """The slice of frames of a text such as 0:48, :48 or 48: (from 0, the end not included, as in Python)."""
    match = re.fullmatch(r"\s*(-?\d{1,9})?\s*:\s*(-?\d{1,9})?\s*", text)
    if match is None:
        raise AdaFlowError(f"frame range is {text!r}; give it as FIRST:END, for example 0:48")
    first, end = (None if part is None else int(part) for part in match.groups())
    begin = first or 0
    if end is not None and (begin < 0) == (end < 0) and begin >= end:
        raise AdaFlowError(f"frame range is {text!r}, which holds no frame; END must come after FIRST")
    return slice(first, end)


def _check_size(size: tuple[int, int]) -> None:
    if any(not _MIN_SIDE <= side <= _MAX_SIDE or side % 8 for side in size):
        near = "x".join(str(min(max(round(side / 8) * 8, _MIN_SIDE), _MAX_SIDE)) for side in size)
        raise AdaFlowError(
            f"size is {size[0]}x{size[1]}; both sides must be multiples of 8 "
            f"between {_MIN_SIDE} and {_MAX_SIDE}, for example {near}"
        )


# --- reading ----------------------------------------------------------------------------------------


def probe(path: str | Path) -> VideoInfo:
    """What is in a file: its header, checked against its packets, and one decoded frame."""
    with Decoder(Path(path)) as decoder:
        return decoder.probe()


def decode(
    path: str | Path,
    *,
    size: tuple[int, int] | int,
    frames: slice | None = None,
    monitor: Monitor | None = None,
    out: Path | None = None,
) -> Video:
    """The frames of a file, or of a folder of pictures, upright; in a memory map at `out` (.npy) if given.

    `size`: (width, height), or the shorter side, which `working_size` completes. The rate is the file's mean
    rate; `frames` is taken as Python takes a slice, of step 1.
    """
    if not isinstance(size, int):
        _check_size(size)
    path, monitor = Path(path), monitor or Monitor()
    notes: list[str] = []
    shown: list[float | None] = []
    with Decoder(path, monitor) as decoder:
        info = decoder.probe()
        if isinstance(size, int):
            size = working_size(info.width, info.height, size)
            _check_size(size)
        begin, end, _ = (frames or slice(None)).indices(info.frames)
        if begin >= end:
            raise AdaFlowError(f"the frame range holds no frame; {path.name} has the frames 0:{info.frames}")
        store = Frames(out, (size[1], size[0], 3), end - begin)
        hasher = blake2b(digest_size=16)
        with store, monitor.stage("decode", end - begin) as stage:
            for done, (shown_at, frame) in enumerate(decoder.frames(size, begin, end - begin), 1):
                store.append(frame)
                shown.append(shown_at)
                hasher.update(frame.data)
                if done % _CHUNK == 0:
                    stage.advance(_CHUNK)
            if store.length % _CHUNK:
                stage.advance(store.length % _CHUNK)
            if not store.length:
                raise AdaFlowError(f"{path.name} ends before frame {begin}; choose an earlier range")
            pixels = store.finish()
    if len(pixels) < end - begin:  # the container lists more: it is damaged, or cut short
        notes.append(f"{path.name} is damaged: {len(pixels)} of {end - begin} frames could be read")
    if info.width * info.height > _LARGE:
        notes.append(f"{path.name} is {info.width}x{info.height}; it is edited, and comes out, at {size[0]}x{size[1]}")
    digest = _digest(hasher, pixels.shape, info.fps)
    return Video(pixels, info.fps, digest, path, begin, _uneven(shown, info.fps), tuple(notes))


def _uneven(shown: list[float | None], fps: Fraction) -> tuple[float, ...] | None:
    """The frames' times in seconds, if they can be kept and are not those of an even rate, to half a frame."""
    times = np.array(shown, np.float64)  # nan where there is none
    if len(times) < 2 or not (np.diff(times) >= _CLOSEST).all():
        return None
    even = times[0] + np.arange(len(times)) / float(fps)
    return None if np.abs(times - even).max() < 0.5 / fps else tuple(times.tolist())


def from_frames(frames: np.ndarray | Sequence[Image.Image], fps: float | Fraction = 24) -> Video:
    """A video of [T, H, W, 3] uint8, or of PIL images of one size; sides must be multiples of 8."""
    if not isinstance(frames, np.ndarray):
        if len({image.size for image in frames}) != 1:
            raise AdaFlowError("the frames are none, or differ in size; give one or more of one size")
        frames = np.stack([np.asarray(image.convert("RGB")) for image in frames])
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise AdaFlowError(f"frames are {frames.dtype} {frames.shape}; give uint8 [T, H, W, 3] with T at least 1")
    _check_size((frames.shape[2], frames.shape[1]))
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
        width = min(max(1, round(info.width * height / info.height)), _MAX_SIDE)
        found = list(decoder.thumbnails(count, (width, height)))
    return np.array([number for number, _ in found], np.int64), np.stack([picture for _, picture in found])


def _digest(hasher: Any, shape: tuple[int, ...], fps: Fraction) -> str:
    hasher.update(f"{shape} {fps}".encode())
    return str(hasher.hexdigest())


# --- writing ----------------------------------------------------------------------------------------


def check_output(path: str | Path) -> Path:
    """Makes the folder of `path` and sees that it can be written to: to be asked before a long edit."""
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise AdaFlowError(f"output is {path}; its name must end in .mp4")
    check_folder(path)
    return path


def check_folder(path: Path) -> None:
    """Makes the folder of the file `path` and sees that it can be written to."""
    try:
        if path.is_dir():
            raise AdaFlowError(f"output {path} is a folder; name a file in it")
        path.parent.mkdir(parents=True, exist_ok=True)
        trial = path.with_name(f".{uuid.uuid4().hex}")
        trial.touch()
        trial.unlink()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AdaFlowError(f"cannot write {str(path)[:200]} ({reason}); choose another folder") from error


def write_video(
    path: str | Path,
    frames: np.ndarray,  # [T, H, W, 3] uint8
    fps: Fraction,
    *,
    audio_from: Path | None = None,
    start: int = 0,
    times: Sequence[float] | None = None,
    metadata: Mapping[str, str] | None = None,
    monitor: Monitor | None = None,
) -> Path:
    """H.264 (yuv420p, BT.709, faststart) with the sound of `audio_from` from its frame `start` on.

    The file appears under its name only when it is complete. A side of odd length gains one row or column,
    which yuv420p needs. `times`: seconds at which the frames are shown in `audio_from`, where the rate
    varies; they are kept. `metadata` takes the keys that mp4 knows: title, artist, comment, description.
    """
    path, monitor = check_output(path), monitor or Monitor()
    name = uuid.uuid4().hex
    part, sounding = path.with_name(f".{path.stem}.{name}.mp4"), path.with_name(f".{path.stem}.{name}.sound.mp4")
    try:
        with av.open(str(part), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            container.metadata.update(metadata or {})
            _encode(container, frames, fps, times, monitor)
        begin, length = Fraction(start) / fps, Fraction(len(frames)) / fps
        if times is not None:
            begin, length = Fraction(times[0]), Fraction(times[-1] - times[0]) + 1 / fps
        added = audio_from is not None and _add_sound(part, audio_from, sounding, begin, length, monitor)
        os.replace(sounding if added else part, path)
    except OSError as error:
        raise AdaFlowError(f"cannot write {path} ({error.strerror}); free space or choose another folder") from error
    finally:
        part.unlink(missing_ok=True)
        sounding.unlink(missing_ok=True)
    return path


def _add_sound(video: Path, source: Path, out: Path, begin: Fraction, length: Fraction, monitor: Monitor) -> bool:
    """Sound that cannot be read is warned of: an edit must not be lost over it."""
    if source.is_dir():
        return False
    try:
        with Decoder(source, monitor, may_write=True) as decoder:
            return decoder.add_sound(video, out, begin, length)
    except AdaFlowError as problem:
        warnings.warn(f"{problem}; written without the sound of {source.name}", stacklevel=3)
        return False


def _encode(
    container: OutputContainer, frames: np.ndarray, fps: Fraction, times: Sequence[float] | None, monitor: Monitor
) -> None:
    count, height, width = frames.shape[:3]
    stream = container.add_stream("libx264", rate=fps, options={"crf": "16", "preset": "medium"})
    stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
    context = stream.codec_context
    if times is not None:
        context.time_base = Fraction(1, _CLOCK)
    # Said in the file, so that no player guesses: BT.709 in limited range, by FFmpeg's numbers.
    context.colorspace, context.color_primaries, context.color_trc, context.color_range = 1, 1, 1, 1
    pad = ((0, height % 2), (0, width % 2), (0, 0))
    with monitor.stage("write", count) as stage:
        for part in stage.chunks(count, _CHUNK):
            for number in range(part.start, part.stop):
                picture = np.ascontiguousarray(np.pad(frames[number], pad, mode="edge"))
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                    format="yuv420p",
                    dst_colorspace=Colorspace.ITU709,
                    dst_color_range="MPEG",
                    interpolation=FILTER | Interpolation.FULL_CHR_H_INP,
                )
                frame.pts, frame.time_base = number, 1 / fps
                if times is not None:
                    frame.pts, frame.time_base = round((times[number] - times[0]) * _CLOCK), Fraction(1, _CLOCK)
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
