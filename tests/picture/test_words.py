"""Words of the source prompt become a region: left out of it, and given the frames' edges."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from adaflow_core.errors import AdaFlowError
from adaflow_core.picture.region.carry import iou
from adaflow_core.picture.region.words import edged, without
from scenes.render import render
from scenes.world import sample


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("red ball", "in a meadow, the sun above"),
        ("Red  Ball", "in a meadow, the sun above"),
        ("a meadow", "a red ball in , the sun above"),
        ("sun", "a red ball in a meadow, above"),
    ],
)
def test_words_are_left_out_with_their_article(words: str, left: str) -> None:
    assert without("a red ball in a meadow, the sun above", words) == left


@pytest.mark.parametrize(("prompt", "words"), [("a red ball", "all"), ("a red ball", "blue ball"), ("", "ball")])
def test_words_must_be_there(prompt: str, words: str) -> None:
    with pytest.raises(AdaFlowError, match="source prompt"):
        without(prompt, words)


def test_a_coarse_place_gets_the_edges_of_the_frames() -> None:
    row = sample(1, seed=4, split="val", motion="drift").replace(
        kind="balloon", colour="red", background="meadow", style="photo", present2=False
    )
    picture = render(row, torch.linspace(0, 1, 3), size=128)
    frames = (picture.rgb[0].permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    truth = (picture.ids[0] == 1).numpy()
    small = np.stack([cv2.resize(one.astype(np.float32), (16, 16), interpolation=cv2.INTER_AREA) for one in truth])
    difference = np.stack([cv2.blur(one, (3, 3)) for one in small]) + np.float32(0.05)
    coarse = [cv2.resize(one, (128, 128)) > 0.5 * difference.max() for one in difference]
    found = edged(frames, difference)
    scores = [np.mean([iou(*pair) for pair in zip(masks, truth, strict=True)]) for masks in (coarse, found)]
    assert scores[1] > 0.9 > scores[0]
