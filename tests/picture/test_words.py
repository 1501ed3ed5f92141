"""Words of the source prompt become a region: left out of it, and given the frames' edges."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from adaflow_core.config import PlanConfig
from adaflow_core.editing.place import LOCAL
from adaflow_core.errors import AdaFlowError
from adaflow_core.picture.region.words import CLEAR, find_words, without
from adaflow_core.progress import Monitor
from adaflow_core.storage.cache import Cache
from adaflow_core.video.decode import from_frames


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


@pytest.mark.parametrize(("high", "doubted"), [(9.0, False), (5.0, True)])
def test_a_place_that_hardly_stands_out_is_doubted(
    high: float, doubted: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    frames = np.full((12, 64, 64, 3), 90, np.uint8)
    frames[1, 16:32, 16:32] = (200, 30, 30)  # it is in sight for a moment
    difference = np.full((12, 32, 32), 1.0, np.float32)
    difference[1, 8:16, 8:16] = high
    difference[4, 20:30, 20:30] = 1.2  # vague, of something else
    difference /= difference.mean(axis=(1, 2), keepdims=True)
    assert difference[1].std() > LOCAL and (difference[1].std() < CLEAR) == doubted
    monkeypatch.setattr("adaflow_core.picture.region.words.prompt_difference", lambda *_: difference)
    monkeypatch.setattr("adaflow_core.picture.region.words.source_latents", lambda *_: None)
    plan: Any = SimpleNamespace(video=from_frames(frames), config=PlanConfig(source_prompt="a red ball"))
    backbone: Any = SimpleNamespace(embed=str)
    masks, doubt = find_words(backbone, plan, "red ball", Cache(tmp_path), Monitor())
    assert list(masks) == [1] and ("hardly stands out" in doubt) == doubted
