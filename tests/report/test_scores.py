"""Scores without a truth, on edits whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from adaflow_core.model.loading import EMBEDDED, load_backbone
from adaflow_core.report.flicker import flicker
from adaflow_core.report.scores import FLICKER, LOOKED_AT, Scores, Shown, _looked_at, liveliness, look, untouched
from benchmarks.truth import Pair, draw
from scenes.world import sample

NONE = np.array([], dtype=np.int64)


def test_untouched_is_the_share_of_pixels_that_keep_their_colour() -> None:
    source = np.full((2, 4, 10, 3), 100, np.uint8)
    edit = source.copy()
    edit[:, :, :3] = 200
    edit[:, :, 3:5] += 5
    assert untouched(edit, source) == pytest.approx(0.7) and untouched(source, source) == 1


def test_liveliness_is_one_for_the_source_and_leaves_cuts_out() -> None:
    dice = np.random.default_rng(0)
    source = dice.integers(0, 200, (6, 8, 8, 3), dtype=np.uint8)
    assert liveliness(source, source, NONE) == 1
    assert liveliness(np.repeat(source[:1], 6, axis=0), source, NONE) == 0
    flicker = source.copy()
    flicker[3] += 50
    assert liveliness(flicker, source, np.array([3, 4])) == 1  # both changes of frame 3 lie at cuts
    still = np.repeat(source[:1], 6, axis=0)
    assert liveliness(source, still, NONE) is None and liveliness(source[:1], source[:1], NONE) is None


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
    assert replace(fine, agreement=0.0, differs=False).warnings == (), "it was to change nothing"


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
    calm = flicker(pair.truth, pair.source, NONE)
    noise = np.stack([cv2.resize(dice.normal(0, 3, (16, 16, 3)), (256, 256)) for _ in range(3)])
    restless = flicker((pair.truth + noise).clip(0, 255).astype(np.uint8), pair.source, NONE)
    assert calm is not None and restless is not None and calm < 1 and restless > FLICKER
    assert flicker(pair.source, pair.source, NONE) == 0
    assert flicker(pair.truth, pair.source, np.array([1, 2])) is None, "cuts do not count"


@pytest.mark.skipif(not (EMBEDDED / "model_index.json").is_file(), reason="no embedded model in assets/embedded-sd")
@pytest.mark.parametrize(
    ("edit", "value", "scene", "local"),
    [
        ("object", "rocket", BALLOON, True),
        pytest.param("style", "comic", BALLOON, False, marks=pytest.mark.thorough),
        pytest.param("background", "snow", STAR, False, marks=pytest.mark.thorough),
    ],
)
def test_agreement_says_how_far_the_edit_went(edit: str, value: str, scene: dict[str, str], local: bool) -> None:
    backbone, pair = load_backbone("embedded", device="cpu"), drawn(edit, value, scene)
    half = ((pair.truth.astype(int) + pair.source) // 2).astype(np.uint8)
    looks = [look(backbone, v[1:2], pair.prompt, pair.source_prompt) for v in (pair.source, half, pair.truth)]
    nothing, part, all_of_it = (found.agreement for found in looks)
    assert nothing < 0.3 and 0.35 < part < 0.65 and all_of_it > 0.75
    assert looks[-1].local == local
