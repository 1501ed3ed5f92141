"""Limits for visitors."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from adaflow_core.config import EditConfig
from adaflow_core.editing.forecasting.calibration import Calibration
from adaflow_core.editing.forecasting.forecast import KIND, Measurement
from adaflow_core.errors import AdaFlowError
from adaflow_core.storage.cache import Cache
from helpers.jobs import finish
from helpers.plans import small_plan
from webui.jobs.tasks import Request
from webui.limits import PUBLIC, Limits, limits_of
from webui.studio import Studio


def test_an_upload_over_the_limit_is_refused(drawn_clip: Path) -> None:
    assert Limits(seconds=2).check(str(drawn_clip)).frames == 12
    with pytest.raises(AdaFlowError, match=r"lasts 1 s; this page takes up to 0\.5 s"):
        Limits(seconds=0.5).check(str(drawn_clip))
    with pytest.raises(AdaFlowError, match=r"pixels; this page takes up to 32 a side"):
        Limits(side=32).check(str(drawn_clip))


def test_strangers_get_less() -> None:
    assert limits_of(True) == PUBLIC and limits_of(False, seconds=None) == Limits()
    changed = limits_of(True, seconds=5.0)
    assert changed.seconds == 5 and changed.megabytes == PUBLIC.megabytes
    assert (PUBLIC.kept, Limits().kept, limits_of(True, keep_seconds=900.0).kept) == ("60 min", "24 h", "15 min")
    assert limits_of(False, keep_seconds=365 * 86400.0).kept == "365 days"
    assert 2 * PUBLIC.own < PUBLIC.waiting, "one tab leaves room for others"
    assert PUBLIC.keep_seconds < Limits().keep_seconds and PUBLIC.job_seconds < Limits().job_seconds


def test_what_takes_too_long_is_refused_by_what_edits_have_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAFLOW_CACHE", str(tmp_path / "cache"))
    cache = Cache.default()
    measured = Measurement(Calibration(1.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    studio = Studio("embedded", "cpu", tmp_path, limits=Limits(job_seconds=60), runner=lambda task, report, stop: None)
    plan = small_plan()  # 95 s
    plan = replace(plan, forecast=replace(plan.forecast, measurement="here"))
    request = Request("clip.mp4", plan.config)

    def edit() -> str:
        return studio.edit(studio.kept.store_plan(request, plan, "plan"), "a blue ball", EditConfig())

    cache.get(KIND, "here", lambda _: asdict(replace(measured, edits=1)))
    with pytest.raises(AdaFlowError, match=r"about 2 min, and a job here may take 1: .* working size$"):
        edit()
    cache.renew(KIND, "here", asdict(replace(measured, factor=0.5, edits=2)))
    assert edit()
    assert studio.kept.find_plan("plan").answers(request)  # type: ignore[union-attr]
    # Before the first edit the measurement itself is in doubt: the next plan makes it anew, and this one stays so long.
    cache.renew(KIND, "here", asdict(measured))
    with pytest.raises(AdaFlowError, match="preview again, for a forecast measured anew"):
        edit()
    assert cache.find(KIND, "here") is None and not studio.kept.find_plan("plan").answers(request)  # type: ignore[union-attr]


def test_what_a_task_left_that_was_ended_from_outside_goes(tmp_path: Path) -> None:
    """A process that overruns the time for which it was lent a GPU cannot tidy up."""
    left: list[Path] = []

    def run(task: Any, report: Any, stop: Any) -> object:
        task.folder.mkdir(parents=True)
        (task.folder / "half.mp4").write_bytes(b"half")
        left.append(task.folder)
        raise AdaFlowError("GPU task aborted")

    studio = Studio("embedded", "cpu", tmp_path, runner=run)
    plan = small_plan()
    stored = studio.kept.store_plan(Request("clip.mp4", plan.config), plan)
    assert finish(studio.jobs, studio.edit(stored, "a blue ball", EditConfig())).state == "failed"
    assert left and not left[0].exists()
