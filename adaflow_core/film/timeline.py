"""Prompts on ranges of frames. Frames outside all ranges stay the source's, byte for byte."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from adaflow_core.config import read_json
from adaflow_core.errors import AdaFlowError
from adaflow_core.video.types import Video

CROSSFADE = 8  # frames
_RANGED = re.compile(r"\s*(\d+(?:\.\d+)?)(s?):(\d+(?:\.\d+)?)(s?)\s+(.*)", re.DOTALL)  # "0:48 a ball", "2s:4s a ball"
_FORM = '[{"frames": [0, 48], "prompt": "..."}, ...], the end not included, or "seconds": [0, 2]'


@dataclass(frozen=True)
class PromptRange:
    """Frames `start` to `end`, the end not included, and the prompt that they should show."""

    start: int
    end: int
    prompt: str
    source_prompt: str | None = None  # what is in them now; None: the plan's source prompt
    seconds: tuple[float, float] | None = None  # in place of frames, until the video is known

    def __post_init__(self) -> None:
        if not all(isinstance(frame, (int, np.integer)) for frame in (self.start, self.end)):
            raise AdaFlowError(f"the range {self} is not in whole frames; give these, or seconds=(2.0, 4.0)")
        for name in ("start", "end"):  # numpy's numbers, such as those of cuts, are no JSON
            object.__setattr__(self, name, int(getattr(self, name)))
        if self.seconds is not None:
            object.__setattr__(self, "seconds", tuple(float(second) for second in self.seconds))
        first, end = self.seconds or (self.start, self.end)
        if not 0 <= first < end:
            raise AdaFlowError(f"the range {self} holds nothing; its end must come after its start, and both from 0 on")
        if not isinstance(self.prompt, str):
            raise AdaFlowError(f"the prompt of {self} is {self.prompt!r:.80}; give one text, what these should show")
        if not self.prompt.strip():
            raise AdaFlowError(f"the prompt of {self} is empty; say what these frames should show, or leave them out")

    def __str__(self) -> str:
        return f"{self.seconds[0]:g}s:{self.seconds[1]:g}s" if self.seconds else f"{self.start}:{self.end}"

    def in_frames(self, video: Video) -> PromptRange:
        """Replace seconds, counted from the video's first frame, by the frames that begin within them.

        Raises AdaFlowError if no frame does, or if the range ends more than a frame after the video; up to that is
        allowed, since programs show the length of a video rounded.
        """
        if self.seconds is None:
            return self
        times = np.arange(len(video)) / float(video.fps) if video.times is None else np.array(video.times[:-1])
        length = len(video) / float(video.fps) if video.times is None else video.times[-1] - video.times[0]
        if self.seconds[1] > length + 1 / float(video.fps) + 1e-6:
            first = f" from its first edited frame on, {video.seconds(0):.2f} s in the file" if video.start else ""
            raise AdaFlowError(
                f"the range {self} ends after the video, which has {length:g} s{first}; let it end there"
            )
        start, end = np.searchsorted(times - times[0], np.array(self.seconds) - 1e-6)
        if start == end:
            raise AdaFlowError(f"no frame begins within {self}; the video has {length:g} s")
        return replace(self, start=int(start), end=int(end), seconds=None)

    def as_json(self) -> dict[str, Any]:
        span = {"frames": [self.start, self.end]} if self.seconds is None else {"seconds": list(self.seconds)}
        named = {} if self.source_prompt is None else {"source_prompt": self.source_prompt}
        return span | {"prompt": self.prompt} | named


@dataclass(frozen=True)
class Timeline:
    """Ranges of a video that do not overlap; sorted if all of them are in frames."""

    ranges: tuple[PromptRange, ...]
    crossfade: int = CROSSFADE  # frames over which one prompt fades into the next inside a shot

    def __post_init__(self) -> None:
        if not self.ranges:
            raise AdaFlowError("no range of the timeline has a prompt; give one what it should show")
        if not all(isinstance(r, PromptRange) for r in self.ranges):
            raise AdaFlowError(
                "a range of the timeline is of another kind; give each as PromptRange(0, 48, 'a red ball')"
            )
        if not isinstance(self.crossfade, (int, np.integer)) or self.crossfade < 0:
            raise AdaFlowError(f"crossfade is {self.crossfade!r}; it must be 0 or more frames")
        object.__setattr__(self, "crossfade", int(self.crossfade))
        if any(r.seconds for r in self.ranges):
            return
        object.__setattr__(self, "ranges", tuple(sorted(self.ranges, key=lambda r: r.start)))
        for before, after in pairwise(self.ranges):
            if after.start < before.end:
                raise AdaFlowError(f"the ranges {before} and {after} overlap; let one begin where the other ends")

    def on(self, video: Video) -> Timeline:
        """Return the timeline in frames of `video`; raises AdaFlowError if a range ends after it."""
        found = replace(self, ranges=tuple(r.in_frames(video) for r in self.ranges))
        if found.ranges[-1].end > len(video):
            raise AdaFlowError(f"the range {found.ranges[-1]} ends after the video, which has {len(video)} frames")
        return found

    def one_prompt(self, video: Video) -> str | None:
        """Return the prompt if one range covers all frames and has no source prompt of its own, else None."""
        first = self.ranges[0]
        whole = (first.start, first.end, first.source_prompt) == (0, len(video), None)
        return first.prompt if whole else None

    @property
    def text(self) -> str:
        """All prompts, each once."""
        return "; ".join(dict.fromkeys(r.prompt for r in self.ranges))

    def as_json(self) -> list[dict[str, Any]]:
        return [r.as_json() for r in self.ranges]


@dataclass(frozen=True)
class Stretch:
    """Frames that are edited under one prompt, and the lengths of the ramps that fade them into their neighbours."""

    start: int
    end: int
    prompt: str
    source_prompt: str | None
    rise: int = 0  # frames
    fall: int = 0


def stretches(timeline: Timeline, cuts: np.ndarray, T: int) -> list[Stretch]:
    """Return the stretches of a timeline, each of which is edited alone; adjoining ranges with equal prompts are one.

    Where two prompts meet inside a shot, both stretches reach over the border by half the crossfade. Where a range
    meets frames without a prompt, the crossfade is inside the range. At a cut there is no crossfade.
    """
    alone: list[Stretch] = []
    for r in timeline.ranges:
        last = alone[-1] if alone else None
        if last and (last.end, last.prompt, last.source_prompt) == (r.start, r.prompt, r.source_prompt):
            alone[-1] = replace(last, end=r.end)
        else:
            alone.append(Stretch(r.start, r.end, r.prompt, r.source_prompt))
    borders, found = np.array([0, *cuts, T]), []
    starts, ends = ({getattr(part, side): part for part in alone} for side in ("start", "end"))
    for part in alone:
        start, rise = _reach(part.start, ends.get(part.start), part, borders, timeline.crossfade)
        end, fall = _reach(part.end, part, starts.get(part.end), borders, timeline.crossfade)
        found.append(replace(part, start=part.start - start, end=part.end + end, rise=rise, fall=fall))
    return found


def _reach(
    border: int, before: Stretch | None, after: Stretch | None, borders: np.ndarray, crossfade: int
) -> tuple[int, int]:
    """Return how many frames two stretches reach over the border between them, and the length of the ramp around it."""
    if border in borders:
        return 0, 0
    # At most half of the frames on either side, so that a short range keeps its middle.
    left = 0 if before is None else (border - max(before.start, borders[borders < border].max())) // 2
    right = 0 if after is None else (min(after.end, borders[borders > border].min()) - border) // 2
    if before is None or after is None:
        return 0, int(min(crossfade, max(left, right)))
    reach = int(min(crossfade // 2, left, right))
    return reach, 2 * reach


def crossfade_notes(timeline: Timeline, cuts: np.ndarray, T: int) -> list[str]:
    """Return a note if ranges are too short for the crossfade; none for the default crossfade."""
    asked, parts = timeline.crossfade, stretches(timeline, cuts, T)
    borders = {0, *cuts.tolist(), T}
    ramps = [part.rise for part in parts if part.start not in borders]
    ramps += [part.fall for part in parts if part.end not in borders]
    # Between two prompts an odd crossfade is a frame shorter than asked.
    if asked == CROSSFADE or not ramps or min(ramps) >= asked - 1:
        return []
    taken = f"{min(ramps)} to {max(ramps)}" if min(ramps) < max(ramps) else f"{max(ramps)}"
    return [f"the crossfade of {asked} frames is longer than the ranges allow, at most half of each: it takes {taken}"]


def read_prompts(path: Path) -> tuple[PromptRange, ...]:
    """Read the ranges in a JSON file; raises AdaFlowError if it holds none."""
    return ranges_of(read_json(path, "the prompts", f"write them as {_FORM}"), f"the prompts {path}")


def ranges_of(data: Any, where: str = "the prompts") -> tuple[PromptRange, ...]:
    """Return the ranges in JSON data, without those of a null prompt; `where`: the data's source, for messages."""
    if not isinstance(data, list) or not data:
        raise AdaFlowError(f"{where} hold no list of ranges; write them as {_FORM}")
    ranges = []
    for row in data:
        unit = "seconds" if isinstance(row, dict) and "seconds" in row else "frames"
        span = row.get(unit) if isinstance(row, dict) else None
        numbers = (int, float) if unit == "seconds" else (int,)
        right = isinstance(span, list) and len(span) == 2 and all(type(x) in numbers for x in span)
        texts = [] if not isinstance(row, dict) else [row.get("prompt"), row.get("source_prompt")]
        right = right and row.keys() <= {unit, "prompt", "source_prompt"}
        if not right or not all(text is None or isinstance(text, str) for text in texts):
            raise AdaFlowError(f"{where} hold {json.dumps(row)[:120]}; write a range as {_FORM}")
        if texts[0] is not None:
            ranges.append(_range(span, unit == "seconds", *texts))
    return tuple(ranges)


