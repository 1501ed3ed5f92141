"""The forecast: finished edits correct it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.editing.forecasting import forecast
from adaflow_core.editing.forecasting.calibration import Calibration
from adaflow_core.editing.forecasting.forecast import KIND, Measurement, after_edit, corrected, measure_anew, of_crop
from adaflow_core.engine import AdaFlow
from adaflow_core.model.backbone import Backbone
from adaflow_core.storage.cache import Cache
from adaflow_core.types import Forecast
from helpers.plans import small_plan

PIECES = Calibration(
    unet=1.0, until_conv=0.5, propagated=0.8, decode=0.1, encode=0.1, follow=0.1, smooth=0.1, carry=0.1, restore=0.1,
    extended=1e-9, row_bytes=1, gate_bytes=1, decode_bytes=1,
)  # fmt: skip


def test_an_edit_near_its_forecast_moves_it_half_the_way() -> None:
    told = Measurement(PIECES).told(14.4, 10.0)
    assert told.factor == pytest.approx(1.2) and told.edits == 1 and told.calibration == PIECES
    assert Measurement(PIECES).told(2.0, 1.0) == Measurement(PIECES), "a short one tells nothing"


def test_an_edit_far_from_its_forecast_moves_it_all_the_way() -> None:
    assert Measurement(PIECES, factor=2.0, edits=3).told(30.0, 360.0).factor == pytest.approx(2 / 12)
    assert Measurement(PIECES).told(360.0, 30.0).factor == pytest.approx(12.0)


def test_a_plan_made_before_is_corrected_too(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.get(KIND, "here", lambda _: asdict(Measurement(PIECES)))
    made = Forecast({"edit": 300.0, "invert": 60.0}, 1, measurement="here", pace=1.0)
    assert corrected(made, cache) == made
    cache.renew(KIND, "here", asdict(Measurement(replace(PIECES, unet=0.05), factor=2.0, edits=1)))
    now = corrected(made, cache)
    assert now.total == pytest.approx(36.0) and now.pace == pytest.approx(0.1)
    assert corrected(now, cache) == now
    assert not measure_anew(made, cache), "an edit has confirmed it"
    cache.renew(KIND, "here", asdict(Measurement(PIECES)))
    assert measure_anew(made, cache) and cache.find(KIND, "here") is None
    assert corrected(made, cache) == made


def test_a_finished_edit_mends_what_a_busy_machine_measured(
    tiny_backbone: Callable[[str], Backbone],
    drawn_frames: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forecast, "_TELLING_SECONDS", 0.0)
    engine, settings = AdaFlow(tiny_backbone("sd1"), Cache(tmp_path)), EditConfig(steps=2)
    plan = engine.plan(drawn_frames[:4], PlanConfig(keyframes=2), edit=settings, size=(64, 64))
    right = engine.cache.find(KIND, plan.forecast.measurement)
    assert right is not None
    slow = {name: 1e4 * value for name, value in right["calibration"].items()}
    engine.cache.renew(KIND, plan.forecast.measurement, right | {"calibration": slow})
    plan = engine.plan(drawn_frames[:4], PlanConfig(keyframes=2), edit=settings, size=(64, 64))
    visited: list[str] = []
    result = engine.edit(plan, "a blue ball", settings, progress=lambda step: visited.append(step.stage))
    known = [stage for stage in dict.fromkeys(visited) if stage in plan.forecast.seconds]
    assert known == [stage for stage in plan.forecast.seconds if stage in known], (
        "they come in the order of the forecast"
    )
    took = sum(result.report["seconds"][stage] for stage in ("edit", "decode frames"))
    again = engine.plan(drawn_frames[:4], PlanConfig(keyframes=2), edit=settings, size=(64, 64)).forecast
    now = sum(again.seconds[stage] for stage in ("edit", "decode frames"))
    assert now == pytest.approx(took, rel=0.01) and again.total < plan.forecast.total / 5
    assert corrected(plan.forecast, engine.cache).total < plan.forecast.total / 5


def test_a_crop_takes_its_share_of_each_stage() -> None:
    whole = Forecast({"invert": 10.0, "edit": 30.0}, 4 << 30, "a measurement", 0.5)
    found = of_crop(whole, 0.25)
    assert found.seconds == {"invert": 2.5, "edit": 7.5} and found.total == 10.0
    assert (found.peak_memory_bytes, found.measurement, found.pace) == (4 << 30, "a measurement", 0.5)


def test_the_motion_comes_first_where_it_tells_which_frames_are_edited() -> None:
    stages = ["invert", "place", "edit", "decode source", "decode frames", "flow", "smooth", "carry"]
    agreeing, alone = EditConfig(agreements=2), EditConfig(agreements=0)
    assert forecast._in_order(stages, True, agreeing) == [
        "flow", "invert", "place", "decode source", "edit", "decode frames", "smooth", "carry"
    ]  # fmt: skip
    assert forecast._in_order(stages, False, agreeing)[2:5] == ["decode source", "flow", "edit"]
    assert forecast._in_order(stages, False, alone) == stages


def test_scoring_and_writing_are_forecast_apart(tmp_path: Path) -> None:
    cache, plan = Cache(tmp_path), small_plan()
    plan = replace(plan, forecast=replace(plan.forecast, measurement="here"))
    assert after_edit(plan, cache) == {}
    cache.get(KIND, "here", lambda _: asdict(Measurement(PIECES, factor=2.0)))
    after = after_edit(plan, cache)
    assert after["residual"] == pytest.approx(20 * 2 * 0.1) and after["score"] == pytest.approx(2 * 3 * 4 * 2 * 1.0)
    assert 0 < after["write"] < 1


def test_each_process_filters_what_the_filter_remembers_before_its_part() -> None:
    assert [forecast._filtered(148, size, 0.95) for size in (1, 2, 4)] == [148, 111, 92.5]
    assert forecast._filtered(10_000, 4, 0.95) == 2_500 + 135
