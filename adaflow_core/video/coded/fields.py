"""Which packets of an H.264 stream are second fields: a decoder makes one frame of two.

FFmpeg gives a packet for each field in MPEG-TS, and in other containers into which that was copied. A stream may have
frames of both kinds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

import av
from av.video.stream import VideoStream

_SPS, _SLICES = 7, (1, 2, 5)  # kinds of NAL units (H.264, table 7-1)
_WITH_CHROMA = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244)  # profiles
_HEADER = 32  # bytes in which a slice says what it is of


class _Slices(NamedTuple):
    """What of a sequence's parameters it takes to read the headers of its slices."""

    planes: bool = False  # a slice names its colour plane
    number_bits: int = 4
    may_be_fields: bool = False


class _Ended(Exception):
    """Bits were asked for behind the end."""


def whole_frames(packets: Iterable[av.Packet], stream: VideoStream) -> Iterator[av.Packet]:
    """The packets of a stream without those of second fields. A first field's duration may be half of its frame's."""
    fields = _Fields(stream) if stream.codec_context.codec.canonical_name == "h264" else None
    if fields is None or not fields.possible:
        return iter(packets)
    return (packet for packet in packets if not fields.is_second(packet))


class _Fields:
    """Follows the pictures of a stream; of several sequences' parameters it takes those that were read last."""

    def __init__(self, stream: VideoStream) -> None:
        header = bytes(stream.codec_context.extradata or b"")
        self._size = (header[4] & 3) + 1 if len(header) > 6 and header[0] == 1 else 0  # bytes of a length; 0: Annex B
        self._slices = _Slices()
        self._first: tuple[int, int] | None = None  # number and parity of a field without its second
        for unit in _in_avcc(header) if self._size else _units(header, 0):
            self._learn(unit)
        self.possible = self._slices.may_be_fields

    def is_second(self, packet: av.Packet) -> bool:
        """Whether it completes the frame of the packet before: by the rule of FFmpeg's decoder (h264_field_start)."""
        found = self._fields(bytes(packet)) if packet.size else []
        completes = bool(found) and self._first == (found[0][0], 1 - found[0][1])
        alone = bool(found) and not completes and found[0] == found[-1]
        self._first = found[0] if alone else None
        return completes

    def _fields(self, data: bytes) -> list[tuple[int, int]]:
        """Of each slice that is of a field: the frame's number, and 0 for the top field, 1 for the bottom one."""
        found = []
        for unit in _units(data, self._size):
            if unit[0] & 31 not in _SLICES:
                self._learn(unit)
                continue
            bits = _Bits(unit[1:_HEADER])
            with suppress(_Ended):
                for _ in range(3):  # first macroblock, type, parameters
                    bits.golomb()
                bits.take(2 * self._slices.planes)
                number = bits.take(self._slices.number_bits)
                if self._slices.may_be_fields and bits.take(1):
                    found.append((number, bits.take(1)))
        return found

    def _learn(self, unit: bytes) -> None:
        if unit[0] & 31 == _SPS:
            with suppress(_Ended):  # damaged: the decoder goes on with the last one too
                self._slices = _parameters(_Bits(unit[1:]))


def _units(data: bytes, size: int) -> Iterator[bytes]:
    """The NAL units of a packet, after lengths of `size` bytes or in Annex B."""
    place = 0 if size else data.find(b"\0\0\1") + 3
    while size and place + size < len(data):
        begin = place + size
        place = begin + int.from_bytes(data[place:begin], "big")
        if place > begin:
            yield data[begin:place]
    while not size and 2 < place < len(data):
        end = data.find(b"\0\0\1", place)
        if end != place:
            yield data[place : end if end >= 0 else len(data)]
        place = end + 3


def _in_avcc(header: bytes) -> Iterator[bytes]:
    """The sequence parameters in the header of mp4 and Matroska (ISO 14496-15)."""
    place = 6
    for _ in range(header[5] & 31):
        begin = place + 2
        place = begin + int.from_bytes(header[place:begin], "big")
        if place > begin and begin < len(header):
            yield header[begin:place]


def _parameters(bits: _Bits) -> _Slices:
    """Of a sequence parameter set (H.264, 7.3.2.1.1)."""
    profile, _ = bits.take(8), bits.take(16)
    bits.golomb()
    planes = False
    if profile in _WITH_CHROMA:
        chroma = bits.golomb()
        planes = chroma == 3 and bool(bits.take(1))
        bits.golomb(), bits.golomb(), bits.take(1)  # depths, bypass
        if bits.take(1):
            for number in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    _skip_scaling(bits, 16 if number < 6 else 64)
    number_bits = bits.golomb() + 4
    order = bits.golomb()
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1), bits.golomb(), bits.golomb()
        for _ in range(min(bits.golomb(), 255)):
            bits.golomb()
    bits.golomb(), bits.take(1), bits.golomb(), bits.golomb()  # references, gaps, size
    return _Slices(planes, number_bits, not bits.take(1))


def _skip_scaling(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            code = bits.golomb()
            following = (last + (code + 1) // 2 * (1 if code % 2 else -1)) % 256
        last = following or last


class _Bits:
    """Reads what lies in a NAL unit bit by bit, without the bytes that keep start codes from arising in it."""

    def __init__(self, data: bytes) -> None:
        data = data.replace(b"\0\0\3", b"\0\0")
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise _Ended
        self._left -= count
        return self._value >> self._left & ((1 << count) - 1)

    def golomb(self) -> int:
        """An unsigned Exp-Golomb code (H.264, 9.1)."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)
