"""Videos out: H.264 with the source's sound."""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import Colorspace, Interpolation

from adaflow_core.errors import AdaFlowError
from adaflow_core.progress import Monitor
from adaflow_core.storage.digests import quick_digest
from adaflow_core.video.client import Decoder
from adaflow_core.video.coded.container import index_in_front
from adaflow_core.video.pixels import FILTER

_CHUNK = 8  # frames between two looks at the stop signal
_PIXELS = 4  # in a byte of a film that is hard to compress
_CLOCK = 90_000  # ticks a second in which uneven times are written


class Pictures(Protocol):
    """Frames [T, H, W, 3] uint8 one after another: an array, or what makes each when it is asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __iter__(self) -> Iterator[np.ndarray]: ...


def check_output(path: str | Path, source: Path | None = None) -> Path:
    """Make the folder of `path` and check that it can be written to, before a long edit of `source`."""
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise AdaFlowError(f"output is {path}; its name must end in .mp4")
    check_folder(path)
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise AdaFlowError(f"output {path} is the source itself; choose another name")
    return path


def check_folder(path: Path) -> None:
    """Make the folder of the file `path`, and check that files can be made there and this one be written."""
    try:
        real = path.resolve()  # RuntimeError: links in a circle
        if real.exists() and not real.is_file():
            raise AdaFlowError(f"output {path} is a folder or a device; name a file")
        real.parent.mkdir(parents=True, exist_ok=True)
        trial = real.with_name(f".{uuid.uuid4().hex}")
        trial.touch()
        trial.unlink()
        fresh = not real.exists()
        real.open("ab").close()
        if fresh:
            real.unlink()
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AdaFlowError(f"cannot write {str(path)[:200]} ({reason}); choose another folder or name") from error


def write_video(
    path: str | Path,
    frames: Pictures,
    fps: Fraction,
    *,
    audio_from: Path | None = None,
    audio_digest: str = "",
    start: int = 0,
    times: Sequence[float] | None = None,
    transfer: int = 1,
    metadata: Mapping[str, str] | None = None,
    monitor: Monitor | None = None,
) -> Path:
    """H.264 (yuv420p, BT.709, its index in front) with the sound of `audio_from` from its frame `start` on.

    The file appears under its name only when it is complete. A side of odd length gains one row or column, which
    yuv420p needs. `times` [T + 1] and `transfer`: as in `Video`. `metadata`: mp4's keys title, artist, comment,
    description. `audio_digest`: `quick_digest` of `audio_from` when `frames` were edited; where the file has another by
    now, its sound is left out. Where the sound is lost, the `monitor` is told, else there is a warning.
    """
    told, path, monitor = monitor is not None, check_output(path, audio_from), monitor or Monitor()
    real = path.resolve()  # absolute, so that FFmpeg takes no part of a name for a protocol
    part, sounding = (real.with_name(f".{uuid.uuid4().hex}.mp4") for _ in range(2))
    try:
        options = index_in_front(np.prod(frames.shape[:3]) / _PIXELS, frames.shape[0])
        with av.open(str(part), "w", format="mp4", options=options) as container:
            container.metadata.update(metadata or {})
            _encode(container, frames, fps, times, transfer, monitor)
        begin, length = Fraction(start) / fps, Fraction(frames.shape[0]) / fps
        if times is not None:
            begin, length = Fraction(times[0]), Fraction(times[-1] - times[0])
        added = False
        if audio_from is not None and _is_the_same(audio_from, audio_digest, monitor):
            added = _add_sound(part, audio_from, sounding, begin, length, monitor)
        os.replace(sounding if added else part, real)
    except (OSError, av.FFmpegError) as error:
        raise AdaFlowError(f"cannot write {path} ({error.strerror}); free space or choose another folder") from error
    finally:
        part.unlink(missing_ok=True)
        sounding.unlink(missing_ok=True)
    if not told:
        for sentence in monitor.notes:
            warnings.warn(sentence, stacklevel=2)
    return path


def _is_the_same(source: Path, digest: str, monitor: Monitor) -> bool:
    """Whether a file is the one with `digest`, as far as that is known; of another one there is a note."""
    try:
        if not digest or not source.is_file() or quick_digest(source) == digest:
            return True
    except OSError:
        return True  # `_add_sound` says that it cannot be read
    monitor.note(f"{source} is not what it was when the edit was planned; written without its sound")
    return False


def _add_sound(video: Path, source: Path, out: Path, begin: Fraction, length: Fraction, monitor: Monitor) -> bool:
    """Whether sound was added; of unreadable sound there is only a note, so that the edit is not lost."""
    if source.is_dir():
        return False
    try:
        with Decoder(source, monitor, may_write=True) as decoder:
            return decoder.add_sound(video, out, begin, length)
    except AdaFlowError as problem:
        monitor.note(f"{problem}; written without the sound of {source.name}")
        return False


def _encode(
    container: OutputContainer,
    frames: Pictures,
    fps: Fraction,
    times: Sequence[float] | None,
    transfer: int,
    monitor: Monitor,
) -> None:
    count, height, width = frames.shape[:3]
    # Without `cpu-independent`, x264's AVX-512 code for mbtree reads memory that nothing was written to wherever the
    # width is no multiple of 256: the same frames become other bytes from run to run (seen with x264 165, PyAV 18.1).
    options = {"crf": "16", "preset": "medium", "x264-params": "cpu-independent=1"}
    if times is not None:
        options["bf"] = "0"  # an mp4 has durations in the order of decoding: reordered frames would have each other's
    stream = container.add_stream("libx264", rate=fps, options=options)
    stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
    context = stream.codec_context
    if times is not None:
        context.time_base = Fraction(1, _CLOCK)
    # Declared, so that no player guesses: BT.709 in limited range, by FFmpeg's numbers.
    context.colorspace, context.color_primaries, context.color_trc, context.color_range = 1, 1, transfer, 1
    pad = ((0, height % 2), (0, width % 2), (0, 0))
    ticks = None if times is None else [round((time - times[0]) * _CLOCK) for time in times]

    def mux(packets: list[av.Packet]) -> None:
        for packet in packets:
            if ticks is not None and packet.pts == ticks[-2]:  # the encoder knows no end
                packet.duration = ticks[-1] - ticks[-2]
            container.mux(packet)

    with monitor.stage("write", count) as stage:
        pictures = iter(frames)
        for part in stage.chunks(count, _CHUNK):
            for number in range(part.start, part.stop):
                picture = np.ascontiguousarray(np.pad(next(pictures), pad, mode="edge"))
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                    format="yuv420p",
                    dst_colorspace=Colorspace.ITU709,
                    dst_color_range="MPEG",
                    interpolation=FILTER | Interpolation.FULL_CHR_H_INP,
                )
                frame.pts, frame.time_base = number, 1 / fps
                if ticks is not None:
                    frame.pts, frame.time_base = ticks[number], Fraction(1, _CLOCK)
                mux(stream.encode(frame))
        mux(stream.encode(None))
