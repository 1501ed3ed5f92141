"""Rows of prompts for ranges of frames, and how they follow the frames of a file into another range of it.

Rows and takes are in frames of a plan: [{"frames": [first, end], "prompt": text}]. `rows_of` says what these are:
{"first": the file's frame that is their frame 0, "others": rows of the file's other frames, which come back with them}.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from adaflow_core.types import Plan

Row = dict[str, Any]
Rows = list[Row]


class Carried(NamedTuple):
    """Rows and takes in the frames of a plan, what is `rows_of` them, and whether there are rows of new shots."""

    rows: list[Row]
    takes: list[Row]
    rows_of: Row
    new: bool


def carry(plan: Plan, rows: Sequence[Row], takes: Iterable[Row], rows_of: Row | None) -> Carried:
    """The rows and takes of a file's frames for the plan of any range of them.

    Every frame keeps its prompt. One that had none takes that of its shot; a shot that had none gets a row without one.
    Of takes those of other frames go.
    """
    first, frames = plan.video.start, len(plan.video)
    begun = int((rows_of or {}).get("first", first))
    end, shots = first + frames, {first + int(cut) for cut in plan.segments.cuts}
    shown = [_moved(row, begun) for row in rows]
    inside: list[Row] = []
    others: list[Row] = []
    for row in sorted([*shown, *(rows_of or {}).get("others", ())], key=lambda row: int(row["frames"][0])):
        a, b = row["frames"]
        inside += _part(row, max(a, first), min(b, end))
        if row["prompt"]:
            others += [*_part(row, a, min(b, first)), *_part(row, max(a, end), b)]
    apart = shots | {int(row["frames"][0]) for row in shown[1:]}  # the visitor split them there
    filled, new = _filled(inside, first, end, shots)
    made = [_moved(row, -first) for row in _joined(filled, apart)]
    moved = [_moved(take, begun - first) for take in takes]
    kept = [part for take in moved for part in _part(take, max(take["frames"][0], 0), min(take["frames"][1], frames))]
    return Carried(made, kept, {"first": first, "others": others}, new)


def _moved(row: Row, by: int) -> Row:
    return row | {"frames": [int(frame) + by for frame in row["frames"]]}


def _part(row: Row, start: int, end: int) -> list[Row]:
    """The row in these frames, if there are any."""
    return [row | {"frames": [start, end]}] if start < end else []


def _filled(rows: Sequence[Row], first: int, end: int, shots: set[int]) -> tuple[list[Row], bool]:
    """The rows with what fills the gaps between them, and whether some of that are new rows."""
    filled: list[Row] = []
    new = False
    for row in [*rows, {"frames": [end, end]}]:
        start, stop = row["frames"]
        done = filled[-1]["frames"][1] if filled else first
        borders = sorted({done, start, *(cut for cut in shots if done < cut < start)})
        for a, b in pairwise(borders):
            if filled and filled[-1]["frames"][1] == a and a not in shots:
                filled[-1] = filled[-1] | {"frames": [filled[-1]["frames"][0], b]}
            elif b == start < stop and b not in shots:
                start = a
            else:
                filled.append({"frames": [a, b], "prompt": ""})
                new = True
        filled += _part(row, start, stop)
    return filled, new


def _joined(rows: Sequence[Row], apart: set[int]) -> list[Row]:
    """The rows, those as one that touch and say the same, but for where they are to stay `apart`."""
    joined: list[Row] = []
    for row in rows:
        last = joined[-1] if joined else None
        if last is not None and row["frames"][0] not in apart and last | {"frames": row["frames"]} == row:
            joined[-1] = last | {"frames": [last["frames"][0], row["frames"][1]]}
        else:
            joined.append(row)
    return joined
