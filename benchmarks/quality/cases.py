"""The clips and their edits, fixed by the split and one seed; few clips already have all kinds of motion and edit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from benchmarks.truth import Pair, draw, other_value
from scenes.clips import SIZE
from scenes.world import sample

# What a clip shows -> the world's motions that show it, in turn.
MOTIONS: dict[str, tuple[str, ...]] = {
    "object motion": ("drift", "bounce", "turn"),
    "scene cut": ("cut",),
    "pan": ("pan",),
    "uneven": ("uneven",),
    "occlusion": ("occlusion",),
    "entering": ("enter",),
    "zoom": ("zoom",),
    "leaving": ("leave",),
}
# The clips that the number of keyframes is tried on, fixed before any result.
GROUPS: dict[str, tuple[str, ...]] = {
    "uneven motion": ("uneven",),
    "cuts": ("cut",),
    "steady motion": ("drift", "pan", "zoom"),
}
KINDS = ("colour", "background", "object", "style")  # of edit, in the order in which clips take them
# Seeds of the world's generator; no other benchmark draws from these.
CONTEST, PRUNE, KEYFRAMES = 40_000, 50_000, 60_000
LONG_EVERY = 8  # short clips before each long one


@dataclass(frozen=True)
class Clip:
    """A source clip with the kinds of edit that it is given. Nothing is drawn yet."""

    name: str
    group: str  # of MOTIONS or GROUPS
    motion: str  # of the world
    seed: int
    split: str
    frames: int
    kinds: tuple[str, ...]
    long: bool = False

    def pair(self, kind: str, size: int = SIZE, device: torch.device | str = "cpu") -> Pair:
        """The clip's whole time in its number of frames, one object, drawn before and after the edit."""
        row = sample(1, seed=self.seed, split=self.split, motion=self.motion).replace(present2=False)
        times = np.linspace(0, 1, self.frames, dtype=np.float32)
        value = other_value(row, kind, self.seed)
        return draw(row, kind, value, times, size, device, name=f"{self.name}-{kind}")


def _turn(values: tuple[str, ...], start: int, count: int) -> tuple[str, ...]:
    return tuple(values[(start + i) % len(values)] for i in range(count))


def contest_clips(
    split: str, scene_seed: int, *, frames: int, long_frames: int, kinds: tuple[str, ...] = KINDS, each: int = 2
) -> Iterator[Clip]:
    """Yield clips without end: the kinds of motion in turn, each with `each` kinds of edit, sometimes a long clip.

    After two rounds through the motions each of them has met every kind of edit (with two of four a clip).
    """
    groups, number, short = list(MOTIONS), 0, 0
    each = min(each, len(kinds))
    while True:
        long = long_frames > 0 and number % (LONG_EVERY + 1) == LONG_EVERY
        # Long clips take the motions in their own turn, the uneven ones first: there they have stretches of rest.
        group = groups[(3 + number // (LONG_EVERY + 1)) % len(groups)] if long else groups[short % len(groups)]
        turn = short // len(groups)
        motion = MOTIONS[group][turn % len(MOTIONS[group])]
        length = long_frames if long else frames
        yield Clip(
            name=f"{split}-{scene_seed}-{number:03d}-{motion}-{length}",
            group=group,
            motion=motion,
            seed=CONTEST + 1000 * scene_seed + number,
            split=split,
            frames=length,
            kinds=_turn(kinds, number, 1) if long else _turn(kinds, each * (short + turn), each),
            long=long,
        )
        number, short = number + 1, short + (not long)


def sweep_clips(
    name: str, split: str, scene_seed: int, *, frames: int, kinds: tuple[str, ...] = KINDS
) -> Iterator[Clip]:
    """Yield clips without end, with one edit each: for "prune" all motions in turn, for "keyframes" three groups."""
    table, base = (MOTIONS, PRUNE) if name == "prune" else (GROUPS, KEYFRAMES)
    groups, number = list(table), 0
    while True:
        group, turn = groups[number % len(groups)], number // len(groups)
        motion = table[group][turn % len(table[group])]
        yield Clip(
            name=f"{name}-{split}-{scene_seed}-{number:03d}-{motion}-{frames}",
            group=group,
            motion=motion,
            seed=base + 1000 * scene_seed + number,
            split=split,
            frames=frames,
            kinds=_turn(kinds, number + turn, 1),
        )
        number += 1


def uneven_clips(split: str, scene_seed: int, *, frames: int, kinds: tuple[str, ...] = KINDS) -> Iterator[Clip]:
    """Yield without end the clips of the "keyframes" sweep that have uneven motion."""
    for clip in sweep_clips("keyframes", split, scene_seed, frames=frames, kinds=kinds):
        if clip.group == "uneven motion":
            yield replace(clip, name=clip.name.replace("keyframes", "pairs"))


def true_cut(pair: Pair) -> int | None:
    """The first frame of the second shot, if the clip has one."""
    after = np.flatnonzero(pair.times >= float(pair.before.cut_time[0]))
    return int(after[0]) if len(after) and after[0] > 0 else None
