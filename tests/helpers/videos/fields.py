"""H.264 in fields (PAFF), which x264 does not write: macroblocks of plain levels, as bits."""

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction
from pathlib import Path

import av

SIDE = 4  # macroblocks
STEP = 8  # levels by which a frame is lighter than the one before


class _Bits:
    def __init__(self) -> None:
        self._text = ""

    def put(self, *values: tuple[int, int]) -> _Bits:
        """Numbers with the bits they take."""
        self._text += "".join(format(value, f"0{count}b") for count, value in values)
        return self

    def codes(self, *values: int) -> _Bits:
        """Exp-Golomb codes."""
        self._text += "".join("0" * (len(f"{value + 1:b}") - 1) + f"{value + 1:b}" for value in values)
        return self

    def align(self) -> _Bits:
        self._text += "0" * (-len(self._text) % 8)
        return self

    def unit(self, kind: int) -> bytes:
        """The NAL unit; start codes do not arise in what is written here."""
        self.put((1, 1)).align()
        return b"\0\0\0\1" + bytes([0x60 | kind]) + int(self._text, 2).to_bytes(len(self._text) // 8, "big")


def _parameters() -> bytes:
    sequence = _Bits().put((8, 77), (8, 0), (8, 30)).codes(0, 0, 0, 4, 1).put((1, 0)).codes(SIDE - 1, SIDE // 2 - 1)
    sequence.put((1, 0), (1, 0), (1, 1), (1, 0), (1, 1))  # may be fields; timing follows: 50 fields a second
    sequence.put((4, 0), (1, 1), (32, 1), (32, 50), (1, 1), (4, 0))
    picture = _Bits().codes(0, 0).put((2, 0)).codes(0, 0, 0).put((3, 0)).codes(0, 0, 0).put((3, 4))
    return sequence.unit(7) + picture.unit(8)


def _slice(number: int, rows: int, field: int | None) -> bytes:
    """A frame, or its top (0) or bottom (1) field."""
    first = field != 1
    bits = _Bits().codes(0, 7, 0).put((4, 0), *([] if field is None else [(1, 1), (1, field)]))
    if field is None:
        bits.put((1, 0))
    if first:
        bits.codes(number % 2)
    bits.put((8, field or 0), *([(1, 0)] * (2 if first else 1))).codes(0, 1)
    for _ in range(rows * SIDE):
        bits.codes(25).align().put(*[(8, 40 + STEP * number)] * 256, *[(8, 128)] * 128)
    return bits.unit(5 if first else 1)


def in_fields(path: Path, count: int, whole: Collection[int] = ()) -> Path:
    """A transport stream of 25 frames a second with a packet for each field, but for the frames that are `whole`."""
    mark, raw = b"\0\0\0\1\x09\x10", path.with_suffix(".h264")
    frames = [
        [_slice(n, SIDE, None)] if n in whole else [_slice(n, SIDE // 2, 0), _slice(n, SIDE // 2, 1)]
        for n in range(count)
    ]
    raw.write_bytes(b"".join(mark + _parameters() + b"".join(parts) for parts in frames))
    with av.open(str(raw)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for n, parts in enumerate(frames):
            for field, part in enumerate(parts):
                packet = av.Packet(mark + (b"" if field else _parameters()) + part)
                packet.stream, packet.time_base = stream, Fraction(1, 50)
                packet.pts = packet.dts = 2 * n + field
                packet.duration, packet.is_keyframe = 2 // len(parts), not field
                container.mux(packet)
    return path
