"""Events of prompts for ranges of frames: one row per shot, which can be split and merged."""

from __future__ import annotations

from typing import Any

import gradio as gr

from webui import views
from webui.events.common.outputs import (
    RowsOutputs,
    unchanged,
)
from webui.events.common.rows import Rows, carry
from webui.messages import refusal
from webui.studio import Studio


class RangeEvents:
    """Makes and changes the rows of prompts; `common/rows.py` describes which frames they refer to."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def shots(
        self, plan_id: str | None, rows: Rows, version: float, rows_of: dict[str, Any], takes: Any, prompt: str = ""
    ) -> RowsOutputs:
        """Make a row for each shot of the plan; frames that already have a row keep its prompt.

        If no row has a prompt, all get `prompt`.
        """
        stored = self.studio.kept.find_plan(plan_id)
        if stored is None:
            raise refusal("there is no plan yet; preview the keyframes first")
        found = carry(stored.plan, rows or (), takes or (), rows_of)
        other = "" if any(row["prompt"] for row in found.rows) else (prompt or "").strip()
        made = [row | {"prompt": row["prompt"] or other} for row in found.rows]
        return RowsOutputs(made, version + 1, found.rows_of, found.takes)

    def fit_shots(
        self, plan_id: str | None, rows: Rows, version: float, rows_of: dict[str, Any], takes: Any
    ) -> RowsOutputs:
        """Fit the rows, if there are any, and the takes to another plan."""
        fitted = self.shots(plan_id, rows, version, rows_of, takes)
        if not rows:
            fitted = unchanged(RowsOutputs, rows_of=fitted.rows_of, takes=fitted.takes)
        # Unchanged values are not sent again, because the visitor may have changed them by the time they arrive.
        same = {name: gr.skip() for name, was in (("prompts", rows), ("takes", takes)) if getattr(fitted, name) == was}
        return fitted._replace(**same)

    def split(self, frames: tuple[int, int], rows: Rows, frame: float | None, version: float) -> RowsOutputs:
        """Split the row of `frames` in two, the second beginning at `frame`; do nothing if that row is gone."""
        number = _number_of(rows, frames)
        if number is None:
            return unchanged(RowsOutputs)
        row, (first, end) = rows[number], frames
        if frame is None or not first < int(frame) < end:
            raise refusal(f"frames {first} to {end} can be split at {first + 1} to {end - 1}")
        parts = [row | {"frames": [first, int(frame)]}, row | {"frames": [int(frame), end]}]
        return _rows([*rows[:number], *parts, *rows[number + 1 :]], version)

    def merge(self, frames: tuple[int, int], rows: Rows, version: float) -> RowsOutputs:
        """Merge the row of `frames` with the next one; do nothing if either is gone.

        The merged row has the first row's prompt, or the second's if the first is empty.
        """
        number = _number_of(rows, frames)
        if number is None or number + 1 == len(rows):
            return unchanged(RowsOutputs)
        one, other = rows[number], rows[number + 1]
        whole = (one if one["prompt"] else other) | {"frames": [one["frames"][0], other["frames"][1]]}
        return _rows([*rows[:number], whole, *rows[number + 2 :]], version)

    def row_pictures(self, plan_id: str | None, row: dict[str, Any]) -> tuple[str, str]:
        """Return the first, middle and last frame of a row as one picture, and a text on the frames it covers."""
        stored = self.studio.kept.find_plan(plan_id)
        first, end = row["frames"]
        words = f"Frames {first} to {end - 1}"
        if stored is None or end > len(stored.plan.video):
            return "", words
        plan = stored.plan
        picture = views.strip(plan.video.frames, (first, (first + end - 1) // 2, end - 1))
        return views.image(picture, words), f"{words}, {plan.video.stamp(first).split(',')[0]} on"


def _number_of(rows: Rows, frames: tuple[int, int]) -> int | None:
    """Return the index of the row of `frames`; None if there is none."""
    return next((number for number, row in enumerate(rows or []) if tuple(row["frames"]) == frames), None)


def _rows(rows: Rows, version: float) -> RowsOutputs:
    """Return outputs with changed rows for the same frames."""
    return unchanged(RowsOutputs, prompts=rows, prompts_version=version + 1)
