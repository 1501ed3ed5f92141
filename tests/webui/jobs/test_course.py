"""How far a job is: the time left and the bar, through stages in any order."""

from __future__ import annotations

import pytest

from adaflow_core.progress import Progress
from webui.jobs.course import Course
from webui.jobs.expected import LOADING, PLANNING

EDIT = {"flow": 2.0, "invert": 10.0, "place": 4.0, "edit": 20.0, "decode frames": 2.0, "score": 4.0}


def test_what_is_to_come_is_forecast_and_what_has_begun_goes_by_its_pace() -> None:
    course = Course([EDIT])
    assert course.remaining() == 42
    course.report(Progress("load", 0, 1, 0.0))
    assert course.remaining() == 42, "loading is not forecast"
    course.report(Progress("flow", 1, 4, 1.0))
    assert course.remaining() == 3 + 40
    course.report(Progress("invert", 0, 10, 0.0))
    assert course.remaining() == pytest.approx(3 + 40, abs=0.1), "one that has begun without a pace as forecast"
    course.report(Progress("flow", 4, 4, 2.0))
    course.report(Progress("invert", 5, 10, 10.0))
    assert course.remaining() == 10 + 30
    course.report(Progress("edit", 10, 40, 2.0))  # the place was in the cache
    course.report(Progress("invert", 10, 10, 20.0))
    assert course.remaining() == 6 + 6
    course.report(Progress("match", 1, 4, 1.0))  # within the edit, as where it is laid out anew in each step
    assert course.remaining() == 3 + 6 + 6


def test_the_bar_never_goes_back() -> None:
    course, elapsed, seen = Course([EDIT]), 0.0, []
    for stage, seconds in (("flow", 2), ("choose", 1), ("invert", 25), ("edit", 30), ("flow", 1), ("write", 2)):
        for done in range(5):
            course.report(Progress(stage, done, 4, done * seconds / 4))
            seen.append(course.share(elapsed + done * seconds / 4))
        elapsed += seconds
    assert seen == sorted(seen) and seen[0] >= 0 and seen[-1] <= 1
    assert 0.4 < seen[14] < 0.65, "28 of 61 seconds and what was forecast of the rest"


def test_parts_come_one_after_another() -> None:
    later = {"edit": 20.0, "decode frames": 2.0}
    course = Course([{"invert": 10.0, "place": 4.0, **later}, later, later])
    for stage in ("invert", "place", "place", "edit"):  # a place is found in two stages of one name
        course.report(Progress(stage, 0, 8, 0.0))
        course.report(Progress(stage, 8, 8, 9.0))
    assert course.remaining() == 2 + 22 + 22
    course.report(Progress("decode frames", 8, 8, 1.0))
    course.report(Progress("edit", 4, 8, 5.0, part=1))
    assert course.remaining() == 5 + 2 + 22
    course.report(Progress("edit", 8, 8, 10.0, part=1))
    course.report(Progress("edit", 2, 8, 1.0, part=2))
    assert course.remaining() == 3 + 2


def test_parts_that_the_cache_has_are_not_to_come() -> None:
    part = {"invert": 10.0, "edit": 20.0}
    course = Course([part, part, {}, part, part | {"score": 4.0}])
    course.report(Progress("edit", 5, 10, 10.0, part=1))  # the first had come into the cache since it was forecast
    assert course.remaining() == 10 + 30 + 34
    course.report(Progress("check", 0, 8, 0.0, part=-1))  # as had the last two
    course.report(Progress("score", 1, 2, 2.0, part=-1))
    assert course.remaining() == 2
    assert Course([{}, {}]).remaining() is None


def test_without_seconds_the_bar_moves_by_the_stages() -> None:
    course, seen = Course((), PLANNING), []
    for stage in (
        "load",
        "decode",
        "features",
        "similarity",
        "refine",
        "borders",
        "residual",
        "similarity",
        "match",
        "measure",
    ):
        for done in (0, 4):
            course.report(Progress(stage, done, 4, float(done)))
            seen.append(course.share(1.0))
    assert course.remaining() is None
    assert seen == sorted(seen) and seen[1] == 0 < seen[3] < seen[5] < seen[-1] == 1
    load, seen = Course((), LOADING), []
    for stage, done in (("load", 0), ("download", 0), ("download", 5), ("download", 10)):
        load.report(Progress(stage, done, 10, float(done)))
        seen.append(load.share(1.0))
    assert seen[:2] == [0, 0] and 0.4 < seen[2] < 0.5 and seen[3] > 0.9
    beside = Course((), PLANNING)
    for stage, done in (("decode", 4), ("encode", 1), ("cuts", 0), ("encode", 4)):
        beside.report(Progress(stage, done, 4, float(done)))
    assert beside.share(1.0) == pytest.approx((1 + 2) / 14), "features are still to come"
