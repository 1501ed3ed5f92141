"""Rows of prompts for ranges of frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest

from adaflow_core.config import EditConfig, ModelProfile, PlanConfig
from adaflow_core.film.project import Project
from adaflow_core.film.timeline import CROSSFADE, Timeline
from helpers.plans import small_plan
from webui.events.common.outputs import ProjectOutputs, RowsOutputs, unchanged
from webui.events.common.rows import carry
from webui.events.edit.edit import EditAsked, EditEvents
from webui.events.edit.retake import RetakeEvents
from webui.events.project import ProjectEvents
from webui.events.ranges import RangeEvents
from webui.jobs.tasks import Request
from webui.kept import Kept, OverState
from webui.settings import EDIT, shown_values
from webui.studio import Studio
from webui.views import labels
from webui.wiring.rows import _by_shot, _missing_rows, _show_rows

NOTHING: Any = None
WHOLE = 0, 20, 14  # first frame, end and cut, in the file
SHOTS = (0, 14, "a"), (14, 20, "b")


def plan_of(first: int, end: int, *cuts: int) -> Any:
    """A plan of these frames of a file, whose shots begin at `cuts`."""
    video = replace(small_plan().video, frames=np.zeros((end - first, 1, 1, 3), np.uint8), start=first)
    return SimpleNamespace(video=video, segments=SimpleNamespace(cuts=np.array(cuts, int) - first))


def as_rows(*rows: tuple[int, int, str]) -> list[dict[str, Any]]:
    return [{"frames": [first, end], "prompt": prompt} for first, end, prompt in rows]


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([(0, 10)], [(0, 10, "a")]),
        ([(5, 20, 14)], [(0, 9, "a"), (9, 15, "b")]),
        ([(0, 30, 14)], [(0, 14, "a"), (14, 30, "b")]),  # of the same shot
        ([(0, 30, 14, 20)], [(0, 14, "a"), (14, 20, "b"), (20, 30, "")]),
        ([(40, 60, 50)], [(0, 10, ""), (10, 20, "")]),  # as many frames elsewhere
        ([(0, 10), (0, 5), WHOLE], list(SHOTS)),
        ([(40, 60, 50), WHOLE], list(SHOTS)),
        ([WHOLE], list(SHOTS)),
    ],
)
def test_with_another_range_every_frame_of_the_file_keeps_its_prompt(
    ranges: list[tuple[int, ...]], expected: list[tuple[int, int, str]]
) -> None:
    """And no prompt is lost: one of frames that are not edited now comes back with them."""
    rows, rows_of = as_rows(*SHOTS), {"first": 0}
    for first, end, *cuts in ranges:
        rows, _, rows_of, new = carry(plan_of(first, end, *cuts), rows, [], rows_of)
    assert rows == as_rows(*expected) and rows_of["first"] == ranges[-1][0]
    assert new == any(not row["prompt"] for row in rows)


def test_an_edit_takes_its_prompts_and_takes_to_the_frames_of_its_plan(tmp_path: Path) -> None:
    """Where these have shots without a prompt, it is not begun before the visitor has seen them."""
    studio = Studio("embedded", "cpu", tmp_path)
    begun: list[Any] = []
    studio.edit = lambda plan_id, timeline, config, takes, *others, **_: begun.append((timeline.as_json(), takes))  # type: ignore[method-assign,assignment]
    editing, settings = EditEvents(studio), shown_values(EDIT, ModelProfile())
    plan_id = studio.kept.store_plan(Request("a.mp4", PlanConfig()), small_plan(start=10))
    take = {"frames": [12, 16], "prompt": "a star", "settings": {}}

    def edit(*rows: tuple[int, int, str], prompting: str = labels.BY_SHOT, **rows_of: Any) -> Any:
        editing.edit(plan_id, "x", prompting, as_rows(*rows), rows_of, 8, [take], "source", OverState(), *settings)
        return begun[-1]

    ranges, takes = edit((0, 14, "a"), (14, 24, "b"), (24, 30, ""), first=0)
    assert ranges == as_rows((0, 4, "a"), (4, 14, "b")) and takes[0]["frames"] == [2, 6]
    assert edit((0, 14, "a"), (14, 20, "b")) == (as_rows((0, 14, "a"), (14, 20, "b")), [take]), "by a program"
    assert edit(prompting=labels.ONE, first=0)[1][0]["frames"] == [2, 6]
    rows, others = as_rows((0, 10, "")), {"first": 0, "others": as_rows((10, 30, "a"))}
    editing.check("", EditAsked("x", labels.BY_SHOT, rows, others, 8, [], "source", OverState(), settings))
    assert edit((0, 10, ""), **others)[0] == as_rows((0, 20, "a")), "those of other frames come back with this plan"
    with pytest.raises(gr.Error, match="shots now that have no prompt; give their rows one"):
        edit((0, 24, "a"), first=0)
    fitted = RangeEvents(editing.studio).fit_shots(plan_id, as_rows((0, 24, "a")), 0, {"first": 0}, [take])
    assert [row["frames"] for row in fitted.prompts] == [[0, 14], [14, 20]] and fitted.takes[0]["frames"] == [2, 6]
    same = RangeEvents(editing.studio).fit_shots(plan_id, fitted.prompts, 1, fitted.rows_of, fitted.takes)
    assert (same.prompts, same.takes, same.prompts_version) == (gr.skip(), gr.skip(), 2)
    assert len(edit(*((*row["frames"], row["prompt"]) for row in fitted.prompts), **fitted.rows_of)[0]) == 1


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
    ranges = RangeEvents(NOTHING)
    (row,) = ranges.merge((0, 4), rows, 0).prompts
    assert (row["frames"], row["prompt"], row.get("source_prompt")) == ([0, 9], prompt, source)


def test_a_second_click_on_a_row_that_is_gone_changes_nothing() -> None:
    """The buttons of a row are there until the rows are drawn anew."""
    ranges, rows = RangeEvents(NOTHING), as_rows((0, 4, "a"), (4, 9, "b"), (9, 20, "c"))
    merged = ranges.merge((0, 4), rows, 0)
    assert merged.prompts == as_rows((0, 9, "a"), (9, 20, "c"))
    for again in (
        ranges.merge((0, 4), merged.prompts, 1),
        ranges.split((0, 4), merged.prompts, 2, 1),
    ):
        assert again == unchanged(RowsOutputs)
    assert ranges.merge((9, 20), merged.prompts, 1) == unchanged(RowsOutputs), "after the last row is none"


def test_a_row_is_split_only_where_a_frame_is_given() -> None:
    rows = [{"frames": [0, 9], "prompt": "a ball"}]
    with pytest.raises(gr.Error, match="can be split at 1 to 8"):
        RangeEvents(NOTHING).split((0, 9), rows, None, 0)


def test_fields_of_edits_and_retakes_that_were_cleared_ask_for_what_is_usual() -> None:
    finished = SimpleNamespace(asked=SimpleNamespace(config=EditConfig(steps=3, seed=4, variation=0.2)))
    studio: Any = SimpleNamespace(
        public=False,
        jobs=SimpleNamespace(snapshot=lambda job: job),
        kept=Kept(),
        finished=lambda job: finished,
        profile=lambda model: ModelProfile(),
        edit=lambda plan_id, timeline, *others, **_: timeline,
        retake=lambda job, frames, prompt, config: config,
    )
    editing = EditEvents(studio)
    rows = [{"frames": [0, 9], "prompt": "a ball"}]
    timeline: Any = editing.edit(
        None, "", labels.BY_SHOT, rows, None, None, [], "source", OverState(), *shown_values(EDIT, ModelProfile())
    )
    assert isinstance(timeline, Timeline) and timeline.crossfade == CROSSFADE
    config: Any = RetakeEvents(editing).retake("job", 0, 4, "", None, None)
    assert config == EditConfig(steps=3)


def test_rows_of_a_project_are_of_its_frames(drawn_clip: Path, tmp_path: Path) -> None:
    file = tmp_path / "project.json"
    prompts = tuple(as_rows((0, 3, "a"), (3, 6, "b")))
    Project(drawn_clip, PlanConfig(), EditConfig(), prompts, model="embedded", frames="-8:-2").save(file)
    projects = ProjectEvents(Studio("embedded", "cpu", tmp_path), [])
    opened = ProjectOutputs(*projects.open_project(str(file), str(drawn_clip))[: len(ProjectOutputs._fields)])
    assert opened.prompts == list(prompts) and opened.rows_of == {"first": 4}, "of 12 frames"


def test_rows_are_made_after_a_reload_where_they_are_shown_and_there_are_none(tmp_path: Path) -> None:
    studio = Studio("embedded", "cpu", tmp_path)
    ranges, plan_id = (
        RangeEvents(studio),
        studio.kept.store_plan(Request("a.mp4", PlanConfig()), small_plan()),
    )
    made = _missing_rows(ranges, plan_id, labels.BY_SHOT, "a cube", [], 3, {}, [])
    assert [row["frames"] for row in made.prompts] == [[0, 14], [14, 20]] and made.prompts_version == 4
    assert {row["prompt"] for row in made.prompts} == {"a cube"}
    for others in (
        (plan_id, labels.ONE, "", []),
        ("", labels.BY_SHOT, "", []),
        (plan_id, labels.BY_SHOT, "", made.prompts),
    ):
        assert _missing_rows(ranges, *others, 3, {}, []) == unchanged(RowsOutputs)


def test_what_a_row_or_several_prompts_do_not_allow_is_not_offered() -> None:
    """And where drafts and places were a sentence says why."""
    ranges: Any = SimpleNamespace(row_pictures=lambda plan_id, row: ("", "Frames"), split=print, merge=print)
    rows = [{"frames": [0, 4], "prompt": "a ball"}, {"frames": [4, 5], "prompt": "a cube"}]
    with gr.Blocks() as blocks:
        edit: Any = SimpleNamespace(prompts=gr.JSON(), prompts_version=gr.Number())
        _show_rows(ranges, edit, [edit.prompts, edit.prompts_version], rows, "plan")
    buttons = [block for block in blocks.blocks.values() if isinstance(block, gr.Button)]
    assert [(button.value, button.visible) for button in buttons] == [
        ("Split", True), ("Merge with the next", True), ("Split", False), ("Merge with the next", False),
    ]  # fmt: skip
    assert all(button.interactive for button in buttons)
    for prompting, one in ((labels.ONE, True), (labels.BY_SHOT, False)):
        prompt, timeline, sentence, *of_one = _by_shot(prompting)
        assert prompt.visible == one and timeline.visible == sentence.visible == (not one)
        assert [component.visible for component in of_one] == [one] * 3
