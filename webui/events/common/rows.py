"""Rows of prompts for ranges of frames, and how they are carried over when another range of the file is planned.

Rows and takes are lists of {"frames": [first, end], "prompt": text}, counted in the plan's frames. `rows_of` ties them
to the file: {"first": the file's frame that is their frame 0, "others": rows for frames of the file that the plan
leaves out}. The latter come back when a plan includes their frames again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from adaflow_core.types import Plan

Row = dict[str, Any]
Rows = list[Row]


class Carried(NamedTuple):
    """Rows and takes in a plan's frames, their `rows_of`, and whether any row is new (for a shot that had none)."""

    rows: list[Row]
    takes: list[Row]
    rows_of: Row
    new: bool


def carry(plan: Plan, rows: Sequence[Row], takes: Iterable[Row], rows_of: Row | None) -> Carried:
    """Convert rows and takes to the frames of `plan`, which may cover another range of the file.

    Every frame keeps its prompt. A frame without a row joins a row of its shot; a shot without any row gets one with an
    empty prompt. Takes are cut to the plan's frames, and those outside are dropped.
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
    """Return the row limited to these frames as a list; [] if there are no frames."""
    return [row | {"frames": [start, end]}] if start < end else []


def _filled(rows: Sequence[Row], first: int, end: int, shots: set[int]) -> tuple[list[Row], bool]:
    """Fill the gaps between the rows, and return them with whether that took new rows."""
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
    """Merge adjacent rows that differ only in their frames, except at the frames in `apart`."""
    joined: list[Row] = []
    for row in rows:
        last = joined[-1] if joined else None
        if last is not None and row["frames"][0] not in apart and last | {"frames": row["frames"]} == row:
            joined[-1] = last | {"frames": [last["frames"][0], row["frames"][1]]}
        else:
            joined.append(row)
    return joined
