"""Opens a file that is not trusted, indexes its frames and decodes them.

Runs in the process of `worker`, which has limits and may die; the parent never opens such a file.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import chain, groupby, islice
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.filter import Graph
from av.video.stream import VideoStream

from adaflow_core.errors import AdaFlowError
from adaflow_core.progress import Monitor
from adaflow_core.video.coded.fields import whole_frames
from adaflow_core.video.pixels import MATRICES, is_hdr, is_transparent, orientation, transfer_of
from adaflow_core.video.types import CONVERT, VideoInfo

# Demuxers by FFmpeg's names. Without a list, a text file is a video (of its letters), and a playlist makes
# FFmpeg open whatever the playlist names.
CONTAINERS = "mov,matroska,webm,avi,gif,mpegts,mpeg,flv,asf,ogg,apng,yuv4mpegpipe,mxf,dv"
OPTIONS = {"format_whitelist": CONTAINERS, "protocol_whitelist": "file"}
RESTAMP = CONVERT.replace("-i", "-dts_delta_threshold 1 -i", 1)  # or it leaves a gap
_BACK, _FORWARD = 0.5, 10.0  # seconds by which a stream's clock may jump; as in FFmpeg, forward in MPEG-TS only
PARSED = ("mpeg1video", "mpeg2video", "mpeg4")  # FFmpeg sees which frames are reordered without decoding
_CLOCK_ERROR = 0.002  # seconds; an edit list has ticks of its own
_IN_A_PACKET = 250  # frames, at most
PACKETS = 5_000_000  # a day at 60 frames a second; a table of a header may name any number


@contextmanager
def open_video(path: Path, **options: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its video stream; AdaFlowError with the remedy if the file cannot be read."""
    try:
        # The absolute path, so that a name such as "concat:a" is not taken for a protocol.
        container = av.open(str(path.resolve()), options=OPTIONS | options, metadata_errors="replace")
    except (OSError, av.FFmpegError) as error:
        raise AdaFlowError(f"{path} is not a video that can be read; choose another file or {CONVERT}") from error
    with container:
        # The cover picture of a song is a video stream too.
        streams = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
        if not streams:
            raise AdaFlowError(f"{path} has no video stream; choose a file with pictures")
        stream = next((s for s in streams if s.disposition & s.disposition.default), streams[0])
        if stream.codec_context is None:
            raise AdaFlowError(f"{path} has a codec that is not known here; {CONVERT}")
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads()
        yield container, stream


class Index(NamedTuple):
    """When each frame is shown, from the packets alone: exact where a header and a mean rate are not."""

    length: int  # frames
    times: np.ndarray | None  # [length] int64 in the stream's time base, ascending; None: some have none
    keys: list[tuple[int, int]]  # (stamp, offset to seek to) of the frames that decoding can begin at
    base: Fraction = Fraction(0)  # seconds of a tick of the times
    first: float = 0.0  # seconds at which the first frame is shown
    last_seconds: float | None = None  # for which the last frame is shown
    stamps: np.ndarray | None = None  # [length] int64 FFmpeg's times, ascending; None: they are the same
    counted: bool = False  # the stamps are not in the order of the frames: its number tells when a frame is shown
    container: str = ""  # FFmpeg's name for its kind
    apart: bool = False  # each frame is a file of its own

    def by_stamps(self) -> Index:
        """With FFmpeg's times, by which it seeks; some may be wrong by a few frames."""
        return self if self.stamps is None else self._replace(times=self.stamps, stamps=None, counted=False)

    def key_within(self, begin: int, end: int) -> bool:
        """Whether decoding can begin at one of the frames begin..end, both included."""
        stamps = self.by_stamps().times
        if stamps is None:
            return self.apart
        low, high = int(stamps[begin]), int(stamps[end])
        return any(low <= time <= high for time, _ in self.keys)

    def misses(self, number: int, frame: av.VideoFrame) -> bool:
        """Whether `frame`, decoded in the place of this number, is a later one: it could not be decoded."""
        if self.times is None or frame.time is None or number + 1 >= self.length:
            return False
        time = round(frame.time / self.base)
        return time > int(self.times[number]) and time >= int(self.times[number + 1])

    def seconds_of(self, frame: av.VideoFrame) -> float | None:
        """For which a frame is shown, where that is known."""
        if self.times is None or frame.time is None:
            return None
        number = int(np.searchsorted(self.times, round(frame.time / self.base), "right"))
        return self.last_seconds if number == self.length else float(int(self.times[number]) * self.base) - frame.time


