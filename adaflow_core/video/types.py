"""A video file, a decoded video, and their sizes and ranges as people write them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from adaflow_core.errors import AdaFlowError

DARK, LIGHT = 0, 255  # levels of what lies under transparent pictures: under masks, under all others


@dataclass(frozen=True)
class VideoInfo:
    """What probing says about a file, before anything is decoded."""

    path: Path
    width: int  # pixels, upright (rotation metadata applied)
    height: int
    fps: Fraction
    frames: int  # estimated from the header where the container does not count them
    seconds: float
    codec: str
    rotation: int  # degrees clockwise that were applied to make it upright: 0, 90, 180, 270
    has_audio: bool
    notes: tuple[str, ...] = ()  # sentences for the user: what decoding changes
    transfer: int = 1  # of the decoded pixels, by FFmpeg's number; 1: BT.709
    pixels: str = ""  # FFmpeg's name of the file's pixel format, such as "yuv420p"; "": of pictures


@dataclass(frozen=True)
class Video:
    """Decoded frames at the working size. `frames` may be a read-only memory map."""

    frames: np.ndarray  # [T, H, W, 3] uint8 RGB
    fps: Fraction
    digest: str  # hex digest of the frames and their rate: the content part of cache keys
    source: Path | None = None  # the file the audio is taken from
    start: int = 0  # index in `source` of the first frame, for the audio's offset
    # Seconds after the file's first frame at which each frame begins and the last one ends [T + 1]; None: even.
    times: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()  # sentences for the user, e.g. frames that could not be read
    transfer: int = 1  # as in `VideoInfo`
    file_digest: str = ""  # of the file's content when its frames were read
    part_of: tuple[Video, int] | None = None  # the video that these are frames of, and the first of them there
    # Index in `source` of each frame [T], where some between them could not be read; None: there is none missing.
    numbers: tuple[int, ...] | None = None

    def part(self, start: int, end: int) -> Video:
        """Its frames from `start` on, `end` not included, as a video of their own."""
        if (start, end) == (0, len(self)):
            return self
        whole, first = self.part_of or (self, 0)
        name = f"{whole.digest} {first + start} {first + end}"
        return replace(
            self,
            frames=self.frames[start:end],
            digest=hashlib.blake2b(name.encode(), digest_size=16).hexdigest(),
            start=self.number(start),
            times=None if self.times is None else self.times[start : end + 1],
            part_of=(whole, first + start),
            numbers=None if self.numbers is None else self.numbers[start:end],
        )

    def __len__(self) -> int:
        return int(self.frames.shape[0])

    @property
    def has_other_numbers(self) -> bool:
        """Whether its file counts these frames otherwise than from 0 on one after another."""
        return bool(self.start or self.numbers)

    def number(self, frame: int) -> int:
        """Index in `source` of one of these frames."""
        return self.start + frame if self.numbers is None else self.numbers[frame]

    def seconds(self, frame: int) -> float:
        """When a frame begins after the source's first; that of number T is the end of the last."""
        return float((self.start + frame) / self.fps) if self.times is None else self.times[frame]

    def seconds_in(self, frame: int) -> float:
        """When a frame begins after these frames' first, as settings count."""
        return self.seconds(frame) - self.seconds(0)

    def stamp(self, frame: int) -> str:
        """When a frame is, and its number, as settings take them: "1.20 s, frame 24".

        Of a part of a file's frames both count from its first; the file's own stand beside them, as in
        "0.20 s (1.20 s), frame 4 (24)".
        """
        number, apart = int(frame), self.has_other_numbers
        in_file = (f" ({self.seconds(number):.2f} s)", f" ({self.number(number)})") if apart else ("", "")
        return f"{self.seconds_in(number):.2f} s{in_file[0]}, frame {number}{in_file[1]}"

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return int(self.frames.shape[2]), int(self.frames.shape[1])


MIN_SIDE, MAX_SIDE = 64, 4096


def working_size(width: int, height: int, target: int) -> tuple[int, int]:
    """(width, height) with the shorter side `target`, the aspect kept, both sides multiples of 64 or of 8.

    Multiples of 64 halve evenly all the way down a Stable Diffusion UNet; multiples of 8 are taken where
    those of 64 would change the aspect by more than 4 %. AdaFlowError where the longer side would be too long.
    """
    if not MIN_SIDE <= target <= MAX_SIDE:
        raise AdaFlowError(f"size is {target}; the shorter side must lie between {MIN_SIDE} and {MAX_SIDE}")
    aspect = max(width, height) / min(width, height)
    short, long = _sides(aspect, target)
    if long > MAX_SIDE:
        most = int(MAX_SIDE / aspect) // 8 * 8
        while most >= MIN_SIDE and _sides(aspect, most)[1] > MAX_SIDE:  # sides are rounded
            most -= 8
        smaller = f"give a size of {most} at most, or " if most >= MIN_SIDE else ""
        raise AdaFlowError(
            f"the video is {width}x{height}, its longer side {aspect:.0f} times the shorter one: at size {target} "
            f"it would have {long} pixels, and {MAX_SIDE} are the most; {smaller}crop the video"
        )
    return (long, short) if width >= height else (short, long)


def _sides(aspect: float, target: int) -> tuple[int, int]:
    """The shorter and the longer side of a working size."""
    for multiple in (64, 8):
        short = round(target / multiple) * multiple
        long = round(short * aspect / multiple) * multiple
        if abs(long / short / aspect - 1) <= 0.04:
            break
    return short, long


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) of a text such as 896x512."""
    match = re.fullmatch(r"\s*(\d{1,5})\s*[xX]\s*(\d{1,5})\s*", text)
    if match is None:
        raise AdaFlowError(f"size is {text!r}; give it as WIDTHxHEIGHT, for example 512x512")
    size = int(match[1]), int(match[2])
    check_size(size)
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


def check_size(size: tuple[int, int]) -> None:
    if any(not MIN_SIDE <= side <= MAX_SIDE or side % 8 for side in size):
        near = "x".join(str(min(max(round(side / 8) * 8, MIN_SIDE), MAX_SIDE)) for side in size)
        raise AdaFlowError(
            f"size is {size[0]}x{size[1]}; both sides must be multiples of 8 "
            f"between {MIN_SIDE} and {MAX_SIDE}, for example {near}"
        )
