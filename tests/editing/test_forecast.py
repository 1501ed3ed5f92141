"""The forecast: finished edits correct it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.editing import forecast
from adaflow_core.editing.calibration import Calibration
from adaflow_core.editing.forecast import KIND, Measurement, corrected, measure_anew, of_crop
from adaflow_core.engine import AdaFlow
from adaflow_core.model.backbone import Backbone
from adaflow_core.storage.cache import Cache
from adaflow_core.types import Forecast

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
    result = engine.edit(plan, "a blue ball", settings)
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


def test_each_process_filters_what_the_filter_remembers_before_its_part() -> None:
    assert [forecast._filtered(148, size, 0.95) for size in (1, 2, 4)] == [148, 111, 92.5]
    assert forecast._filtered(10_000, 4, 0.95) == 2_500 + 135
