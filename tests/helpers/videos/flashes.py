"""Films of which flashes and tones begin together, of any structure: clocks, edit lists, tracks, turns.

`Structure.drawn` draws one from a seed, `Structure.write` makes the file; `measured.py` says what is seen and heard.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

TONE = 0.1  # seconds that a flash and its tone last
SIZE = (96, 64)
CORNERS = np.array([[[200, 30, 30], [30, 200, 30]], [[30, 30, 200], [200, 200, 30]]], np.uint8)
# Display matrices (a b, c d): all turns and flips.
TURNS = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]
RATES = [Fraction(n) for n in (10, 15, 24, 25, 30, 50, 60)] + [Fraction(24000, 1001), Fraction(30000, 1001)]
CONTAINERS = {  # suffix: video codecs, audio codecs, ticks a second of uneven frames (0: even only)
    "mp4": (["libx264", "mpeg4"], ["aac", "libmp3lame", "aac", "ac3"], 60000),
    "mov": (["libx264"], ["aac", "pcm_s16le"], 60000),
    "mkv": (["libx264", "libvpx"], ["aac", "libopus", "flac", "libmp3lame", "pcm_s16le"], 1000),
    "webm": (["libvpx"], ["libopus"], 1000),
    "ts": (["libx264"], ["aac", "mp2", "libmp3lame", "ac3"], 90000),
    "m2ts": (["libx264"], ["aac", "ac3"], 90000),
    "flv": (["libx264"], ["aac", "libmp3lame"], 1000),
    "wmv": (["wmv2", "libx264"], ["wmav2"], 1000),
    "avi": (["mpeg4", "libx264"], ["pcm_s16le", "ac3"], 0),
    "mpg": (["mpeg2video"], ["mp2"], 0),
    "vob": (["mpeg2video"], ["ac3"], 0),
    "mxf": (["mpeg2video", "libx264"], ["pcm_s16le"], 0),
}
REORDERING = ("libx264", "mpeg2video", "mpeg4")
MOV = ("mp4", "mov")
OFFERED = {"aac": (48000, 44100, 22050), "libopus": (48000,), "mxf": (48000,)}


@dataclass(frozen=True)
class Structure:
    """All times in seconds after the first frame of the file, as it is stored."""

    suffix: str = "mp4"
    codec: str = "libx264"
    rate: Fraction = Fraction(25)
    times: tuple[float, ...] = tuple(n / 25 for n in range(75))  # of the frames
    end: float = 3.0  # of the last frame
    keys: int = 12  # frames between key frames
    b_frames: int = 0
    interlaced: bool = False
    start: float = 0.0  # of the first frame on the file's clock
    audio: str = "aac"  # "": none
    sample_rate: int = 48000
    audio_range: tuple[float, float] = (0.0, 3.0)
    silence: tuple[float, float] | None = None  # packets of sound that are missing
    silent_tracks: tuple[int, int] = (0, 0)  # before and after the default one
    second_picture: int = 0  # -1: a black track before, 1: after the default one
    segments: tuple[tuple[float, float], ...] = ()  # of the edit list of both tracks
    late_sound: float = 0.0  # by the sound's edit list
    fragmented: bool = False
    turn: tuple[int, int, int, int] = TURNS[0]
    frames: slice = field(default_factory=lambda: slice(None))  # that are edited

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Structure:
        """A random one that is valid."""
        suffix = str(rng.choice(["mp4", *CONTAINERS, "mp4", "mov", "mp4", "mkv"]))
        codecs, sounds, ticks = CONTAINERS[suffix]
        rate = RATES[rng.integers(len(RATES))]
        if suffix in ("mpg", "vob", "mxf"):
            rate = RATES[rng.integers(2, len(RATES))]  # what MPEG-2 offers
        audio = str(rng.choice([*sounds, ""], p=[0.95 / len(sounds)] * len(sounds) + [0.05]))
        times, end = _drawn_times(rng, rate, ticks, suffix in MOV)
        made = cls(
            suffix, str(rng.choice(codecs)), rate, times, end, keys=int(rng.choice([1, 5, 12, 50])), audio=audio,
            sample_rate=int(rng.choice(OFFERED.get(suffix, OFFERED.get(audio, (48000, 44100))))),
            audio_range=(0.0, end),
        )  # fmt: skip
        if made.codec in REORDERING:
            interlaced = made.codec == "mpeg2video" and rng.random() < 0.1
            most = 2 if made.codec != "mpeg4" or ticks == 0 else 0  # its B-frames lie within a second
            made = replace(made, b_frames=int(rng.choice([0, most])), interlaced=bool(interlaced))
        if rng.random() < 0.3:
            begin = int(rng.integers(0, len(times) // 2))
            frames = slice(begin, int(rng.integers(begin + 5, len(times))) if rng.random() < 0.6 else None)
            made = replace(made, frames=frames)
        made = made._with_tracks(rng)
        if suffix in MOV and rng.random() < 0.5:
            made = made._with_edits(rng)
        return made.between_tones()

    def between_tones(self) -> Structure:
        """The frames that are edited begin and end in silence, so that tones can be counted."""
        shown = self.shown
        begin, end, _ = self.frames.indices(len(shown) - 1)
        tones = [at for at in map(self.shown_at, self.flashes) if at is not None]
        begin = next((n for n in range(begin, end) if _quiet(shown[n], tones)), 0)
        if end < len(shown) - 1:
            end = next((n for n in range(end, len(shown) - 1) if _quiet(shown[n], tones)), len(shown) - 1)
        return replace(self, frames=slice(begin, end if end < len(shown) - 1 else None))

    def _with_tracks(self, rng: np.random.Generator) -> Structure:
        early, late = rng.choice([0.0, 0.0, -0.2, 0.35]), rng.choice([0.0, 0.0, -0.5, 0.7])
        start = float(rng.choice([0.3, 0.3, 5.0, 100.0])) if early < 0 or rng.random() < 0.3 else 0.0
        if self.suffix in ("avi", "mxf"):  # they have no clock
            early = start = 0.0
        if self.suffix == "mxf":  # nor sound without a picture
            late = 0.0
        if not CONTAINERS[self.suffix][2]:
            start = float(round(start * self.rate) / self.rate)
        made = replace(self, start=start, audio_range=(float(early), self.end + float(late)))
        if self.suffix in (*MOV, "mkv", "ts") and self.audio and rng.random() < 0.4:
            before = 0 if self.suffix == "ts" else int(rng.integers(0, 3))
            made = replace(made, silent_tracks=(before, int(rng.integers(0, 2))))
        if self.suffix in (*MOV, "mkv") and rng.random() < 0.2:
            made = replace(made, second_picture=int(rng.choice([-1, 1])))
        samples = self.suffix in MOV and self.audio.startswith("pcm")  # which have no times of their own
        if CONTAINERS[self.suffix][2] and rng.random() < 0.15 and not samples:
            made = replace(made, silence=(self.end / 3, self.end / 3 + 0.3))
        return replace(made, fragmented=bool(self.suffix in MOV and rng.random() < 0.15))

    def _with_edits(self, rng: np.random.Generator) -> Structure:
        """Edit lists: both tracks cut to one or two parts, or the sound moved."""
        made = replace(
            self, start=0.0, audio_range=(0.0, self.audio_range[1]), silence=None, fragmented=False,
            turn=TURNS[rng.integers(len(TURNS))], second_picture=0,
        )  # fmt: skip
        count, kind = len(self.times), rng.integers(4)
        if kind == 0:
            return replace(made, late_sound=float(rng.choice([0.25, -0.25])))
        if kind < 3:
            within = [
                (0, count // 4),
                (count // 3, count // 2),
                (count // 2 + 1, 2 * count // 3),
                (3 * count // 4, count),
            ]
            bounds = [int(rng.integers(low, high)) for low, high in within]
            begins, ends = rng.uniform(0.2, 0.8, 2) if rng.random() < 0.6 else (0.0, 0.5)
            a, b, c, d = (self._boundary(n, share) for n, share in zip(bounds, [begins, ends] * 2, strict=True))
            return replace(made, segments=((a, d),) if kind == 1 else ((a, b), (c, d)))
        return made

    def _boundary(self, number: int, share: float) -> float:
        """A time in silence, that share of a frame after a frame's beginning; the end, if there is none."""
        times = [*self.times[number:], self.end]
        for time, after in pairwise(times):
            found = time + share * (after - time)
            if after - time > 0.004 and _quiet(time, self.flashes) and _quiet(found, self.flashes):
                return found
        return self.end

    # --- what is right ---

    def shown_at(self, time: float) -> float | None:
        """When what is stored at `time` is shown; None: never."""
        if not self.segments:
            return time
        before = 0.0
        for begin, end in self.segments:
            if begin - 1e-9 <= time < end - 1e-9:
                return before + time - begin
            before += end - begin
        return None

    @property
    def shown(self) -> list[float]:
        """When each frame of the film is shown, and the end."""
        found = [time for time in map(self.shown_at, self.times) if time is not None]
        return [*found, sum(end - begin for begin, end in self.segments) or self.end]

    @property
    def flashes(self) -> list[float]:
        """Stored times of the frames at which flashes begin."""
        found: list[float] = []
        gap = self.silence or (-9.0, -9.0)
        for before, time in zip(self.times[2:], self.times[3:-1], strict=False):
            since = found[-1] if found else 0.0
            if time - since > 0.37 and before > since + TONE and time - before > 0.004:
                if gap[0] - 0.15 < time < gap[1] + 0.12:  # half of its tone may be missing
                    continue
                found.append(time)
        return found

    def expected(self) -> tuple[list[float], list[float], float]:
        """When flashes and tones begin in what is written, and how long it is."""
        *frames, end = self.shown
        first, last, _ = self.frames.indices(len(frames))
        begin, whole = frames[first], last == len(frames)
        end = end if whole else frames[last]
        lit = [at for at in map(self.shown_at, self.flashes) if at is not None and begin < at < end]
        loud = [at for at in map(self.shown_at, self._tones()) if at is not None and begin < at]
        return [at - begin for at in lit], [at - begin for at in loud if whole or at < end], end - begin

    def _tones(self) -> list[float]:
        low, high = (max(0.0, at + self.late_sound) if self.late_sound else at for at in self.audio_range)
        heard = self.flashes + ([self.end + 0.3] if high > self.end + 0.5 and not self.segments else [])
        gap, length = self.silence or (0.0, 0.0), TONE + 0.03
        return (
            [at for at in heard if low <= at <= high - length and not (gap[0] - length < at < gap[1] + 0.1)]
            if self.audio
            else []
        )

    # --- the file ---

    def write(self, path: Path) -> Path:
        path = path.with_suffix(f".{self.suffix}")
        options = {"movflags": "frag_keyframe+delay_moov"} if self.fragmented else {}
        with av.open(str(path), "w", options=options) as container:
            streams = self._streams(container)
            packets = [packet for stream, made in streams for packet in self._packets(stream, made)]
            for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
                container.mux(packet)
        if self.suffix in MOV and not self.fragmented:
            self._edit_header(path)
        return path

    def _streams(self, container: av.container.OutputContainer) -> list[tuple[object, str]]:
        plan = ["picture"]
        plan[:0] = ["black"] * (self.second_picture < 0)
        plan += ["black"] * (self.second_picture > 0)
        if self.audio:
            plan += ["silent"] * self.silent_tracks[0] + ["sound"] + ["silent"] * self.silent_tracks[1]
        streams = []
        for kind in plan:
            if kind in ("picture", "black"):
                stream = container.add_stream(self.codec, rate=self.rate, options=self._options())
                stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
                if CONTAINERS[self.suffix][2]:
                    stream.codec_context.time_base = Fraction(1, CONTAINERS[self.suffix][2])
            else:
                stream = container.add_stream(
                    self.audio, rate=self.sample_rate, layout="stereo" if self.audio == "libopus" else "mono"
                )
                if self.audio == "wmav2":  # it has no rate of its own
                    stream.bit_rate = 64000
            if len(plan) > 1:
                stream.disposition = (
                    av.stream.Disposition.default if kind in ("picture", "sound") else av.stream.Disposition(0)
                )
            streams.append((stream, kind))
        return streams

    def _options(self) -> dict[str, str]:
        options = {"g": str(self.keys), "bf": str(self.b_frames)}
        if self.codec == "libx264":
            options |= {"preset": "ultrafast", "crf": "15"}
        elif self.codec == "libvpx":
            options |= {"deadline": "realtime", "cpu-used": "8", "b": "2000000"}
        else:
            options |= {"b": "2000000"}
        if self.codec not in REORDERING:
            del options["bf"]
        return options | ({"flags": "+ildct+ilme"} if self.interlaced else {})

    def _packets(self, stream: object, kind: str) -> Iterator[av.Packet]:
        if kind in ("picture", "black"):
            yield from self._pictures(stream, kind == "black")
            return
        for packet in self._sounds(stream, silent=kind == "silent"):
            time = float(packet.pts * packet.time_base) - self.start
            if packet.size and not (self.silence and self.silence[0] <= time < self.silence[1]):
                yield packet

    def _pictures(self, stream: object, black: bool) -> Iterator[av.Packet]:
        base = stream.codec_context.time_base or 1 / self.rate
        lit = {}
        for n, time in enumerate(self.times):
            lit[n] = any(flash - 1e-6 <= time < flash + TONE for flash in self.flashes)
        packets = []
        for n, time in enumerate(self.times):
            picture = _picture(lit[n]) if not black else np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = round((self.start + time) / base), base
            packets += stream.encode(frame)
        packets += stream.encode(None)
        packets[-1].duration = max(1, round((self.end - self.times[-1]) / packets[-1].time_base))
        yield from packets

    def _sounds(self, stream: object, silent: bool) -> Iterator[av.Packet]:
        wave, context = self._wave(silent), stream.codec_context
        context.open()
        block = context.frame_size or 1024
        form, layout = context.format.name, context.layout.name
        begin = round((self.start + self.audio_range[0]) * self.sample_rate)
        for at in range(0, len(wave), block):
            piece = wave[at : at + block]
            if context.frame_size:
                piece = np.pad(piece, (0, block - len(piece)))
            channels = 1 if layout == "mono" else 2
            data = np.repeat(piece[None], channels, 0)
            packed = data if form.endswith("p") else data.T.reshape(1, -1)
            if form[0] == "s":  # whole numbers
                packed = (packed * (32767 if form.startswith("s16") else 2**31 - 128)).astype(
                    np.int16 if form.startswith("s16") else np.int32
                )
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(packed), format=form, layout=layout)
            frame.rate, frame.pts, frame.time_base = self.sample_rate, begin + at, Fraction(1, self.sample_rate)
            yield from stream.encode(frame)
        yield from stream.encode(None)

    def _wave(self, silent: bool) -> np.ndarray:
        low, high = self.audio_range
        t = low + np.arange(round((high - low) * self.sample_rate)) / self.sample_rate
        loud = np.zeros(len(t), bool)
        if not silent:
            for tone in self._tones():
                loud |= (t >= tone - self.late_sound) & (t < tone - self.late_sound + TONE)
            if self.segments:  # what is cut away is loud
                inside = np.zeros(len(t), bool)
                for begin, end in self.segments:
                    inside |= (t > begin - 0.1) & (t < end + 0.1)
                loud |= ~inside
        return (0.7 * np.sin(2 * np.pi * 1000 * t) * loud).astype(np.float32)

    def _edit_header(self, path: Path) -> None:
        """Edit lists and the display matrix, which the muxer does not write."""
        data = path.read_bytes()
        at = data.index(b"moov") - 4
        assert at + int.from_bytes(data[at : at + 4], "big") == len(data)  # last, so that no offset changes
        boxes = _boxes(data[at + 8 :])
        ticks = struct.unpack_from(">I", dict(boxes)[b"mvhd"], 12)[0]
        body = b""
        for kind, content in boxes:
            body += _box(kind, self._edited(content, ticks) if kind == b"trak" else content)
        path.write_bytes(data[:at] + _box(b"moov", body))

    def _edited(self, trak: bytes, ticks: int) -> bytes:
        boxes = dict(_boxes(trak))
        sounding = b"soun" in boxes[b"mdia"]
        scale = struct.unpack_from(">I", dict(_boxes(boxes[b"mdia"]))[b"mdhd"], 12)[0]
        begin = max(0, struct.unpack_from(">i", boxes[b"edts"], 8 + 8 + 4)[0]) if b"edts" in boxes else 0
        head = bytearray(boxes[b"tkhd"])
        if not sounding:
            a, b, c, d = (value << 16 for value in self.turn)
            struct.pack_into(">9i", head, 40, a, b, 0, c, d, 0, 0, 0, 1 << 30)
        boxes[b"tkhd"] = bytes(head)
        parts = [(end - at, at) for at, end in self.segments]
        if sounding and self.late_sound:
            length = self.audio_range[1]
            parts = [(length, -self.late_sound)] if self.late_sound < 0 else [(self.late_sound, None), (length, 0.0)]
        if parts:
            entries = [
                struct.pack(">IiI", round(length * ticks), -1 if at is None else begin + round(at * scale), 1 << 16)
                for length, at in parts
            ]
            boxes[b"edts"] = _box(b"elst", struct.pack(">II", 0, len(entries)) + b"".join(entries))
        order = [b"tkhd", b"edts", *(kind for kind in boxes if kind not in (b"tkhd", b"edts"))]
        return b"".join(_box(kind, boxes[kind]) for kind in order if kind in boxes)