class _Track(NamedTuple):
    """What a header says of the video stream."""

    container: str
    codec: str
    reorders: bool  # whether frames may be shown in another order than they are decoded in
    base: Fraction
    duration: int | None
    end: int
    packets: int  # 0: it does not say

    @classmethod
    def of(cls, container: InputContainer, stream: VideoStream) -> _Track:
        end = (stream.start_time or 0) + (stream.duration or 0)
        return cls(
            container.format.name.partition(",")[0], codec_name(stream), bool(stream.codec_context.has_b_frames),
            stream.time_base or Fraction(0), stream.duration, end, stream.frames,
        )  # fmt: skip


_NO_TRACK = _Track("", "", False, Fraction(0), None, 0, 0)


class _Packets:
    """What the packets of a stream say of its frames. Those before the first key frame are left out."""

    def __init__(self, path: Path, track: _Track) -> None:
        self.path, self.track = path, track
        self.times: list[int | None] = []  # of the frames, in the order of decoding
        self.dts: list[int | None] = []
        self.keys: list[tuple[int, int]] = []  # as `Index.keys`, not sorted
        self.seen = 0
        self.corrupt = False  # the last of them
        self.edited = False  # whether frames lie outside an edit list
        self._left = False  # whether that are some behind its end
        self._earliest: int | None = None  # stamp of the first key frame
        self._last_dts: int | None = None
        self._shown_last, self._decoded_last = (-(2**63), 0), 0  # stamp and duration; duration
        self._first: tuple[int, int | None] | None = None  # stamp and place in the file, of the first frame shown
        self._last: tuple[int, int | None] | None = None  # of the last one decoded

    @property
    def ends(self) -> tuple[tuple[int, int | None], tuple[int, int | None]] | None:
        """Stamps and places in the file of the frame that is shown first and of the one that is decoded last."""
        return (self._first, self._last) if self._first and self._last else None

    @property
    def last_stamp(self) -> int:
        """Of the frame that is shown last."""
        return self._shown_last[0]

    @property
    def last_ticks(self) -> int:
        """For which the last frame is shown, by its packet or by that which is decoded last; 0: they do not say."""
        return max(self._shown_last[1], self._decoded_last)

    def add(self, packet: av.Packet) -> None:
        """The next one of the stream; AdaFlowError for a file whose frames have no certain times."""
        if not packet.size:
            return
        self.seen, self.corrupt = self.seen + 1, packet.is_corrupt
        if packet.is_discard:
            self._add_outside(packet)
            return
        time = packet.pts
        if self._left:  # FFmpeg errs there by several frames
            raise _joined(self.path)
        if packet.dts is not None:
            _check_clock(self.path, self.track, self._last_dts, packet.dts, len(self.times))
            self._last_dts = packet.dts
        if packet.is_keyframe and time is not None:
            if not self.keys and self.times:
                self.times, self.dts, self._first, self._earliest = [], [], None, time
            self._add_key(time, packet.dts)
        if self._earliest is not None and time is not None and time < self._earliest:
            return
        if len(self.times) == PACKETS:
            raise AdaFlowError(f"{self.path} claims more than {PACKETS} frames; cut it into parts")
        self.times.append(time)
        self.dts.append(packet.dts)
        if time is not None:
            self._shown_last = max(self._shown_last, (time, packet.duration or 0))
            self._decoded_last = packet.duration or 0
            self._last = time, packet.pos
            self._first = self._last if self._first is None or time < self._first[0] else self._first

    def _add_outside(self, packet: av.Packet) -> None:
        """One outside an edit list: what is shown may be decoded from it."""
        self.edited, self._left = True, self._left or (packet.is_keyframe and bool(self.times))
        if packet.is_keyframe and packet.pts is not None and not self.times:
            self._earliest = packet.pts
            self._add_key(packet.pts, packet.dts)

    def _add_key(self, time: int, dts: int | None) -> None:
        self.keys.append((time, time if dts is None else dts))


