"""Videos out: H.264 with the source's sound."""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import Colorspace, Interpolation

from adaflow_core.errors import AdaFlowError
from adaflow_core.progress import Monitor
from adaflow_core.video.client import Decoder
from adaflow_core.video.reader import FILTER

_CHUNK = 8  # frames between two looks at the stop signal
_CLOCK = 90_000  # ticks a second in which uneven times are written


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
