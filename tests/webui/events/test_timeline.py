"""Looking into a plan, and keyframes that are set by hand."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest

from adaflow_core.config import PlanConfig
from helpers.plans import FINE, small_plan
from webui.events.timeline import LEAST, TimelineEvents, most_zoom, set_by_hand, window_around
from webui.jobs.tasks import Request
from webui.studio import Studio
from webui.views.labels import ADD, AUTOMATIC, MOVE, REMOVE

KEYFRAMES, CUTS = [3, 10, 17], np.array([14])  # those of `small_plan`


@pytest.mark.parametrize(
    ("action", "frame", "keyframes"),
    [
        (ADD, 6, "3,6,10,17"),
        (REMOVE, 10, "3,17"),
        (MOVE, 5, "5,10,17"),
        (MOVE, 13, "3,13,17"),
        (MOVE, 14, "3,10,14"),  # the nearest of its shot, which begins there
        (AUTOMATIC, 4, ""),
    ],
)
def test_keyframes_are_added_removed_and_moved(action: str, frame: int, keyframes: str) -> None:
    assert set_by_hand(KEYFRAMES, CUTS, frame, action) == keyframes
    PlanConfig(keyframes_at=keyframes)


@pytest.mark.parametrize(("action", "frame"), [(ADD, 10), (MOVE, 10), (REMOVE, 11)])
def test_what_is_there_already_or_is_not_there_is_said(action: str, frame: int) -> None:
    with pytest.raises(gr.Error, match="keyframe"):
        set_by_hand(KEYFRAMES, CUTS, frame, action)


def test_a_shot_may_have_no_keyframe_to_move() -> None:
    with pytest.raises(gr.Error, match="has no keyframe to move"):
        set_by_hand([3, 10], CUTS, 15, MOVE)


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[TimelineEvents, str]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    studio = Studio("embedded", "cpu", tmp_path / "results")
    return TimelineEvents(studio), studio.kept.store_plan(Request("/videos/my clip.mp4", PlanConfig()), small_plan())


def test_a_plan_is_given_as_files_named_after_its_video(planned: tuple[TimelineEvents, str]) -> None:
    events, plan_id = planned
    path = Path(asyncio.run(events.plan_file(plan_id, "json")))
    assert path.name == "my-clip-plan.json" and json.loads(path.read_text())["keyframes"] == [3, 10, 17]
    assert plan_id not in str(path), "the id is a secret, and the file's address may be handed on"
    arrays = np.load(asyncio.run(events.plan_file(plan_id, "npz")))
    assert arrays["mask_4x6"].shape == (3, 3, FINE.n) and arrays["residual"].shape == (20,)
    with pytest.raises(gr.Error, match="npz"):
        asyncio.run(events.plan_file(plan_id, "../x"))
    with pytest.raises(gr.Error, match="preview the keyframes first"):
        asyncio.run(events.plan_file("unknown", "json"))


def test_keyframes_that_are_set_before_the_plan_has_them_stay(planned: tuple[TimelineEvents, str]) -> None:
    events, plan_id = planned
    first = events.by_hand(plan_id, 5, ADD)
    assert first == "3,5,10,17"
    assert events.by_hand(plan_id, 12, ADD, first) == "3,5,10,12,17", "while the first of them is planned"
    assert events.by_hand(plan_id, 3, REMOVE, " 12, 3,3") == "12"
    assert events.by_hand(plan_id, 3, AUTOMATIC, first) == ""
    with pytest.raises(gr.Error, match="keyframes_at"):
        events.by_hand(plan_id, 5, ADD, "five")


def test_a_point_and_a_column_are_shown(planned: tuple[TimelineEvents, str]) -> None:
    events, plan_id = planned
    found = events.matches(plan_id, 5, 20, 30)
    assert len(found.matches.value) == 2 and "At (20, 30)" in found.match_sentence
    assert events.column(plan_id, 3) != events.column(plan_id, 40)
    assert events.column(plan_id, 999) == events.column(plan_id, 63)


def test_a_part_of_the_frames_is_shown_around_one(planned: tuple[TimelineEvents, str]) -> None:
    assert window_around(200, 100, 4) == (75, 125) and window_around(200, 1, 4) == (0, 50)
    assert window_around(200, 199, 4) == (150, 200) and window_around(200, 7, 1) == (0, 200)
    assert window_around(200, 0, 999) == (0, LEAST) and window_around(5, 3, 9) == (0, 5)
    assert most_zoom(200) == 12 and most_zoom(5) == 2
    events, plan_id = planned
    whole, part = events.zoom(plan_id, 19, 1, 3, ""), events.zoom(plan_id, 19, 2, 3, "")
    assert whole.window == (0, 20) and part.window == (4, 20)
    assert whole.timeline != part.timeline and whole.time_slice == events.column(plan_id, 3) != part.time_slice
    assert events.column(plan_id, 3, part.window) == part.time_slice
    assert events.keep_in_view(plan_id, 2, 2, 3, "", part.window).window == (0, 16)
    stays = events.keep_in_view(plan_id, 5, 2, 3, "", part.window)
    assert stays.window == gr.skip() and events.keep_in_view(plan_id, 5, 1, 3, "", None).window == gr.skip()
    click = gr.SelectData(None, {"index": [500, 100], "value": None})
    assert events.find_clicked_frame(plan_id, part.window, click) == 12
    assert events.find_clicked_frame(plan_id, None, click) == 10


def test_after_an_edit_the_timeline_has_its_residual(
    planned: tuple[TimelineEvents, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    events, plan_id = planned
    plan = small_plan()
    residual = tuple(np.linspace(0, 2, 20).tolist())
    edit: Any = SimpleNamespace(asked=SimpleNamespace(plan=plan), scores=SimpleNamespace(residual=residual))
    before = events.zoom(plan_id, 0, 1, 3, "job").timeline
    monkeypatch.setattr(events.studio, "finished", lambda job_id: edit if job_id == "job" else None)
    assert events.zoom(plan_id, 0, 1, 3, "job").timeline != before == events.zoom(plan_id, 0, 1, 3, "").timeline
    # Of an edit with other keyframes it says nothing about this plan.
    edit.asked.plan = replace(plan, segments=replace(plan.segments, keyframes=np.array([2, 10, 17])))
    assert events.zoom(plan_id, 0, 1, 3, "job").timeline == before
