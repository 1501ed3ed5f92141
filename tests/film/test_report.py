"""The report of a film that was made in stretches: its seconds, and which warnings are of which frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.engine.edit_job import EditJob
from adaflow_core.film.report import _film_seconds
from adaflow_core.film.timeline import PromptRange, Timeline
from adaflow_core.model.backbone import Backbone
from adaflow_core.storage.cache import Cache
from adaflow_core.types import EditResult
from helpers.plans import small_plan

QUICK = EditConfig(steps=2, stride=1)


@pytest.fixture(scope="module")
def engine(tiny_backbone: Callable[[str], Backbone], tmp_path_factory: pytest.TempPathFactory) -> AdaFlow:
    return AdaFlow(tiny_backbone("sd1"), Cache(tmp_path_factory.mktemp("reports")))


def test_the_seconds_of_a_stage_are_added() -> None:
    plan = small_plan()  # of 20 frames, planned in {"features": 1.0}
    parts = [
        {"frames": 8, "seconds": {"slim": 1.0, "features": 2.0, "total": 9.0}},
        {"frames": 12, "seconds": {"slim": 3.0}},
    ]
    assert _film_seconds(plan, parts, 5.0) == {"features": 3.0, "slim": 4.0, "total": 6.0}
    whole = {"frames": 20, "seconds": {"features": 1.0, "edit": 2.0, "total": 3.0}}
    assert _film_seconds(plan, [whole], 2.5) == {"features": 1.0, "edit": 2.0, "total": 3.5}, "with the planning, once"


def test_a_stretch_tells_of_itself_alone(
    engine: AdaFlow, drawn_frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its seconds and warnings are not those of the stretches before it too, and not of the whole film."""
    edit, kept, run = EditJob.edit, EditJob.kept, [1]

    def noting(job: EditJob, *how: Any) -> tuple[np.ndarray, dict[str, Any]]:
        job.monitor.note(f"in run {run[0]}")
        return kept(job, *how)

    def noted(job: EditJob, **how: Any) -> EditResult:
        job.monitor.note("the disk is full")
        job.monitor.seconds["edit"] = job.monitor.seconds.get("edit", 0.0) + 1000.0
        return edit(job, **how)

    monkeypatch.setattr(EditJob, "edit", noted)
    monkeypatch.setattr(EditJob, "kept", noting)
    plan = engine.plan(drawn_frames, PlanConfig(keyframes=3))
    ranges = (
        PromptRange(0, 4, "a zeppelin", "a red ball"), PromptRange(4, 7, "a blue ball", "a red gondola"),
        PromptRange(8, 11, "a red ball, watercolour", "a red gondola"),
    )  # fmt: skip
    result = engine.edit_timeline(plan, Timeline(ranges, 40), QUICK)
    assert "crossfade of 40 frames" in result.warnings[0], "which is of all of them"
    assert result.warnings[1:3] == ("in run 1", "the disk is full")
    parts = result.report["stretches"]
    unknown = [warning for part in parts for warning in part["warnings"]]
    assert ["zeppelin" in unknown[0], *("gondola" in told for told in unknown[1:])] == [True] * 3
    assert len(unknown) == 3, "and what is said of a run is of none"
    starts = ["frames 0:4: ", "frames 4:7: ", "frames 8:11: "]
    told = tuple(start + warning for start, warning in zip(starts, unknown, strict=True))
    assert result.warnings[3:] == told and result.report["warnings"] == list(result.warnings)
    assert [part["seconds"]["edit"] // 1000 for part in parts] == [1, 1, 1]
    assert result.report["seconds"]["edit"] // 1000 == 3
    run[0] = 2  # from the cache
    assert engine.edit_timeline(plan, Timeline(ranges, 40), QUICK).warnings[1:] == ("in run 2", *told)
    alike = tuple(replace(part, source_prompt="a red gondola") for part in ranges[1:])
    warnings = engine.edit_timeline(plan, Timeline(alike), QUICK).warnings
    of_each = tuple(start + unknown[1] for start in starts[1:])
    assert warnings == ("in run 2", "the disk is full", *of_each), "both say it, and not of all frames"
    everywhere = (PromptRange(0, 6, "a blue ball", "a red gondola"), PromptRange(6, 12, "a cube", "a red gondola"))
    assert unknown[1] in engine.edit_timeline(plan, Timeline(everywhere), QUICK).warnings, "once, of all"
