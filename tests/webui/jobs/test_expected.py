"""What is asked for is judged by what it takes itself, not by an edit of the whole film."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from adaflow_core.config import EditConfig
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.known import draft_key, part_keys, remember
from adaflow_core.film.timeline import PromptRange, Timeline, stretches
from adaflow_core.picture.over import NOTHING
from adaflow_core.picture.region import Region, RegionMask
from adaflow_core.picture.region.window import Window
from adaflow_core.storage.cache import Cache
from helpers.jobs import finish
from helpers.plans import small_plan
from webui.jobs import expected
from webui.jobs.tasks import EditTask, RegionTask, Request, Task
from webui.kept import PlanOutline, StoredPlan
from webui.limits import Limits
from webui.studio import Studio

PLAN = small_plan()  # 20 frames, a cut at 14; an edit takes 95 s, one of the keyframes alone 17.25 s


def test_stretches_and_takes_take_their_share() -> None:
    some = Timeline((PromptRange(0, 5, "a blue ball"), PromptRange(14, 20, "a cube")))
    parts = expected.of_edit(PLAN, some, EditConfig(), [{"frames": [14, 16]}])
    assert [part.total for part in parts] == pytest.approx([95 / 4, 95 * 6 / 20, 95 / 10 + 17.25 / 3])
    assert sum(part.total for part in expected.of_edit(PLAN, some, EditConfig(), crop=0.1)) == pytest.approx(
        95 * 11 / 200
    )
    with pytest.raises(AdaFlowError, match="not within the video"):
        expected.of_edit(PLAN, some, EditConfig(), [{"frames": [10, 40]}])


def test_drafts_take_what_keyframes_do_and_search_and_invert_once() -> None:
    settings = [EditConfig(seed=seed) for seed in range(4)]
    parts = expected.of_drafts(PLAN, "a blue ball", settings)
    assert [part.total for part in parts] == pytest.approx([17.25, *[12.75] * 3])
    place = replace(PLAN, forecast=replace(PLAN.forecast, seconds={"place": 7.0, "edit": 60.0}))
    assert expected.of_place(place).seconds == {"place": 7.0}


def keep(key: str) -> None:
    """A part that was made lies in the cache."""
    cache = Cache.default()
    cache.get("takes", key, lambda _: {})
    remember(cache, key, "takes", key)


def test_what_the_cache_holds_takes_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAFLOW_CACHE", str(tmp_path / "cache"))
    config, takes = EditConfig(), [{"frames": [14, 16], "prompt": "a cup"}]
    some = Timeline((PromptRange(0, 5, "a blue ball"), PromptRange(14, 20, "a cube")))
    whole = Timeline((PromptRange(0, 20, "a blue ball"),))

    def seconds(timeline: Timeline = some, **asked: Any) -> list[float]:
        return [round(part.total, 3) for part in expected.of_edit(PLAN, timeline, config, takes, **asked)]

    def keys(timeline: Timeline, takes: Any = ()) -> list[str]:
        return part_keys(PLAN, stretches(timeline, PLAN.segments.cuts, 20), config, takes, NOTHING.asked)

    before = seconds()
    for key in keys(some, takes):
        keep(key)
    assert min(before) > 0 and seconds() == [0, 0, 0] and seconds(kept=False) == before
    assert seconds(region=Region(words="ball")) == before
    other = replace(some, ranges=(some.ranges[0], PromptRange(14, 20, "a cup")))
    assert seconds(other) == [0, *before[1:]], "a take is fitted into all below"
    Cache.default().forget("takes", keys(some)[0])
    assert seconds() == [before[0], 0, 0]
    keep(keys(whole)[0])
    assert seconds(whole)[0] == 0 and expected.of_edit(PLAN, whole, config)[0].total == 95, "one without takes is not"
    keep(draft_key(PLAN, "a blue ball", config, NOTHING.asked))
    drafts = expected.of_drafts(PLAN, "a blue ball", [config, EditConfig(seed=1)])
    assert [part.total for part in drafts] == pytest.approx([0, 12.75])


def test_what_takes_less_than_the_whole_film_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAFLOW_CACHE", str(tmp_path / "cache"))
    asked: list[Task] = []
    window = Window((32, 24), np.zeros((20, 2), np.int64), PLAN.video.size)
    mask = RegionMask(np.zeros((20, 48, 64), np.uint8), "digest", {}, window)

    def runner(task: Task, report: Any, stop: Any) -> object:
        asked.append(task)
        return mask if isinstance(task, RegionTask) else None

    studio = Studio("embedded", "cpu", tmp_path, limits=Limits(job_seconds=60), runner=runner)
    plan_id = studio.kept.store_plan(Request("clip.mp4", PLAN.config), PLAN)

    def edit(prompt: str | Timeline, region: Region | None = None) -> float:
        finish(studio.jobs, studio.edit(plan_id, prompt, EditConfig(), region=region))
        return asked[-1].seconds

    region = Region(words="ball")
    with pytest.raises(AdaFlowError, match=r"about 2 min, and a job here may take 1"):
        edit("a blue ball", region)
    finish(studio.jobs, studio.region(plan_id, region))
    assert edit("a blue ball", region) == pytest.approx(30 + 1.5 * 95 / 4), "the crop's"
    assert edit(Timeline((PromptRange(0, 5, "a blue ball"),))) == pytest.approx(30 + 1.5 * 95 / 4)
    seeds = [(str(seed), EditConfig(seed=seed)) for seed in range(3)]
    finish(studio.jobs, studio.draft(plan_id, "a blue ball", seeds))
    of_three = 30 + 1.5 * (17.25 + 2 * 12.75)
    assert asked[-1].seconds == pytest.approx(of_three)
    keep(draft_key(PLAN, "a blue ball", EditConfig(), NOTHING.asked))
    finish(studio.jobs, studio.draft(plan_id, "a blue ball", seeds))
    assert asked[-1].seconds == pytest.approx(of_three), "by the time that it runs the cache may have lost it"
    whole, takes = Timeline((PromptRange(0, 20, "a blue ball"),)), [{"frames": [14, 16], "settings": {}}]
    keep(part_keys(PLAN, stretches(whole, PLAN.segments.cuts, 20), EditConfig(), takes, NOTHING.asked)[0])
    finish(studio.jobs, studio.edit(plan_id, whole, EditConfig(), takes))
    assert asked[-1].seconds == 30 + 1.5 * 60, "no job takes longer"
    outline: Any = PlanOutline.of(StoredPlan(plan_id, Request("clip.mp4", PLAN.config), PLAN))
    edited = replace(cast(EditTask, asked[-1]), plan=outline)
    before = SimpleNamespace(asked=edited, prompt="a blue ball", result=lambda plan: None)
    monkeypatch.setattr(studio, "finished", lambda job_id: before)
    finish(studio.jobs, studio.retake("its job", (14, 16), None, EditConfig()))
    assert asked[-1].seconds == pytest.approx(30 + 1.5 * (95 / 10 + 17.25 / 3))
