"""Decodes a file that is not trusted, and says what is in it.

Runs in the process of `worker`, which has limits and may die; the parent never opens such a file.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import chain, groupby, islice
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.filter import Graph
from av.video.stream import VideoStream

from adaflow_core.errors import AdaFlowError
from adaflow_core.progress import Monitor
from adaflow_core.video.coded.container import codec_name, open_video
from adaflow_core.video.coded.index import Index
from adaflow_core.video.coded.remedies import CONVERT
from adaflow_core.video.pixels import MATRICES, is_hdr, is_transparent, orientation, transfer_of
from adaflow_core.video.types import VideoInfo


def frames_from(path: Path, index: Index, begin: int, monitor: Monitor) -> Generator[av.VideoFrame, None, None]:
    """Decoded frames from number `begin` on, in the order of display; those that cannot be decoded are left out."""
    by_stamps = index.by_stamps()
    stamps = by_stamps.times
    if begin and stamps is not None and not index.counted:
        first = int(stamps[begin])
        offset = next((offset for time, offset in reversed(index.keys) if time <= first), None)
        with open_video(path) as (container, stream):
            frames: Iterator[av.VideoFrame] = iter(())
            with suppress(av.FFmpegError):  # it cannot be sought: a short program stream
                if offset is not None:
                    container.seek(offset, stream=stream)
                frames = decode_packets(container, stream, monitor)
            frame = next((f for f in frames if f.pts is not None and f.pts >= first), None)
            if frame is not None and frame.pts == first:
                same = begin - int(np.searchsorted(stamps, first))  # frames before it with its stamp
                yield from _as_shown(islice(chain([frame], frames), same, None), index, begin)
                return
    with open_video(path) as (container, stream):  # from the start, and where seeking missed (MPEG-TS may)
        frames = decode_packets(container, stream, monitor)
        if stamps is not None:  # what a decoder makes of frames before the first key frame is broken
            earliest = int(stamps[0])
            frames = (frame for frame in frames if frame.pts is None or frame.pts >= earliest)
        left = islice(frames, begin, None) if index.counted else _numbered_from(begin, frames, by_stamps)
        yield from _as_shown(left, index, begin)


def _numbered_from(begin: int, frames: Iterator[av.VideoFrame], index: Index) -> Iterator[av.VideoFrame]:
    """The frames whose number in the file is `begin` or more: to count them is not enough where some are missing."""
    number = -1
    for frame in frames:
        number = index.number_of(frame, number + 1)
        if number >= begin:
            yield frame


def _as_shown(frames: Iterator[av.VideoFrame], index: Index, begin: int) -> Iterator[av.VideoFrame]:
    """With the times of the index, where FFmpeg's are others."""
    if index.stamps is None or index.times is None:
        yield from frames
        return
    number = begin - 1
    for frame in frames:
        number += 1
        if not index.counted and frame.pts is not None:  # one that cannot be decoded may be missing
            number = max(number, int(np.searchsorted(index.stamps, frame.pts)))
        frame.pts = int(index.times[min(number, index.length - 1)])
        yield frame


def decode_packets(container: InputContainer, stream: VideoStream, monitor: Monitor) -> Iterator[av.VideoFrame]:
    """Every frame that can be decoded; damaged packets are passed over."""
    with _skip_damage():  # the container breaks off: what came before is kept
        for packet in container.demux(stream):
            monitor.check()
            with _skip_damage():
                yield from packet.decode()


@contextmanager
def _skip_damage() -> Iterator[None]:
    try:
        yield
    except MemoryError:  # PyAV's is an FFmpegError too, but no damage of the file
        raise
    except av.FFmpegError:
        pass


