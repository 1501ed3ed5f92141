"""Scores without a truth, on edits whose answer is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from adaflow_core.config import PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import Stopped
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.loading import EMBEDDED, load_backbone
from adaflow_core.progress import Monitor
from adaflow_core.report.edges import edges
from adaflow_core.report.flicker import flicker
from adaflow_core.report.scores import (
    FLICKER,
    LOOKED_AT,
    Look,
    Scores,
    Shown,
    _looked_at,
    liveliness,
    look,
    score,
    untouched,
)
from adaflow_core.storage.cache import Cache
from benchmarks.truth import Pair, draw
from helpers.plans import small_plan
from scenes.world import sample

NONE = np.array([], dtype=np.int64)


def test_untouched_is_the_share_of_pixels_that_keep_their_colour() -> None:
    source = np.full((2, 4, 10, 3), 100, np.uint8)
    edit = source.copy()
    edit[:, :, :3] = 200
    edit[:, :, 3:5] += 5
    assert (
        untouched(edit, source, monitor=Monitor()) == pytest.approx(0.7)
        and untouched(source, source, monitor=Monitor()) == 1
    )


def test_liveliness_is_one_for_the_source_and_leaves_cuts_out() -> None:
    dice = np.random.default_rng(0)
    source = dice.integers(0, 200, (6, 8, 8, 3), dtype=np.uint8)
    assert liveliness(source, source, NONE, monitor=Monitor()) == 1
    assert liveliness(np.repeat(source[:1], 6, axis=0), source, NONE, monitor=Monitor()) == 0
    flicker = source.copy()
    flicker[3] += 50
    assert liveliness(flicker, source, np.array([3, 4]), monitor=Monitor()) == 1  # both changes of frame 3 lie at cuts
    still = np.repeat(source[:1], 6, axis=0)
    assert (
        liveliness(source, still, NONE, monitor=Monitor()) is None
        and liveliness(source[:1], source[:1], NONE, monitor=Monitor()) is None
    )


def test_a_range_alone_is_as_lively_as_what_was_edited() -> None:
    source = np.random.default_rng(0).integers(0, 200, (8, 8, 8, 3), dtype=np.uint8)
    edit = source.copy()
    edit[4:] = edit[4]
    assert liveliness(edit, source, NONE, [4, 5, 6, 7], monitor=Monitor()) == 0
    assert liveliness(edit, source, NONE, [0, 1, 2], monitor=Monitor()) == 1


@pytest.mark.parametrize("measure", [untouched, partial(liveliness, cuts=NONE), partial(flicker, cuts=NONE), edges])
def test_every_score_is_stopped_within_it_and_says_how_far_it_is(measure: Callable[..., object]) -> None:
    frames = np.random.default_rng(0).integers(0, 200, (6, 16, 16, 3), dtype=np.uint8)
    said = list[int]()
    with pytest.raises(Stopped):
        measure(frames, source=frames, monitor=Monitor(lambda p: said.append(p.done), lambda: len(said) > 3))
    assert said[:4] == [0, 1, 2, 3]


def test_what_is_shown_where_no_keyframe_lies_is_looked_at() -> None:
    said = [*[None] * 3, *[Shown("a cube", "a ball")] * 4, *[None] * 3, *[Shown("a star", "a ball")] * 2]
    assert _looked_at(np.array([1, 4, 5, 8]), said).tolist() == [4, 5, 11]
    assert _looked_at(np.arange(12), said).tolist() == [3, 4, 5, 6, 10, 11]
    assert len(_looked_at(np.arange(40), [Shown("a cube", "a ball")] * 40)) == LOOKED_AT
    assert not len(_looked_at(np.array([0]), [None]))


def test_the_edit_is_warned_of_where_scores_are_bad() -> None:
    fine = Scores(0.9, 0.8, 1.0, flicker=0.3, edge_error=5.0, rims=0.05, rim_frame=2)
    assert fine.warnings == ()
    bad = replace(fine, flicker=3.1, rims=0.31)
    assert "31% of the edges, most in frame 2" in bad.warnings[0] and "by 3.1 levels" in bad.warnings[1]
    assert replace(fine, flicker=None, rims=None).warnings == ()
    assert "agreement 4%" in replace(fine, agreement=0.04).warnings[0]
    assert replace(fine, agreement=None).warnings == (), "it was to change nothing"


def drawn(edit: str, value: str, scene: dict[str, str]) -> Pair:
    """Three frames of the drawn world with their true edit."""
    row = sample(1, seed=11, split="test", motion="drift").replace(
        style="photo", occluder="none", present2=False, **scene
    )
    return draw(row, edit, value, np.linspace(0.2, 0.26, 3))


BALLOON = {"kind": "balloon", "colour": "orange", "background": "ocean"}
STAR = {"kind": "star", "colour": "blue", "background": "autumn"}


def test_noise_that_comes_and_goes_is_flicker_and_motion_is_not() -> None:
    pair, dice = drawn("background", "snow", STAR), np.random.default_rng(0)
    calm = flicker(pair.truth, pair.source, NONE, monitor=Monitor())
    noise = np.stack([cv2.resize(dice.normal(0, 3, (16, 16, 3)), (256, 256)) for _ in range(3)])
    restless = flicker((pair.truth + noise).clip(0, 255).astype(np.uint8), pair.source, NONE, monitor=Monitor())
    assert calm is not None and restless is not None and calm < 1 and restless > FLICKER
    assert flicker(pair.source, pair.source, NONE, monitor=Monitor()) == 0
    assert flicker(pair.truth, pair.source, np.array([1, 2]), monitor=Monitor()) is None, "cuts do not count"
    # Of a film of which a range was edited, only that range counts.
    film, edit = (
        np.concatenate([pair.source, x.clip(0, 255).astype(np.uint8), pair.source])
        for x in (pair.source, pair.truth + noise)
    )
    assert flicker(edit, film, NONE, [3, 4, 5], monitor=Monitor()) == pytest.approx(restless, abs=0.3)
    assert (
        flicker(edit, film, NONE, [0, 1, 2, 8], monitor=Monitor()) == 0
        and flicker(edit, film, NONE, [0, 2, 4], monitor=Monitor()) is None
    )


@pytest.mark.thorough
@pytest.mark.skipif(not (EMBEDDED / "model_index.json").is_file(), reason="no embedded model in assets/embedded-sd")
@pytest.mark.parametrize(
    ("edit", "value", "scene", "local"),
    [
        ("object", "rocket", BALLOON, True),
        ("style", "comic", BALLOON, False),
        ("background", "snow", STAR, False),
    ],
)
def test_agreement_says_how_far_the_edit_went(edit: str, value: str, scene: dict[str, str], local: bool) -> None:
    backbone, pair = load_backbone("embedded", device="cpu"), drawn(edit, value, scene)
    half = ((pair.truth.astype(int) + pair.source) // 2).astype(np.uint8)
    looks = [look(backbone, v[1:2], pair.prompt, pair.source_prompt) for v in (pair.source, half, pair.truth)]
    nothing, part, all_of_it = (found.agreement for found in looks)
    assert nothing < 0.3 and 0.35 < part < 0.65 and all_of_it > 0.75
    assert looks[-1].local == local


@pytest.mark.skipif(not (EMBEDDED / "model_index.json").is_file(), reason="no embedded model in assets/embedded-sd")
def test_what_lies_outside_a_region_does_not_count_as_not_done() -> None:
    backbone, pair = load_backbone("embedded", device="cpu"), drawn("background", "snow", STAR)
    frame, region = pair.source[1:2].copy(), np.zeros((1, 32, 32), np.float32)
    region[:, :, :10] = 1
    frame[:, :, :80] = pair.truth[1:2, :, :80]
    whole, inside = (look(backbone, frame, pair.prompt, pair.source_prompt, place) for place in (None, region))
    assert whole.agreement < 0.6 and inside.agreement > 0.75 and inside.local == whole.local


def test_only_frames_in_which_a_region_is_in_sight_say_whether_it_was_edited(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, found = small_plan(), {3: 0.9, 10: 0.1}
    frames, place = plan.video.frames, np.zeros((20, 4, 4), np.float32)
    place[:8, :2], place[8:12, 0, 0] = 1, 1

    def seen(_: object, shown: np.ndarray, *_given: object) -> Look:
        return Look(next(found[t] for t in found if np.array_equal(shown[0], frames[t])), local=True)

    monkeypatch.setattr("adaflow_core.report.scores.look", seen)
    said = [Shown("a blue ball", "a ball")] * 20
    agreement = score(None, plan, frames, said, Monitor(), place).agreement  # type: ignore[arg-type]
    assert agreement == pytest.approx((8 * 0.9 + 0.1) / 9), "by how much of the region a frame shows"
    assert score(None, plan, frames, said, Monitor(), 0 * place).agreement is None  # type: ignore[arg-type]


def test_a_frame_that_is_to_show_what_its_source_does_is_not_asked_about(
    tiny_backbone: Callable[[str], Backbone], drawn_frames: np.ndarray, tmp_path: Path
) -> None:
    engine = AdaFlow(tiny_backbone("sd1"), Cache(tmp_path))
    plan = engine.plan(drawn_frames, PlanConfig(keyframes=3))
    by_hand = drawn_frames.copy()
    by_hand[:, :20] = 255
    found = score(engine.backbone, plan, by_hand, [Shown("a ball", "a ball")] * len(by_hand), Monitor())
    assert found.agreement is None and found.untouched is not None and found.untouched < 1 and not found.warnings
    half = [Shown("a ball", "a ball")] * 6 + [Shown("a blue ball", "a ball")] * 6
    asked = score(engine.backbone, plan, by_hand, half, Monitor()).agreement
    assert (
        asked is not None
        and asked == score(engine.backbone, plan, by_hand, [*[None] * 6, *half[6:]], Monitor()).agreement
    )
    place = np.ones((len(by_hand), 32, 32), np.float32)[:, : by_hand.shape[1] // 8, : by_hand.shape[2] // 8]
    style = [Shown("a sketch of a ball", "a ball")] * len(by_hand)
    assert score(engine.backbone, plan, by_hand, style, Monitor(), place).untouched == found.untouched
