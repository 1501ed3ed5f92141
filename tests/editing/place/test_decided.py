"""What the place of an edit decides: the share of the source's light and colours that it keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from adaflow_core.config import EditConfig, JobEdit
from adaflow_core.editing.place import wording
from adaflow_core.engine.edit_place import EditPlace
from adaflow_core.picture.over import NOTHING
from adaflow_core.types import Embedding

NONE: Any = None
SOURCE = "a red car in the desert, photo"
STYLE = "a red car in the desert, comic style"
FOUND = np.ones((2, 4, 4), np.float32)


def place_of(prompt: str, by_hand: Any = None) -> EditPlace:
    source, positive = (
        Embedding(text, torch.full((1, 4, 2), float(len(text))), np.ones(4, bool), (), "", True)
        for text in (SOURCE, prompt)
    )
    over = replace(NOTHING, by_hand=by_hand)
    return EditPlace(NONE, NONE, NONE, source, positive, wording(SOURCE, prompt), over)


@pytest.mark.parametrize(
    ("prompt", "by_hand", "place", "settings", "coarse"),
    [
        (STYLE, None, None, {}, 0.5),  # the prompts differ all over the frame
        (STYLE, "a picture", None, {}, 1.0),  # what was painted keeps its colours
        (STYLE, None, None, {"focus": 0.0}, 1.0),
        (SOURCE, None, None, {}, 1.0),
        (f" {SOURCE.upper()}.", None, None, {}, 1.0),  # the same, spelt otherwise
        ("a blue car in the desert, photo", None, None, {}, 1.0),  # all over the frame what stays would lose its light
        ("a blue car in the desert, photo", None, FOUND, {}, 0.25),
        ("a red car in a city, photo", None, FOUND, {}, 0.25),
        ("a red duck in the desert, photo", None, FOUND, {}, 1.0),
        ("a blue car in the desert, photo", None, FOUND, {"coarse": 0.7}, 0.7),
    ],
)
def test_how_much_of_the_sources_light_is_kept(
    prompt: str, by_hand: Any, place: np.ndarray | None, settings: dict[str, float], coarse: float
) -> None:
    config = JobEdit(**vars(EditConfig(**{"focus": 1.0} | settings)))
    assert place_of(prompt, by_hand).decide_by_place(config, place).coarse == coarse
