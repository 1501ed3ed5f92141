"""Films of which the model edits some frames and the others are carried, wherever an edit is made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import Stopped
from adaflow_core.film.retake import edited_frame_ids
from adaflow_core.film.timeline import PromptRange, Timeline
from adaflow_core.model.backbone import Backbone
from adaflow_core.motion.carrying import FAR, NEAR
from adaflow_core.picture.by_hand import ByHand
from adaflow_core.picture.region import Region
from adaflow_core.progress import Progress
from adaflow_core.storage.cache import Cache
from adaflow_core.types import Forecast, Plan
from benchmarks.quality.kinds import make_pair

PROMPT = "a blue ball"
EDIT = EditConfig(steps=2, stride=4)
PLAN = PlanConfig(keyframes_at="5", source_prompt="a red ball")


@pytest.fixture(scope="module")
def engine(tiny_backbone: Callable[[str], Backbone], tmp_path_factory: pytest.TempPathFactory) -> AdaFlow:
    return AdaFlow(tiny_backbone("sd1"), Cache(tmp_path_factory.mktemp("carried")))


@pytest.fixture(scope="module")
def plan(engine: AdaFlow, drawn_frames: np.ndarray) -> Plan:
    return engine.plan(drawn_frames, PLAN)


def passed(seen: list[Progress]) -> int:
    """Frames that went through the UNet in each step: in two, and brought to agree between them."""
    return next(p.total for p in seen if p.stage == "edit") // 3


def test_the_model_edits_some_frames_and_keyframes_among_them(engine: AdaFlow, plan: Plan) -> None:
    seen: list[Progress] = []
    result = engine.edit(plan, PROMPT, EDIT, progress=seen.append)
    edited = result.report["edited"]
    assert edited[0] == 0 and edited[-1] == 11 and 5 in edited and max(np.diff(edited)) <= 4
    assert passed(seen) == len(edited) < 12 and result.frames.shape == (12, 64, 64, 3)
    inverted = [p for p in seen if p.stage == "invert"]
    assert inverted[0].total == 2 * len(edited)
    assert {p.total for p in seen if p.stage == "carry"} == {12 - len(edited)}


def test_a_plan_knows_what_will_be_edited_once_the_motion_is_known(
    tiny_backbone: Callable[[str], Backbone], drawn_frames: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = AdaFlow(tiny_backbone("sd1"), Cache(tmp_path))
    flickering = np.array(drawn_frames)
    flickering[6] = 255 - flickering[6]  # of which none can be made
    asked: list[int] = []

    def predict(*given: Any) -> Forecast:
        asked.append(given[2].edited)
        return Forecast({}, 0)

    monkeypatch.setattr(engine._forecasts._forecaster, "predict", predict)
    plan = engine.plan(flickering, PLAN, edit=EDIT)
    edited = len(engine.edit(plan, PROMPT, EDIT).report["edited"])
    engine.plan(flickering, PLAN, edit=EDIT)
    assert asked[0] < edited == asked[-1]


def test_what_keeps_its_shape_is_carried_further(engine: AdaFlow, drawn_frames: np.ndarray) -> None:
    plan = engine.plan(drawn_frames, replace(PLAN, source_prompt="a red ball in the snow"))
    found = {}
    for prompt in ("a blue ball in the snow", "a red ball at night", "a red duck in the snow"):
        report = engine.edit(plan, prompt, replace(EDIT, stride=None)).report
        found[prompt] = report["stride"]
        assert max(np.diff(report["edited"])) <= report["stride"]
    assert list(found.values()) == [FAR, FAR, NEAR]


def test_every_frame_is_edited_at_a_stride_of_one(engine: AdaFlow, plan: Plan) -> None:
    every, some = (
        engine.edit(plan, PROMPT, replace(EDIT, stride=s, agreements=0, smoothing=0.0, outlines=0.0)) for s in (1, 4)
    )
    assert every.report["edited"] == list(range(12))
    edited = some.report["edited"]
    # What the model makes of a frame does not depend on which others it edits, but for the rows of its passes.
    assert np.abs(every.frames[edited].astype(int) - some.frames[edited]).max() <= 1
    assert engine.edit(plan, PROMPT, EDIT).report["inversion_reused"]


def test_a_draft_shows_the_keyframes_and_the_edit_goes_on(engine: AdaFlow, plan: Plan) -> None:
    calm = replace(EDIT, agreements=0, smoothing=0.0, seed=3)
    draft = engine.draft(plan, PROMPT, calm)
    film = engine.edit(plan, PROMPT, calm)
    np.testing.assert_array_equal(film.frames[draft.keyframes], draft.frames)


@pytest.mark.thorough
def test_a_stopped_edit_goes_on_to_the_same_film(
    tiny_backbone: Callable[[str], Backbone], drawn_frames: np.ndarray, tmp_path: Path
) -> None:
    def film(name: str) -> tuple[AdaFlow, Plan]:
        engine = AdaFlow(tiny_backbone("sd1"), Cache(tmp_path / name))
        return engine, engine.plan(drawn_frames, PLAN)

    engine, plan = film("at once")
    expected = engine.edit(plan, PROMPT, EDIT)
    for stage in ("edit", "carry"):
        engine, plan = film(stage)
        here: list[bool] = []

        def report(progress: Progress, stage: str = stage, here: list[bool] = here) -> None:
            here.extend([True] * (progress.stage == stage and progress.done > 2 * progress.total // 3))

        with pytest.raises(Stopped):
            engine.edit(plan, PROMPT, EDIT, progress=report, stop=lambda here=here: bool(here))
        again = engine.edit(plan, PROMPT, EDIT)
        assert again.report["resumed_at_step"] > 0
        np.testing.assert_array_equal(again.frames, expected.frames)


def test_a_retake_carries_within_its_stretch(engine: AdaFlow, drawn_frames: np.ndarray) -> None:
    plan = engine.plan(drawn_frames, replace(PLAN, keyframes_at="1,6,10"))
    film = engine.edit(plan, PROMPT, EDIT)
    seen: list[Progress] = []
    again = engine.retake(plan, film, (3, 10), "a red ball, watercolour", EDIT, progress=seen.append)
    np.testing.assert_array_equal(again.frames[:3], film.frames[:3])
    np.testing.assert_array_equal(again.frames[10:], film.frames[10:])
    assert (again.frames[6] != film.frames[6]).any()
    assert passed(seen) < 7 + 2


def test_a_retake_edits_the_frames_that_the_film_did(engine: AdaFlow, drawn_frames: np.ndarray) -> None:
    plan = engine.plan(drawn_frames, replace(PLAN, keyframes_at="1,6,10"))
    film = engine.edit(plan, PROMPT, EDIT)
    seen: list[Progress] = []
    inside = [t for t in film.report["edited"] if 3 <= t < 8]
    engine.retake(plan, film, (3, 8), config=replace(EDIT, seed=4), progress=seen.append)
    assert passed(seen) == len(inside) + 2  # the keyframes on either side
    inverted = [p for p in seen if p.stage == "invert"]
    assert inverted[-1].skipped == inverted[-1].total == 2 * passed(seen)  # all of it was there already
    assert edited_frame_ids(film.report, 3, 8, EDIT.stride).tolist() == inside  # type: ignore[union-attr]
    # Too far apart or much closer than is asked for; an edit of ranges has none where it leaves the source.
    assert edited_frame_ids(film.report, 3, 8, 2) is None and edited_frame_ids(film.report, 3, 8, 16) is None
    ranges = Timeline((PromptRange(0, 4, PROMPT), PromptRange(11, 12, PROMPT)), crossfade=0)
    parts = engine.edit_timeline(plan, ranges, EDIT).report
    assert edited_frame_ids(parts, 0, 4, EDIT.stride) is not None
    assert edited_frame_ids(parts, 2, 10, EDIT.stride) is None


@pytest.mark.thorough
def test_where_nothing_can_be_held_a_retake_edits_the_same_frames_too(
    engine: AdaFlow, drawn_frames: np.ndarray
) -> None:
    plan = engine.plan(drawn_frames, replace(PLAN, keyframes_at="6"))
    masks = np.zeros((12, 64, 64), bool)
    masks[:, 16:48, 16:48] = True
    for region in (None, Region(masks=masks, feather=0, crop="small")):
        film = engine.edit(plan, PROMPT, EDIT, region=region)
        seen: list[Progress] = []
        take = engine.retake(plan, film, (4, 9), config=replace(EDIT, seed=4), region=region, progress=seen.append)
        inside = [t for t in film.report["edited"] if 4 <= t < 9]
        assert passed(seen) == len(inside)
        if region is None:
            inverted = [p for p in seen if p.stage == "invert"]
            assert inverted[-1].skipped == inverted[-1].total
        np.testing.assert_array_equal(take.frames[[3, 9]], film.frames[[3, 9]])


@pytest.mark.thorough
def test_ranges_are_carried_each_by_itself(engine: AdaFlow, plan: Plan, drawn_frames: np.ndarray) -> None:
    timeline = Timeline((PromptRange(0, 5, PROMPT), PromptRange(7, 12, "a red ball, watercolour")), crossfade=0)
    film = engine.edit_timeline(plan, timeline, EDIT)
    np.testing.assert_array_equal(film.frames[5:7], drawn_frames[5:7])
    assert all((film.frames[t] != drawn_frames[t]).any() for t in (2, 9))


def test_outside_a_region_carried_frames_are_the_source(engine: AdaFlow, plan: Plan, drawn_frames: np.ndarray) -> None:
    masks = np.zeros((12, 64, 64), bool)
    masks[:, 20:40, 20:40] = True
    film = engine.edit(plan, PROMPT, EDIT, region=Region(masks=masks, feather=0))
    np.testing.assert_array_equal(film.frames[~masks], drawn_frames[~masks])
    assert (film.frames[masks] != drawn_frames[masks]).any()


def test_a_frame_by_hand_is_not_carried_away(engine: AdaFlow, plan: Plan, drawn_frames: np.ndarray) -> None:
    painted = np.array(drawn_frames[2])
    painted[10:30, 10:30] = 255, 0, 255
    film = engine.edit(plan, "", EDIT, by_hand=ByHand({2: painted}))
    assert 2 in film.report["edited"]
    assert np.abs(film.frames[2][14:26, 14:26].astype(int) - painted[14:26, 14:26]).mean() < 60


def test_keyframes_that_are_drawn_anew_need_every_frame(engine: AdaFlow, drawn_frames: np.ndarray) -> None:
    plan = engine.plan(drawn_frames, PlanConfig(keyframes=3, resample=True))
    assert engine.edit(plan, PROMPT, EDIT).report["edited"] == list(range(12))


@pytest.mark.slow
def test_where_the_edit_takes_place_is_found_in_the_same_frames(tmp_path: Path) -> None:
    engine = AdaFlow.from_pretrained("embedded", device="cpu", dtype="float32", cache=Cache(tmp_path))
    pair, config, seen = make_pair(0, 5, "val", "cpu"), replace(EDIT, steps=1, focus=1.0), list[Progress]()
    plan = engine.plan(pair.source, PlanConfig(source_prompt=pair.source_prompt, keyframes_at="2"))
    mask = engine.place(plan, pair.prompt, config=config, progress=seen.append).mask
    assert mask is not None and len(mask) == 5
    looked_at = next(p.total for p in seen if p.stage == "place")
    seen.clear()
    edited = engine.edit(plan, pair.prompt, config, progress=seen.append).report["edited"]
    assert len(edited) == looked_at < 5 and "place" not in {p.stage for p in seen}, "the edit takes what was found"
    (carried,) = set(range(5)) - set(edited)
    between = (mask[carried - 1] + mask[carried + 1]) / 2
    assert not np.array_equal(mask[carried - 1], mask[carried + 1])
    np.testing.assert_allclose(mask[carried], between, atol=1e-6)