def index_of(path: Path, monitor: Monitor) -> Index:
    """Reads every packet and decodes none. Frames before the first key frame are left out: they cannot be decoded."""
    packets, whole = _Packets(path, _NO_TRACK), False  # whether no error ended them
    with open_video(path) as (container, stream), suppress(av.FFmpegError):  # a damaged file: up to the damage
        packets = _Packets(path, _Track.of(container, stream))
        for packet in whole_frames(container.demux(stream), stream):
            monitor.check()
            packets.add(packet)
        whole = not packets.corrupt
    track, length = packets.track, len(packets.times)
    shown, stamps, counted = _shown(path, track, packets.times, packets.dts)
    late, cut = _cut(path, track, *packets.ends) if packets.ends and track.container == "mov" else (0, False)
    if late and shown is not None:
        shown, stamps = shown + late, shown
    known = _known(packets.times)
    first = float((known[0] if shown is None else shown[0]) * track.base) if len(known) else 0.0
    told = max(0, track.end - late - packets.last_stamp) if whole else 0
    parted, reordered = packets.edited or cut, track.reorders and track.container == "mov"
    header = told if parted or (reordered and packets.seen >= track.packets) else 0
    seconds = float(_last_ticks(known, packets.last_ticks, header, parted) * track.base) or None
    return Index(length, shown, sorted(packets.keys), track.base, first, seconds, stamps, counted, track.container)


def _last_ticks(known: np.ndarray, packet: int, header: int, parted: bool) -> int:
    """For which the last frame is shown, by its packet and by the header, which counts where it says something.

    Where frames are reordered, an mp4 has the time for which the last one stands at the packet that is decoded last.
    What is cut off by an edit list, or decoded long before, only a header tells; that of a file that breaks off tells
    of the whole.
    """
    usual = int(np.median(np.diff(known))) if len(known) > 1 else 0  # what is shorter may be a field
    return header if header and parted else max(header or packet, usual)


def _check_clock(path: Path, track: _Track, before: int | None, now: int, number: int) -> None:
    step = 0 if before is None else (now - before) * track.base
    if step < -_BACK or (step > _FORWARD and track.container == "mpegts"):
        raise AdaFlowError(f"the clock of {path} jumps by {float(step):+.1f} s at frame {number}; {RESTAMP}")


def _known(times: list[int | None]) -> np.ndarray:
    return np.sort(np.array([time for time in times if time is not None], dtype=np.int64))


def _shown(
    path: Path, track: _Track, times: list[int | None], dts: list[int | None]
) -> tuple[np.ndarray | None, np.ndarray | None, bool]:
    """`Index.times`, `stamps` and `counted`: FFmpeg makes up times that a container does not have."""
    stamps, slots = _known(times), _known(dts)
    if len(stamps) < len(times) or not times:
        return None, None, False
    if track.container == "mpeg":
        shown = _one_each(stamps)
        return (stamps, None, False) if shown is stamps else (shown, stamps, True)
    if len(slots) < len(stamps):
        return stamps, None, False
    in_turn = track.codec not in PARSED and bool((np.array(times) == stamps).all())  # maybe made up from the slots
    counted = in_turn and track.reorders
    if track.container == "avi":  # each packet has a slot, and a frame comes of each
        return slots, stamps, counted or (track.reorders and bool(np.ptp(stamps - slots)))
    if track.container == "mxf" and counted:
        return slots, stamps, True
    if track.container == "asf" and in_turn:  # FFmpeg writes there when to decode: a frame is shown when it comes out
        depth = _depth(path) if counted else 0
        after = slots[-1] + (slots[-1] - slots[0]) // max(1, len(slots) - 1) * np.arange(1, depth + 1)
        return np.append(slots[depth:], after), stamps, counted
    return stamps, None, False