def _drawn_times(
    rng: np.random.Generator, rate: Fraction, ticks: int, lasting: bool
) -> tuple[tuple[float, ...], float]:
    """Times of frames, and the end."""
    frame = float(1 / rate)
    count = int(np.clip(rng.uniform(2, 3.5) / frame, 24, 160))
    steps = np.full(count, frame)
    kind = rng.integers(6) if ticks else 0
    if kind == 1:
        steps *= rng.uniform(0.6, 1.5, count)
    elif kind == 2:  # two frames 1 ms apart
        near = rng.integers(4, count - 4)
        steps[near], steps[near + 1] = 0.001, 2 * frame - 0.001
    elif kind == 3:  # frames stand
        steps[rng.integers(4, count - 4, 2)] = rng.uniform(0.3, 2, 2)
    elif kind == 4:  # frames are missing
        steps *= rng.choice([1, 1, 1, 2, 3], count)
    steps[-1] = rng.uniform(0.5, 3) if lasting and rng.random() < 0.3 else frame
    times = np.concatenate([[0], np.cumsum(steps)])
    if ticks:
        times = np.round(times * ticks) / ticks
    return tuple(times[:-1].tolist()), float(times[-1])


def _quiet(time: float, tones: list[float]) -> bool:
    return not any(at - 0.06 < time < at + TONE + 0.06 for at in tones)


def _picture(lit: bool) -> np.ndarray:
    picture = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    picture[:] = CORNERS.repeat(SIZE[1] // 2, 0).repeat(SIZE[0] // 2, 1)
    height, width = SIZE[1] // 4, SIZE[0] // 4
    picture[height : 3 * height, width : 3 * width] = 255 * lit
    return picture


def _boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + size]))
        at += size
    return found


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + kind + content