def progressive(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """The same frames without the combs of those that are interlaced (bwdif, a frame for a frame).

    Telecine and recordings have both kinds. A filter takes frames of one size and format only.
    """
    for _, alike in groupby(frames, lambda frame: (frame.width, frame.height, frame.format.name)):
        yield from _of_one_kind(alike)


def _of_one_kind(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """`progressive` for frames of one size and format."""
    before = None
    for frame in frames:
        if frame.interlaced_frame:
            yield from _deinterlaced(before, frame, frames)
            return
        yield frame
        before = frame


def _deinterlaced(
    before: av.VideoFrame | None, first: av.VideoFrame, frames: Iterator[av.VideoFrame]
) -> Iterator[av.VideoFrame]:
    """Frames from the first interlaced one on; what comes `before` it tells its motion."""
    graph, known = Graph(), [] if before is None else [before]
    unseen = len(known)
    graph.link_nodes(
        graph.add_buffer(
            width=first.width, height=first.height, format=first.format, time_base=first.time_base or Fraction(1, 25)
        ),
        graph.add("bwdif", "mode=send_frame:deint=interlaced"),
        graph.add("buffersink"),
    ).configure()  # fmt: skip
    for frame in chain(known, [first], frames, [None]):  # None: no more
        graph.push(frame)
        with suppress(av.BlockingIOError, av.EOFError):  # it wants more, or it is done
            while True:
                made = graph.pull()
                assert isinstance(made, av.VideoFrame)
                if unseen:
                    unseen -= 1
                    continue
                yield made


def probe(path: Path, index: Index, monitor: Monitor) -> VideoInfo:
    """What is in a file: its header, checked against its packets, and one decoded frame."""
    with open_video(path) as (container, stream):
        frame = next(decode_packets(container, stream, monitor), None)
        if frame is None:
            raise AdaFlowError(f"{path} has no readable frame ({codec_name(stream)}); choose another file or {CONVERT}")
        if frame.colorspace not in MATRICES:
            raise AdaFlowError(
                f"{path} has a colour matrix that is not supported (number {frame.colorspace} of ITU-T H.273); convert "
                "it with: ffmpeg -i INPUT -vf zscale=matrix=709,format=yuv420p OUTPUT.mp4"
            )
        width = round(frame.width * float(stream.sample_aspect_ratio or 1))  # anamorphic pixels made square
        size = (frame.height, width) if orientation(frame)[0] else (width, frame.height)
        fps = _rate(stream, index)
        seconds = float(index.length / fps)
        if index.times is not None and stream.time_base:
            seconds = float((index.times[-1] - index.times[0]) * stream.time_base)
            seconds += index.last_seconds or float(1 / fps)
        notes = notes_on_colours(path.name, frame)
        if stream.metadata.get("alpha_mode") == "1":  # of WebM, in a stream beside the picture
            notes.append(f"{path.name} is transparent, which is not read; its colours are shown all over")
        if left_out := _left_out(len(container.streams.audio), len(container.streams.subtitles)):
            notes.append(f"{path.name} has {left_out}")
        rotation, has_audio = -frame.rotation % 360, bool(container.streams.audio)
        codec, transfer, pixels = codec_name(stream), transfer_of(frame), frame.format.name
        return VideoInfo(
            path, *size, fps, index.length, seconds, codec, rotation, has_audio, tuple(notes), transfer, pixels
        )


def notes_on_colours(name: str, frame: av.VideoFrame) -> list[str]:
    """Sentences on what decoding changes in the colours of a file, by one of its frames."""
    notes = []
    if is_hdr(frame):
        notes.append(f"{name} is HDR; it was tone-mapped to standard range (BT.709)")
    elif (bits := frame.format.components[0].bits) > 8:
        notes.append(f"{name} has {bits} bits a colour; it comes out with 8")
    if is_transparent(frame):
        notes.append(f"{name} is transparent; it was laid over white")
    return notes


def _left_out(audio: int, subtitles: int) -> str:
    """What of so many tracks is not in what is written; "": nothing."""
    parts = [f"{audio} audio tracks, of which the default one is kept"] if audio > 1 else []
    return ", and ".join(parts + ["subtitles, which are left out"] * bool(subtitles))


def _rate(stream: VideoStream, index: Index) -> Fraction:
    """Frames a second: the header's rate, which is the more exact, if the packets agree with it; else their mean."""
    declared = [rate for rate in (stream.average_rate, stream.guessed_rate) if rate]
    rate = declared[0] if declared else Fraction(25)
    if index.times is not None and stream.time_base and (span := int(index.times[-1] - index.times[0])) > 0:
        mean = (index.length - 1) / (span * stream.time_base)
        rate = next((rate for rate in declared if 0.95 < mean / rate < 1.05), mean)
    return rate.limit_denominator(1001) or rate