def _one_each(stamps: np.ndarray) -> np.ndarray:
    """Times of which some are left out and others are there twice, with the frames between moved; else the same array.

    A packet of a program stream stamps the first frame that begins in it; where a frame's start code lies across two
    packets, FFmpeg gives the stamp to the frame before.
    """
    gaps = np.diff(stamps)
    frame = np.median(gaps) if len(gaps) else 0
    if frame <= 0:
        return stamps
    steps = np.rint(gaps / frame).astype(int)
    moved = np.zeros(len(stamps), int)  # frames
    unpaired: list[tuple[int, int]] = []  # places, and frames that are missing there (or too many)
    for place in map(int, np.flatnonzero(steps != 1)):
        missing = int(steps[place]) - 1
        while missing and unpaired and unpaired[-1][1] * missing < 0 and place - unpaired[-1][0] <= _IN_A_PACKET:
            begin, other = unpaired.pop()
            one = 1 if other > 0 else -1
            moved[begin + 1 : place + 1] -= one
            missing, other = missing + one, other - one
            if other:
                unpaired.append((begin, other))
        if missing:
            unpaired.append((place, missing))
    for place, missing in unpaired:
        if missing < 0 and len(stamps) - place <= _IN_A_PACKET:  # the end has no stamp of its own
            moved[place + 1 :] -= missing
    return stamps + np.rint(moved * frame).astype(np.int64) if moved.any() else stamps


def _depth(path: Path) -> int:
    """How many packets more than one a decoder has to see before it gives a frame."""
    with open_video(path) as (container, stream), suppress(av.FFmpegError):
        stream.codec_context.thread_count = 1
        for number, packet in enumerate(container.demux(stream)):
            if packet.decode():
                return number
    return 0


def _cut(path: Path, track: _Track, first: tuple[int, int | None], last: tuple[int, int | None]) -> tuple[int, bool]:
    """Ticks by which an mp4's frames are shown after their stamps; whether an edit list cuts something off.

    `first` and `last` are the stamps of two frames and their places in the file. Where an edit list begins within a
    frame, FFmpeg shows the next one at 0 (`mov_fix_index`), but not the sound. With its simpler reading of edit lists,
    which cuts nothing off, both keep their distance.
    """
    with open_video(path, advanced_editlist="0") as (container, stream), suppress(av.FFmpegError):
        whole, late = stream.duration, None
        for stamp, place in (first, last):
            if late is not None:
                container.seek(stamp + late, stream=stream)
            for packet in container.demux(stream):
                if packet.size and packet.pos == place and packet.pts is not None:
                    if late is not None and abs(packet.pts - stamp - late) * track.base > _CLOCK_ERROR:
                        raise _joined(path)
                    late = packet.pts - stamp if late is None else late
                    break
        return late or 0, whole != track.duration
    return 0, False


def _joined(path: Path) -> AdaFlowError:
    return AdaFlowError(f"{path} is joined from several parts by its edit list; export it as a new file first")


def frames_from(path: Path, index: Index, begin: int, monitor: Monitor) -> Generator[av.VideoFrame, None, None]:
    """Decoded frames from number `begin` on, in the order of display."""
    stamps = index.by_stamps().times
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
        yield from _as_shown(islice(frames, begin, None), index, begin)


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


def codec_name(stream: VideoStream) -> str:
    """The codec, not the decoder: "av1" for libdav1d."""
    return stream.codec_context.codec.canonical_name


THREADS = 8  # each holds frames of its own


def threads() -> int:
    return min(THREADS, os.cpu_count() or 1)