def parse_prompts(texts: Sequence[str]) -> str | tuple[PromptRange, ...]:
    """Return the one prompt for the whole video, or the ranges in "0:48 a red ball" or "2s:4s a blue ball"."""
    found = [_RANGED.fullmatch(text) for text in texts]
    if len(texts) == 1 and found[0] is None:
        return texts[0]
    ranges = []
    for text, match in zip(texts, found, strict=True):
        if match is None or match[2] != match[4] or (not match[2] and "." in match[1] + match[3]):
            raise AdaFlowError(
                f"the prompt {text!r} does not begin with its range; several prompts are given as "
                '--prompt "0:48 a red ball" --prompt "48:96 a blue ball", or in seconds as "2s:4s ..."'
            )
        try:
            ranges.append(_range([float(match[1]), float(match[3])], bool(match[2]), match[5]))
        except AdaFlowError as problem:  # for example "16:9 photo of a cat"
            raise AdaFlowError(
                f"{problem}; where the text is for the whole video, put the range of all frames before it: "
                f'"0:96 {text.strip()}"'
            ) from None
    return tuple(ranges)


def for_all(text: str, T: int) -> str:
    """Return a text that `parse_prompts` reads as this one prompt for all T frames."""
    return f"0:{T} {text}" if _RANGED.fullmatch(text) else text


def range_notes(texts: Sequence[str], T: int) -> list[str]:
    """Return a note if a single prompt was read as one for a range of the T frames, as "4:30 train" is."""
    match = _RANGED.fullmatch(texts[0]) if len(texts) == 1 else None
    if match is None or match[2] or (match[1], match[3]) == ("0", str(T)):
        return []
    return [
        f'"{match[1]}:{match[3]}" at the beginning of the prompt is its range of frames, and all others stay as they '
        f'are; where it is a part of the text, put the range of all frames before it: "{for_all(texts[0].strip(), T)}"'
    ]


def _range(span: Any, seconds: bool, prompt: Any, source: str | None = None) -> PromptRange:
    try:
        if seconds:
            return PromptRange(0, 0, prompt, source, (float(span[0]), float(span[1])))
        return PromptRange(int(span[0]), int(span[1]), prompt, source)
    except OverflowError as problem:
        raise AdaFlowError(f"the range of {prompt!r:.80} ends after any video; let it end with its own") from problem
