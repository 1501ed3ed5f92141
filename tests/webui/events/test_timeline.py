"""Looking into a plan, and keyframes that are set by hand."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import gradio as gr
import numpy as np
import pytest

from adaflow_core.config import PlanConfig
from helpers.plans import FINE, small_plan
from webui.events.timeline import TimelineEvents, set_by_hand
from webui.jobs.tasks import Request
from webui.studio import Studio
from webui.views import ADD, AUTOMATIC, MOVE, REMOVE


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
    assert set_by_hand(small_plan(), frame, action) == keyframes
    PlanConfig(keyframes_at=keyframes)


@pytest.mark.parametrize(("action", "frame"), [(ADD, 10), (MOVE, 10), (REMOVE, 11)])
def test_what_is_there_already_or_is_not_there_is_said(action: str, frame: int) -> None:
    with pytest.raises(gr.Error, match="keyframe"):
        set_by_hand(small_plan(), frame, action)


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[TimelineEvents, str]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    studio = Studio("embedded", "cpu", tmp_path / "results")
    return TimelineEvents(studio), studio.store_plan(Request("/videos/my clip.mp4", PlanConfig()), small_plan())


def test_a_plan_is_given_as_files_named_after_its_video(planned: tuple[TimelineEvents, str]) -> None:
    events, plan_id = planned
    path = Path(asyncio.run(events.plan_file(plan_id, "json")))
    assert path.name == "my-clip-plan.json" and json.loads(path.read_text())["keyframes"] == [3, 10, 17]
    arrays = np.load(asyncio.run(events.plan_file(plan_id, "npz")))
    assert arrays["mask_4x6"].shape == (3, 3, FINE.n) and arrays["residual"].shape == (20,)
    with pytest.raises(gr.Error, match="npz"):
        asyncio.run(events.plan_file(plan_id, "../x"))
    with pytest.raises(gr.Error, match="preview the keyframes first"):
        asyncio.run(events.plan_file("unknown", "json"))


def test_a_point_and_a_column_are_shown(planned: tuple[TimelineEvents, str]) -> None:
    events, plan_id = planned
    found = events.matches(plan_id, 5, 20, 30)
    assert len(found.matches.value) == 2 and "At (20, 30)" in found.match_sentence
    assert events.column(plan_id, 3) != events.column(plan_id, 40)
    assert events.column(plan_id, 999) == events.column(plan_id, 63)
