"""Prompts of ranges of frames: a row for each shot, to split and to merge."""

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
    """The rows of prompts; `common/rows.py` says what they are of."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def shots(
        self, plan_id: str | None, rows: Rows, version: float, rows_of: dict[str, Any], takes: Any, prompt: str = ""
    ) -> RowsOutputs:
        """A row for each shot of the plan; of rows that are there every frame keeps its prompt.

        While none has a prompt, all get `prompt`.
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
        """The rows, if there are any, and takes for another plan, whose pictures the rows show."""
        fitted = self.shots(plan_id, rows, version, rows_of, takes)
        if not rows:
            fitted = unchanged(RowsOutputs, rows_of=fitted.rows_of, takes=fitted.takes)
        # What is right already is not sent again: by the time that it comes it may be typed over, or taken away.
        same = {name: gr.skip() for name, was in (("prompts", rows), ("takes", takes)) if getattr(fitted, name) == was}
        return fitted._replace(**same)

    def split(self, frames: tuple[int, int], rows: Rows, frame: float | None, version: float) -> RowsOutputs:
        """The row of `frames` in two, the second beginning at `frame`; nothing where that row is gone."""
        number = _number_of(rows, frames)
        if number is None:
            return unchanged(RowsOutputs)
        row, (first, end) = rows[number], frames
        if frame is None or not first < int(frame) < end:
            raise refusal(f"frames {first} to {end} can be split at {first + 1} to {end - 1}")
        parts = [row | {"frames": [first, int(frame)]}, row | {"frames": [int(frame), end]}]
        return _rows([*rows[:number], *parts, *rows[number + 1 :]], version)

    def merge(self, frames: tuple[int, int], rows: Rows, version: float) -> RowsOutputs:
        """The row of `frames` and the next as one, under the first one's prompt; nothing where one of them is gone."""
        number = _number_of(rows, frames)
        if number is None or number + 1 == len(rows):
            return unchanged(RowsOutputs)
        one, other = rows[number], rows[number + 1]
        whole = (one if one["prompt"] else other) | {"frames": [one["frames"][0], other["frames"][1]]}
        return _rows([*rows[:number], whole, *rows[number + 2 :]], version)

    def row_pictures(self, plan_id: str | None, row: dict[str, Any]) -> tuple[str, str]:
        """First, middle and last frame of a row as one picture, and what the row covers."""
        stored = self.studio.kept.find_plan(plan_id)
        first, end = row["frames"]
        words = f"Frames {first} to {end - 1}"
        if stored is None or end > len(stored.plan.video):
            return "", words
        plan = stored.plan
        picture = views.strip(plan.video.frames, (first, (first + end - 1) // 2, end - 1))
        return views.image(picture, words), f"{words}, {plan.video.stamp(first).split(',')[0]} on"


def _number_of(rows: Rows, frames: tuple[int, int]) -> int | None:
    """Which of the rows, from 0, is that of `frames`."""
    return next((number for number, row in enumerate(rows or []) if tuple(row["frames"]) == frames), None)


def _rows(rows: Rows, version: float) -> RowsOutputs:
    """Other rows for the same frames."""
    return unchanged(RowsOutputs, prompts=rows, prompts_version=version + 1)
