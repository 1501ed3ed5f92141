"""Scores without a truth, on edits whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adaflow_core.model.loading import EMBEDDED, load_backbone
from adaflow_core.report.scores import liveliness, prompt_agreement, untouched
from scenes.render import render
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


@pytest.mark.skipif(not (EMBEDDED / "model_index.json").is_file(), reason="no embedded model in assets/embedded-sd")
def test_the_model_agrees_with_the_prompt_of_a_picture() -> None:
    scene = sample(2, seed=3, split="test").replace(kind="ball", background="meadow", style="photo")
    backbone = load_backbone("embedded", device="cpu")
    for colour, other in (("blue", "red"), ("red", "blue")):
        drawn = render(scene.replace(colour=colour, present2=False), torch.full((2, 1), 0.5), 256).rgb[:, 0]
        frames = (drawn * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        right, wrong = f"a {colour} ball in a meadow", f"a {other} ball in a meadow"
        assert prompt_agreement(backbone, frames, right, wrong) > 0.8
        assert prompt_agreement(backbone, frames, wrong, right) < 0.2
