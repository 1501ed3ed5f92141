"""Prompts on ranges of frames: what may be asked for, what is edited how, and what keeps every byte."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.film.known import is_kept, part_keys
from adaflow_core.film.stretch import Laid, clip, lay_into, lay_over, ramp, stretch_of, together
from adaflow_core.film.timeline import (
    CROSSFADE,
    PromptRange,
    Stretch,
    Timeline,
    crossfade_notes,
    for_all,
    parse_prompts,
    range_notes,
    ranges_of,
    read_prompts,
    stretches,
)
from adaflow_core.model.backbone import Backbone
from adaflow_core.picture.over import NOTHING
from adaflow_core.picture.region import RegionMask
from adaflow_core.picture.region.window import Window
from adaflow_core.planning.planner import build_layout
from adaflow_core.planning.residual import edited_residual
from adaflow_core.progress import Monitor, Progress
from adaflow_core.storage.cache import Cache, cache_key
from adaflow_core.team.team import ALONE, Team
from adaflow_core.types import Segments
from adaflow_core.video.types import Video

QUICK = EditConfig(steps=2, stride=1)
NO_CUTS = np.empty(0, np.int64)


def video(frames: int, fps: int = 12, times: tuple[float, ...] | None = None) -> Video:
    return Video(np.zeros((frames, 8, 8, 3), np.uint8), Fraction(fps), "digest", times=times)


def timeline(*ranges: tuple[int, int, str], crossfade: int = 0) -> Timeline:
    return Timeline(tuple(PromptRange(*r) for r in ranges), crossfade)


def test_prompts_of_the_command_line_and_of_a_file_are_the_same_ranges(tmp_path: Path) -> None:
    assert parse_prompts(["a red ball at 0:48"]) == "a red ball at 0:48"
    expected = (PromptRange(0, 48, "a ball"), PromptRange(0, 0, "a cube", seconds=(4.0, 6.5)))
    assert parse_prompts(["0:48 a ball", "4s:6.5s  a cube"]) == expected
    file = tmp_path / "prompts.json"
    rows: list[dict[str, Any]] = [{"frames": [0, 48], "prompt": "a ball"}, {"seconds": [4, 6.5], "prompt": "a cube"}]
    file.write_text(json.dumps([*rows, {"frames": [50, 60], "prompt": None}]))
    assert read_prompts(file) == expected
    assert ranges_of([{"frames": [0, 2], "prompt": "a", "source_prompt": "b"}]) == (PromptRange(0, 2, "a", "b"),)


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["0:48 a ball", "a cube"], "'a cube' does not begin with its range"),
        (["0:4.5 a ball"], "does not begin"),
        (["0s:4 a ball"], "does not begin"),
        (["48:48 a ball"], "48:48 holds nothing"),
        (["16:9 photo of a cat"], 'put the range of all frames before it: "0:96 16:9 photo of a cat"'),
    ],
)
def test_wrong_prompts_are_named(texts: list[str], names: str) -> None:
    with pytest.raises(AdaFlowError, match=names):
        parse_prompts(texts)


def test_a_single_prompt_that_begins_as_a_range_does_is_noted() -> None:
    train = "4:30 train at dusk"
    (note,) = range_notes([train], 48)
    assert "4:30" in note and note.endswith(f'"0:48 {train}"')
    for plain in (["a ball"], ["0:48 a ball"], ["2s:4s a ball"], [train, "30:48 a ball"], []):
        assert range_notes(plain, 48) == []
    assert for_all("a ball", 48) == "a ball"
    for text in (train, "16:9 photo of a cat", "0:48 a ball", "2s:4s a ball"):
        ranges = parse_prompts([for_all(text, 48)])
        assert isinstance(ranges, tuple)
        assert Timeline(ranges).on(video(48)).one_prompt(video(48)) == text


@pytest.mark.parametrize(
    "data",
    [
        {}, [], [3], [{"frames": [0, 2]}], [{"frames": [0, 1.5], "prompt": "a"}], [{"frames": 3, "prompt": "a"}],
        [{"frames": [0, 2], "prompt": 3}], [{"frames": [0, 2], "prompt": " "}], [{"frames": [-1, 2], "prompt": "a"}],
        [{"frames": [0, 2], "prompt": "a", "colour": "red"}], [{"seconds": ["0", 2], "prompt": "a"}],
        [{"seconds": [0, float("nan")], "prompt": "a"}], [{"frames": [True, 2], "prompt": "a"}],
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_told_in_a_sentence(data: Any, tmp_path: Path) -> None:
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps(data))
    with pytest.raises(AdaFlowError):
        Timeline(read_prompts(file)).on(video(8))


def test_a_file_that_is_not_there_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(AdaFlowError, match="cannot be read"):
        read_prompts(tmp_path / "none.json")
    (tmp_path / "bad.json").write_bytes(b"\xff[")
    with pytest.raises(AdaFlowError, match="no JSON"):
        read_prompts(tmp_path / "bad.json")


def test_a_timeline_is_sorted_and_lies_in_its_video() -> None:
    found = timeline((4, 8, "b"), (0, 4, "a")).on(video(8))
    assert [r.prompt for r in found.ranges] == ["a", "b"]
    with pytest.raises(AdaFlowError, match="overlap"):
        timeline((0, 5, "a"), (4, 8, "b")).on(video(8))
    with pytest.raises(AdaFlowError, match="has 7 frames"):
        timeline((0, 8, "a")).on(video(7))
    for crossfade in (-1, "8", 2.5):
        with pytest.raises(AdaFlowError, match="crossfade"):
            Timeline((PromptRange(0, 8, "a"),), crossfade)  # type: ignore[arg-type]
    for start in ("0", None, 0.0, np.float32(0)):
        with pytest.raises(AdaFlowError, match="whole frames"):
            PromptRange(start, 8, "a")  # type: ignore[arg-type]


def test_seconds_become_the_frames_that_begin_within_them() -> None:
    seconds = Timeline((PromptRange(0, 0, "a", seconds=(0.25, 0.5)),))
    assert [(r.start, r.end) for r in seconds.on(video(12)).ranges] == [(3, 6)]
    uneven = video(4, times=(5.0, 5.1, 5.3, 5.45, 6.0))  # a file's times need not begin at 0
    assert [(r.start, r.end) for r in seconds.on(uneven).ranges] == [(2, 4)]
    with pytest.raises(AdaFlowError, match="no frame begins within"):
        Timeline((PromptRange(0, 0, "a", seconds=(0.26, 0.3)),)).on(video(12))


def test_seconds_past_the_end_are_refused_as_frames_are() -> None:
    def on(film: Video, begin: float, end: float) -> tuple[int, int]:
        (found,) = Timeline((PromptRange(0, 0, "a", seconds=(begin, end)),)).on(film).ranges
        return found.start, found.end

    uneven = video(4, times=(5.0, 5.1, 5.3, 5.45, 6.0))
    assert on(video(24), 1.0, 2.0) == (12, 24) and on(video(24), 1.0, 2.08) == (12, 24)  # told a little rounded
    assert on(uneven, 0.1, 1.0) == (1, 4)
    for film, begin, end, length in ((video(24), 1.0, 2.1, "2"), (video(24), 3.0, 4.0, "2"), (uneven, 0.1, 1.2, "1")):
        with pytest.raises(AdaFlowError, match=f"ends after the video, which has {length} s"):
            on(film, begin, end)
    with pytest.raises(AdaFlowError, match=r"which has 2 s from its first edited frame on, 5\.00 s in the file; let"):
        on(replace(video(24), start=60), 5.0, 6.0)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((0.0, 4.0, "a"), "not in whole frames"),
        ((0, 4, None), "the prompt of 0:4 is None; give one text"),
        ((0, 4, ["a"]), "give one text"),
    ],
)
def test_a_range_of_the_wrong_kind_is_told_in_a_sentence(given: tuple[Any, Any, Any], says: str) -> None:
    with pytest.raises(AdaFlowError, match=says):
        PromptRange(*given)
    with pytest.raises(AdaFlowError, match="give each as PromptRange"):
        Timeline((given,))  # type: ignore[arg-type]


def test_a_crossfade_reaches_over_a_border_and_not_over_a_cut() -> None:
    ranges = timeline((0, 8, "a"), (8, 20, "b"), (20, 24, "c"), crossfade=6)
    found = stretches(ranges, np.array([20]), 30)
    assert found == [
        Stretch(0, 11, "a", None, fall=6),
        Stretch(5, 20, "b", None, rise=6),
        Stretch(20, 24, "c", None, fall=2),  # beside frames without a prompt: inside the range, half of it at most
    ]
    for part in stretches(replace(ranges, crossfade=0), np.array([20]), 30):
        assert part.rise == part.fall == 0


def test_a_crossfade_that_is_longer_than_ranges_allow_is_noted() -> None:
    ranges, cuts = timeline((0, 8, "a"), (8, 20, "b"), (20, 24, "c"), crossfade=10**30), np.array([20])
    (note,) = crossfade_notes(ranges, cuts, 30)
    assert f"of {10**30} frames" in note and note.endswith("it takes 2 to 8")
    (note,) = crossfade_notes(timeline((0, 4, "a"), (4, 8, "b"), crossfade=40), NO_CUTS, 8)
    assert note.endswith("it takes 4")
    for enough in (0, 2, 3, CROSSFADE):  # of the usual one ranges take what they have room for
        assert crossfade_notes(replace(ranges, crossfade=enough), cuts, 30) == []
    assert crossfade_notes(replace(ranges, crossfade=9), np.array([8, 20, 24]), 30) == [], "where nothing crosses over"


def test_numbers_of_numpy_become_pythons() -> None:
    """Else a report, a project and a key would have none, or others."""
    ranges = PromptRange(np.int64(0), np.int64(7), "a"), PromptRange(0, 0, "b", seconds=(np.float32(2), np.float32(4)))
    given = Timeline(ranges, np.int64(2))  # type: ignore[arg-type]
    asked = [{"frames": [0, 7], "prompt": "a"}, {"seconds": [2.0, 4.0], "prompt": "b"}]
    assert json.loads(json.dumps([given.as_json(), given.crossfade])) == [asked, 2]
    assert cache_key(range=asdict(ranges[0])) == cache_key(range=asdict(PromptRange(0, 7, "a")))


def test_ranges_that_touch_and_say_the_same_are_one_stretch() -> None:
    found = stretches(timeline((0, 4, "a"), (4, 8, "a"), (9, 12, "a")), NO_CUTS, 12)
    assert [(part.start, part.end) for part in found] == [(0, 8), (9, 12)]


def test_memory_does_not_grow_with_the_number_of_ranges() -> None:
    frames = np.zeros((320, 64, 64, 3), np.uint8)
    parts = [Laid(8 * part, frames[:8] + 200, ramp(8, 3, 3)) for part in range(40)]
    tracemalloc.start()
    try:
        out = lay_over(frames, iter(parts))
        assert tracemalloc.get_traced_memory()[1] < frames.size + 20 * 4 * frames[0].size  # and the film itself
    finally:
        tracemalloc.stop()
    assert out[::8, 0, 0, 0].tolist() == [50] * 40 and out[3::8, 0, 0, 0].tolist() == [200] * 40


@pytest.mark.parametrize("crossfade", [0, 1, 5, 40])
def test_weights_of_neighbours_add_up_to_one(crossfade: int) -> None:
    shares = np.zeros(30)
    for part in stretches(timeline((0, 3, "a"), (3, 10, "b"), (10, 30, "c"), crossfade=crossfade), NO_CUTS, 30):
        shares[part.start : part.end] += ramp(part.end - part.start, part.rise, part.fall)
    np.testing.assert_allclose(shares, 1)


def test_a_clipped_stretch_has_a_keyframe_in_every_segment() -> None:
    segments = Segments(np.array([0, 4, 10]), np.array([2, 8, 12]), np.array([10]), 14)
    clipped = clip(segments, 3, 12)
    assert clipped.starts.tolist() == [0, 1, 7] and clipped.keyframes.tolist() == [0, 5, 7]
    assert clipped.cuts.tolist() == [7] and clipped.T == 9
    assert clip(segments, 10, 14).cuts.tolist() == []


def test_laid_over_a_film_only_the_parts_change() -> None:
    below = np.full((6, 2, 2, 3), 100, np.uint8)
    part = Laid(1, np.full((4, 2, 2, 3), 200, np.uint8), ramp(4, 1, 1))
    assert lay_over(below, [part])[:, 0, 0, 0].tolist() == [100, 150, 200, 200, 150, 100]


def test_each_process_of_a_team_lays_its_own_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    below, film = (rng.integers(0, 256, (9, 2, 2, 3), np.uint8) for _ in range(2))
    parts = [Laid(1, film[:5], ramp(5, 1, 3)), Laid(4, film[:4], ramp(4, 3, 1))]
    weights = np.full((9, 2, 2), 100, np.uint8)
    window = Window((1, 1), np.ones((9, 2), np.int64), (2, 2))
    ways: list[Callable[[Team], np.ndarray | None]] = [
        lambda team: lay_over(below, parts, team),
        lambda team: RegionMask(weights, "", {}).lay(film, below, team),
        lambda team: window.lay(film[:, :1, :1], below, team),
        lambda team: lay_into(shared, parts[0], team),
    ]
    monkeypatch.setattr(Team, "wait", lambda _: None)
    monkeypatch.setattr(Team, "scratch", lambda *_: shared)
    for way in ways:
        shared = below.copy()
        way(ALONE)
        expected = shared
        assert (expected != below).any()
        shared = below.copy()
        way(Team(1, 2))
        assert (shared[:5] == below[:5]).all() and (shared[5:] == expected[5:]).all()
        way(Team(0, 2))
        assert (shared == expected).all()


# --- edits ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(tiny_backbone: Callable[[str], Backbone], tmp_path_factory: pytest.TempPathFactory) -> AdaFlow:
    return AdaFlow(tiny_backbone("sd1"), Cache(tmp_path_factory.mktemp("timelines")))


def test_a_shot_on_the_timeline_is_edited_as_it_would_be_alone(engine: AdaFlow, drawn_frames: np.ndarray) -> None:
    film = np.concatenate([drawn_frames[:6], 255 - drawn_frames[6:]])
    plan = engine.plan(film, PlanConfig(keyframes=4))
    assert plan.segments.cuts.tolist() == [6]
    asked = Timeline((PromptRange(6, 12, "a blue ball", "a red ball"),))
    result = engine.edit_timeline(plan, asked, QUICK)
    np.testing.assert_array_equal(result.frames[:6], film[:6])
    alone = engine.plan(film[6:], PlanConfig(keyframes=2, source_prompt="a red ball"))
    assert (alone.segments.keyframes + 6).tolist() == plan.segments.keyframes[2:].tolist()
    expected = engine.edit(alone, "a blue ball", QUICK).frames.astype(int)
    # Frames are encoded in passes of several, which differ in their last bits.
    assert np.abs(result.frames[6:] - expected).mean() < 0.5
    whole = engine.edit(replace(plan, config=alone.config), "a blue ball", QUICK).frames[6:]
    assert np.abs(whole - expected).mean() > 1  # where keyframes of the other shot are attended to
    report = json.loads(json.dumps(result.report))
    assert report["prompts"] == [{"frames": [6, 12], "prompt": "a blue ball", "source_prompt": "a red ball"}]
    (stretch,) = report["stretches"]
    assert stretch["first_frame"] == 6 and report["edited"] == [6 + frame for frame in stretch["edited"]]
    assert report["keyframes"] == plan.segments.keyframes[2:].tolist()
    scores = engine.score(plan, result)
    assert 0 <= scores.agreement <= 1
    residual = np.array(scores.residual)
    assert residual.shape == (12,) and not residual[plan.segments.keyframes].any()
    assert (np.delete(residual, plan.segments.keyframes) > 0).all()
    source = edited_residual(engine.backbone, plan, plan.video.frames, Monitor())
    assert np.allclose(source, plan.residual, atol=1e-4), "of the source itself it is the plan's"


@pytest.mark.parametrize("method", ["adaflow", "joint", "tokenflow", "per-frame"])
def test_ranges_are_forecast_without_being_laid_out(
    method: str, engine: AdaFlow, drawn_frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = engine.plan(drawn_frames[:6], PlanConfig(keyframes=2, kv_frames=1.5, method=method))
    asked = Timeline((PromptRange(0, 4, "a blue ball"), PromptRange(4, 5, "a cup")), 0)
    lay_out = partial(build_layout, device=engine.device, monitor=Monitor(), team=engine.backbone.team)
    pieces = [stretch_of(plan, 0, 4, None, lay_out), stretch_of(plan, 4, 5, None, lay_out)]
    expected = together([engine._forecasts.of_edit(piece, QUICK, Monitor()) for piece in pieces])
    monkeypatch.setattr("adaflow_core.planning.planner.build_correspondence", None)
    found = engine.forecast_timeline(plan, asked, QUICK)
    assert found.seconds == pytest.approx(expected.seconds)
    assert found.peak_memory_bytes == pytest.approx(expected.peak_memory_bytes, rel=0.1)


def test_prompts_cross_over_inside_a_shot(engine: AdaFlow, drawn_frames: np.ndarray) -> None:
    plan = engine.plan(drawn_frames, PlanConfig(keyframes=3))
    texts = ("a blue ball", "watercolour of the snow")
    ranges = tuple(PromptRange(i, i + 6, text) for i, text in zip((0, 6), texts, strict=True))
    hard, soft = (engine.edit_timeline(plan, Timeline(ranges, frames), QUICK).frames.astype(int) for frames in (0, 4))
    assert np.abs(np.diff(soft, axis=0))[5].mean() < np.abs(np.diff(hard, axis=0))[5].mean()
    assert (soft[2:10] != hard[2:10]).any()


def test_one_prompt_for_all_frames_is_a_plain_edit(engine: AdaFlow, drawn_frames: np.ndarray) -> None:
    plan = engine.plan(drawn_frames, PlanConfig(keyframes=3))
    whole = engine.edit_timeline(plan, Timeline((PromptRange(0, 12, "a blue ball"),)), QUICK)
    plain = engine.edit(plan, "a blue ball", QUICK)
    np.testing.assert_array_equal(whole.frames, plain.frames)
    assert {"invert", "edit", "smooth", *plan.seconds} <= whole.report["seconds"].keys()


def test_a_stopped_timeline_goes_on_with_what_is_missing(engine: AdaFlow, drawn_frames: np.ndarray) -> None:
    plan = engine.plan(drawn_frames, PlanConfig(keyframes=3))
    asked = Timeline(
        tuple(PromptRange(i, i + 6, f"a {word} ball over snow") for i, word in ((0, "red"), (6, "blue"))), 0
    )
    seen: list[Progress] = []

    def stop() -> bool:  # in the second range's first step
        return sum(p.stage == "edit" and p.done == p.total for p in seen) == 1 and seen[-1].stage == "edit"

    keys = part_keys(plan, stretches(asked, NO_CUTS, 12), QUICK, (), NOTHING.asked)
    with pytest.raises(Stopped):
        engine.edit_timeline(plan, asked, QUICK, progress=seen.append, stop=lambda: stop() and seen[-1].done == 2)
    assert [is_kept(engine.cache, key) for key in keys] == [True, False]
    seen.clear()
    engine.edit_timeline(plan, asked, QUICK, progress=seen.append)
    assert {p.part for p in seen if p.stage == "edit"} == {1} and all(is_kept(engine.cache, key) for key in keys)
    assert {p.total for p in seen if p.stage == "edit"} == {3 * 6}  # two steps, and agreement
    assert sum(p.stage == "edit" and p.done == p.total for p in seen) == 1
    seen.clear()
    engine.edit_timeline(plan, replace(asked, crossfade=0), QUICK, progress=seen.append)
    assert {p.stage for p in seen} == {"slim", "match"}  # which only say which edits these are
