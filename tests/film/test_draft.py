"""A draft shows the very keyframes that the edit will have, and the edit goes on from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.editing.inversion import invert, load_inversion
from adaflow_core.engine import AdaFlow
from adaflow_core.engine.edit_job import EditJob
from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.film.draft import Draft, contact_sheet
from adaflow_core.film.known import draft_key, is_kept
from adaflow_core.model.backbone import Backbone
from adaflow_core.picture.over import NOTHING
from adaflow_core.progress import Monitor, Progress
from adaflow_core.storage.cache import Cache
from adaflow_core.types import EditResult
from helpers.plans import small_plan

PROMPT = "a blue ball"
PLAN = PlanConfig(keyframes=3, source_prompt="a red ball")
EDIT = EditConfig(steps=3, inversion_steps=3, chunk=8, agreements=0, smoothing=0.0, stride=1)


@pytest.fixture
def backbone(tiny_backbone: Callable[[str], Backbone]) -> Backbone:
    return tiny_backbone("sd1")


@pytest.fixture
def film(drawn_frames: np.ndarray) -> np.ndarray:
    return drawn_frames[:7]  # no multiple of a pass


@pytest.mark.parametrize(
    ("plan", "edit"),
    [
        ({}, {}),
        pytest.param({}, {"focus": 0.0, "fidelity": 1.0, "tolerance": 0.1}, marks=pytest.mark.thorough),
        pytest.param({"method": "uniform"}, {"propagation": "output"}, marks=pytest.mark.thorough),
        ({"method": "per-frame", "keyframes": None}, {"chunk": 2}),
    ],
)
def test_a_draft_shows_the_keyframes_of_the_edit_that_goes_on_from_it(
    backbone: Backbone, film: np.ndarray, tmp_path: Path, plan: dict[str, object], edit: dict[str, object]
) -> None:
    config = replace(EDIT, **edit)
    drafting, direct = (AdaFlow(backbone, Cache(tmp_path / name)) for name in ("drafting", "direct"))
    planned = drafting.plan(film, replace(PLAN, **plan))
    draft = drafting.draft(planned, PROMPT, config)
    seen: list[Progress] = []
    result = drafting.edit(planned, PROMPT, config, progress=seen.append)
    at_once = direct.edit(direct.plan(film, replace(PLAN, **plan)), PROMPT, config)
    np.testing.assert_array_equal(result.frames, at_once.frames)
    np.testing.assert_array_equal(draft.frames, result.frames[draft.keyframes])
    numbers = planned.layout.keyframes.tolist()
    assert draft.report["keyframes"] == draft.report["edited"] == draft.keyframes.tolist() == numbers
    assert draft.report["frames"] == 7 and draft.report["prompts"][0]["frames"] == [0, 7]
    inverted = [p for p in seen if p.stage == "invert"]
    assert not inverted or inverted[0].total * len(draft.keyframes) == inverted[-1].skipped * len(film)


def test_with_smoothing_a_draft_is_what_is_smoothed_later(backbone: Backbone, film: np.ndarray, tmp_path: Path) -> None:
    engine = AdaFlow(backbone, Cache(tmp_path))
    plan = engine.plan(film, PLAN)
    smooth = replace(EDIT, smoothing=0.8)
    draft = engine.draft(plan, PROMPT, smooth)
    np.testing.assert_array_equal(draft.frames, engine.draft(plan, PROMPT, EDIT).frames)
    assert (engine.edit(plan, PROMPT, smooth).frames[draft.keyframes] != draft.frames).any()


def test_a_frames_inversion_does_not_depend_on_the_others(backbone: Backbone, tmp_path: Path) -> None:
    latents = np.random.default_rng(0).standard_normal((7, 4, 8, 8), np.float32)

    def found(name: str, *parts: list[int] | None) -> np.ndarray:
        folder = tmp_path / name
        folder.mkdir()
        for part in parts:
            frames = None if part is None else np.array(part)
            invert(backbone, latents, "a ball", frames, steps=3, inversion_steps=6, rows=4, folder=folder,
                   monitor=Monitor())  # fmt: skip
        return np.array(load_inversion(folder, backbone, 3, "a ball").latents)

    at_once = found("once", None)
    assert np.isfinite(at_once).all()
    np.testing.assert_array_equal(found("parts", [1, 5], [1, 2, 6], None), at_once)
    alone = found("alone", [5])
    np.testing.assert_array_equal(alone[:, 5], at_once[:, 5])
    assert not alone[:, :5].any()


def test_a_draft_is_kept_and_a_stopped_one_goes_on(backbone: Backbone, film: np.ndarray, tmp_path: Path) -> None:
    engine = AdaFlow(backbone, Cache(tmp_path))
    plan = engine.plan(film, PLAN)
    seen: list[Progress] = []

    def stop() -> bool:
        return any(p.stage == "edit" and p.done >= 2 * 3 for p in seen)  # in the second step

    with pytest.raises(Stopped):
        engine.draft(plan, PROMPT, EDIT, progress=seen.append, stop=stop)
    seen.clear()
    assert not is_kept(engine.cache, draft_key(plan, PROMPT, EDIT, NOTHING.asked))
    draft = engine.draft(plan, PROMPT, EDIT, progress=seen.append)
    assert draft.report["resumed_at_step"] == 1 and is_kept(engine.cache, draft_key(plan, PROMPT, EDIT, NOTHING.asked))
    assert all(p.skipped == p.total for p in seen if p.stage == "invert" and p.done)
    seen.clear()
    np.testing.assert_array_equal(engine.draft(plan, PROMPT, EDIT, progress=seen.append).frames, draft.frames)
    assert not seen
    fresh = AdaFlow(backbone, Cache(tmp_path / "fresh"))
    np.testing.assert_array_equal(fresh.draft(fresh.plan(film, PLAN), PROMPT, EDIT).frames, draft.frames)


def test_what_is_said_of_a_run_is_not_kept_with_the_draft(
    backbone: Backbone, film: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, edit = AdaFlow(backbone, Cache(tmp_path)), EditJob.edit

    def noted(job: EditJob, **how: Any) -> EditResult:
        job.monitor.note("the disk is full")
        return edit(job, **how)

    monkeypatch.setattr(EditJob, "edit", noted)
    plan = engine.plan(film, PLAN)
    first, again = (engine.draft(plan, "a zeppelin", EDIT) for _ in range(2))
    assert first.warnings[0] == "the disk is full" and first.warnings[1:] == again.warnings
    assert "zeppelin" in again.warnings[0]
    assert [each.report["warnings"] for each in (first, again)] == [list(first.warnings), list(again.warnings)]


def test_keyframes_that_change_at_every_step_have_no_draft(
    backbone: Backbone, film: np.ndarray, tmp_path: Path
) -> None:
    engine = AdaFlow(backbone, Cache(tmp_path))
    with pytest.raises(AdaFlowError, match="without resample"):
        engine.draft(engine.plan(film, replace(PLAN, resample=True)), PROMPT, EDIT)


def test_a_draft_takes_less_than_its_edit(backbone: Backbone, film: np.ndarray, tmp_path: Path) -> None:
    engine = AdaFlow(backbone, Cache(tmp_path))
    plan = engine.plan(film, PLAN)
    assert 0 < engine.forecast_draft(plan).total < plan.forecast.total
    assert engine.forecast_draft(plan).seconds == pytest.approx(plan.forecast.of_keyframes)


def test_a_contact_sheet_has_the_source_above_each_draft(backbone: Backbone, film: np.ndarray, tmp_path: Path) -> None:
    engine = AdaFlow(backbone, Cache(tmp_path))
    plan = engine.plan(film, PLAN)
    drafts = [(f"seed {seed}", engine.draft(plan, PROMPT, replace(EDIT, seed=seed, variation=0.5))) for seed in (0, 1)]
    assert (drafts[0][1].frames != drafts[1][1].frames).any()
    one, two = (contact_sheet(plan, drafts[:count]) for count in (1, 2))
    assert two.shape[1] == one.shape[1] and two.shape[0] > one.shape[0]
    assert (contact_sheet(plan, drafts[1:]) != one).any()
    # Of a range of a file the stamp says the file's frame as well, and has two lines.
    ranged = replace(plan, video=replace(plan.video, start=100))
    assert contact_sheet(ranged, drafts[:1]).shape[0] == one.shape[0] + 18


def test_narrow_pictures_keep_their_shape_in_a_contact_sheet() -> None:
    plan = small_plan()
    frames = np.zeros((20, 64, 36, 3), np.uint8)
    plan, draft = replace(plan, video=replace(plan.video, frames=frames)), Draft(np.array([3, 10, 17]), frames[:3], {})
    sheet = contact_sheet(plan, [("a draft", draft)], height=64)
    for row in (76, 76 + 64 + 26):  # the middles of the source's pictures and of the draft's
        drawn = np.flatnonzero(sheet[row].max(axis=1) < 128)
        assert len(drawn) == 3 * 36 and drawn[:36].mean() == pytest.approx(8 + 52, abs=1)
