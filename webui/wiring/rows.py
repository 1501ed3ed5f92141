"""Step 3: a prompt for each shot."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gradio as gr

from webui.components.edit import EditStep
from webui.events.common.outputs import RowsOutputs, collect, unchanged
from webui.events.common.rows import Rows
from webui.events.ranges import RangeEvents
from webui.messages import quietly, refusal
from webui.views import labels
from webui.wiring.shared import PRIVATE, Events, Steps, plan_first, when_plan_changes

# What is typed into a row.
_SET_PROMPT = "(rows, text) => [rows.map((row) => `${row.frames}` === '%d,%d' ? { ...row, prompt: text } : row)]"


def connect_rows(events: Events, steps: Steps) -> None:
    """A prompt for each shot: the rows, and what is done to them."""
    ranges, plan, edit = events.ranges, steps.plan, steps.edit
    rows = collect(RowsOutputs._fields, edit)
    of_one = [edit.show_place, edit.try_it, edit.tried]
    edit.prompting.change(
        _by_shot, edit.prompting, [edit.prompt, edit.timeline, edit.of_one_prompt, *of_one], **PRIVATE
    )
    wanted = edit.prompting.input(_refuse_one, edit.prompting, None, **PRIVATE)
    asked = [plan.plan_id, *rows, edit.prompt]
    plan_first(wanted, edit.draft_progress, events, steps).success(ranges.shots, asked, rows, **PRIVATE)
    when_plan_changes(steps)(quietly(ranges.fit_shots), [plan.plan_id, *rows], rows, **PRIVATE)
    add_rows(when_plan_changes(steps), ranges, steps)
    with edit.rows:
        gr.render([edit.prompts, plan.plan_id], [edit.prompts_version.change], show_progress="hidden")(
            lambda prompts, plan_id: _show_rows(ranges, edit, rows, prompts, plan_id)
        )


def add_rows(when: Callable[..., gr.events.Dependency], ranges: RangeEvents, steps: Steps) -> None:
    """The rows, where they are to be shown and there are none: a reload or Stop may have ended what makes them."""
    edit = steps.edit
    rows, asked = collect(RowsOutputs._fields, edit), [steps.plan.plan_id, edit.prompting, edit.prompt]
    when(partial(_missing_rows, ranges), [*asked, *rows], rows, **PRIVATE)


def _missing_rows(
    ranges: RangeEvents,
    plan_id: str,
    prompting: str,
    prompt: str,
    prompts: Rows,
    version: float,
    rows_of: dict[str, Any],
    takes: Any,
) -> RowsOutputs:
    if prompting == labels.ONE or prompts or ranges.studio.kept.find_plan(plan_id) is None:
        return unchanged(RowsOutputs)
    return ranges.shots(plan_id, prompts, version, rows_of, takes, prompt)


def _show_rows(ranges: RangeEvents, edit: EditStep, rows: list[Any], prompts: Rows, plan_id: str) -> None:
    """A picture, the prompt, and what splits and merges, for each range."""
    for number, row in enumerate(prompts or []):
        picture, words = ranges.row_pictures(plan_id, row)
        first, end = row["frames"]
        with gr.Row(elem_classes="af-row"):
            gr.HTML(picture, min_width=160, elem_classes="af-row-pictures")
            with gr.Column(scale=3, min_width=260):
                # Told that they can be changed: as inputs of such events alone they would be locked.
                box = gr.Textbox(row["prompt"], label=words, placeholder="left as it is", max_lines=3, interactive=True)
                # What cannot be done with a row is not offered: one frame is not split, and after the last row is none.
                with gr.Row():
                    at = gr.Number(
                        (first + end) // 2,
                        precision=0,
                        label=f"Split row {number + 1} at frame",
                        min_width=90,
                        interactive=True,
                        visible=end - first > 1,
                    )
                    cut = gr.Button("Split", size="sm", min_width=70, visible=end - first > 1)
                    join = gr.Button("Merge with the next", size="sm", min_width=120,
                                     visible=number + 1 < len(prompts))  # fmt: skip
        # In the browser, so that what is typed is there with the next click.
        # By its frames and not its number: a second click may come before the rows are drawn anew.
        box.change(None, [edit.prompts, box], edit.prompts, js=_SET_PROMPT % (first, end), **PRIVATE)
        cut.click(partial(ranges.split, (first, end)), [edit.prompts, at, edit.prompts_version], rows, **PRIVATE)
        join.click(partial(ranges.merge, (first, end)), [edit.prompts, edit.prompts_version], rows, **PRIVATE)


def _by_shot(prompting: str) -> tuple[Any, ...]:
    """The prompt or the rows. Places and drafts are of one prompt: with more a sentence stands in their place."""
    one = prompting == labels.ONE
    of_one = gr.Button(visible=one), gr.Button(visible=one), gr.Dropdown(visible=one)
    return gr.Textbox(visible=one), gr.Column(visible=not one), gr.HTML(visible=not one), *of_one


def _refuse_one(prompting: str) -> None:
    """With one prompt nothing follows: there are no rows to be shown."""
    if prompting == labels.ONE:
        raise refusal("there is one prompt", visible=False)
