"""Rows of prompts for ranges of frames."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from adaflow_core.config import EditConfig, ModelProfile, PlanConfig
from adaflow_core.film.timeline import CROSSFADE, Timeline
from helpers.plans import small_plan
from webui import views
from webui.events.edit import EditEvents
from webui.events.film import FilmEvents
from webui.jobs.tasks import Request
from webui.settings import EDIT, shown_values
from webui.studio import Studio
from webui.wiring.rows import _by_shot, _missing_rows, _show_rows

NOTHING: Any = None


@pytest.mark.parametrize(
    ("first", "second", "prompt", "source"),
    [
        (("a ball", "a cube"), ("a star", None), "a ball", "a cube"),
        (("", None), ("a star", "a cube"), "a star", "a cube"),
        (("a ball", None), ("a star", "a cube"), "a ball", None),
    ],
)
def test_rows_that_are_merged_say_what_one_of_them_said(
    first: tuple[str, str | None], second: tuple[str, str | None], prompt: str, source: str | None
) -> None:
    """With what is in its frames now, which is no part of the row that a visitor sees."""
    texts = (("prompt", "source_prompt"), first), (("prompt", "source_prompt"), second)
    rows: list[dict[str, Any]] = [
        {"frames": span} | {name: text for name, text in zip(*each, strict=True) if text is not None}
        for span, each in zip(([0, 4], [4, 9]), texts, strict=True)
    ]
    (row,), _ = FilmEvents(NOTHING, [], NOTHING).merge(rows, 0, 0)
    assert (row["frames"], row["prompt"], row.get("source_prompt")) == ([0, 9], prompt, source)


def test_a_row_is_split_only_where_a_frame_is_given() -> None:
    rows = [{"frames": [0, 9], "prompt": "a ball"}]
    with pytest.raises(gr.Error, match="can be split at 1 to 8"):
        FilmEvents(NOTHING, [], NOTHING).split(rows, 0, None, 0)


def test_fields_of_edits_and_retakes_that_were_cleared_ask_for_what_is_usual() -> None:
    finished = SimpleNamespace(asked=SimpleNamespace(config=EditConfig(steps=3, seed=4, variation=0.2)))
    studio: Any = SimpleNamespace(
        public=False,
        jobs=SimpleNamespace(snapshot=lambda job: job),
        find_plan=lambda plan_id: None,
        finished=lambda job: finished,
        profile=lambda model: ModelProfile(),
        edit=lambda plan_id, timeline, *others: timeline,
        retake=lambda job, frames, prompt, config: config,
    )
    editing = EditEvents(studio)
    rows = [{"frames": [0, 9], "prompt": "a ball"}]
    timeline: Any = editing.edit(
        None, "", views.BY_SHOT, rows, None, [], "source", None, *shown_values(EDIT, ModelProfile())
    )
    assert isinstance(timeline, Timeline) and timeline.crossfade == CROSSFADE
    config: Any = FilmEvents(studio, [], editing).retake("job", 0, 4, "", None, None)
    assert config == EditConfig(steps=3)


def test_rows_are_made_after_a_reload_where_they_are_shown_and_there_are_none(tmp_path: Path) -> None:
    studio = Studio("embedded", "cpu", tmp_path)
    film, plan_id = FilmEvents(studio, [], NOTHING), studio.store_plan(Request("a.mp4", PlanConfig()), small_plan())
    made = _missing_rows(film, plan_id, views.BY_SHOT, "a cube", [], 3)
    assert [row["frames"] for row in made.prompts] == [[0, 14], [14, 20]] and made.prompts_version == 4
    assert {row["prompt"] for row in made.prompts} == {"a cube"}
    for others in (
        (plan_id, views.ONE, "", []),
        ("", views.BY_SHOT, "", []),
        (plan_id, views.BY_SHOT, "", made.prompts),
    ):
        assert _missing_rows(film, *others, 3) == (gr.skip(), gr.skip())


def test_what_a_row_or_several_prompts_do_not_allow_is_not_offered() -> None:
    """And where drafts and places were a sentence says why."""
    film: Any = SimpleNamespace(row_pictures=lambda plan_id, row: ("", "Frames"), split=None, merge=None)
    rows = [{"frames": [0, 4], "prompt": "a ball"}, {"frames": [4, 5], "prompt": "a cube"}]
    with gr.Blocks() as blocks:
        edit: Any = SimpleNamespace(prompts=gr.JSON(), prompts_version=gr.Number())
        _show_rows(film, edit, [edit.prompts, edit.prompts_version], rows, "plan")
    buttons = [block for block in blocks.blocks.values() if isinstance(block, gr.Button)]
    assert [(button.value, button.visible) for button in buttons] == [
        ("Split", True), ("Merge with the next", True), ("Split", False), ("Merge with the next", False),
    ]  # fmt: skip
    assert all(button.interactive for button in buttons)
    for prompting, one in ((views.ONE, True), (views.BY_SHOT, False)):
        prompt, timeline, sentence, *of_one = _by_shot(prompting)
        assert prompt.visible == one and timeline.visible == sentence.visible == (not one)
        assert [component.visible for component in of_one] == [one] * 3
