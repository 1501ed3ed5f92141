"""When each frame of a file is shown, and where decoding can begin: the index, made of packets alone."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from adaflow_core.errors import AdaFlowError
from adaflow_core.progress import Monitor
from adaflow_core.video.coded.container import codec_name, open_video
from adaflow_core.video.coded.fields import whole_frames
from adaflow_core.video.coded.remedies import RESTAMP

_BACK, _FORWARD = 0.5, 10.0  # seconds by which a stream's clock may jump; as in FFmpeg, forward in MPEG-TS only
_PARSED = ("mpeg1video", "mpeg2video", "mpeg4")  # FFmpeg sees which frames are reordered without decoding
_CLOCK_ERROR = 0.002  # seconds; an edit list has ticks of its own
_IN_A_PACKET = 250  # frames, at most
_MOST_PACKETS = 5_000_000  # a day at 60 frames a second; a table of a header may name any number


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

    def number_of(self, frame: av.VideoFrame, least: int) -> int:
        """The number of a decoded frame, `least` or a later one: those between cannot be decoded.

        Without times it is `least`. Of several frames with one time the first is meant.
        """
        least = min(least, self.length - 1)
        if self.times is None or frame.time is None:
            return least
        time = round(frame.time / self.base)
        begun = int(np.searchsorted(self.times, time, "right")) - 1
        return least if begun <= least else max(least, int(np.searchsorted(self.times, self.times[begun])))

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
        if len(self.times) == _MOST_PACKETS:
            raise AdaFlowError(f"{self.path} claims more than {_MOST_PACKETS} frames; cut it into parts")
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
    in_turn = track.codec not in _PARSED and bool((np.array(times) == stamps).all())  # maybe made up from the slots
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
