"""An edit held to the source's outlines: colours that stray, patterns that stay, and which words ask for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.editing.finish.outlines import hold_outlines
from adaflow_core.engine import AdaFlow
from adaflow_core.model.backbone import Backbone
from adaflow_core.storage.cache import Cache

GROUND, THING, NEW = (90, 160, 90), (200, 40, 40), (40, 40, 200)


def disc(colour: tuple[int, int, int], radius: float = 20) -> torch.Tensor:
    """[1, 64, 64, 3] uint8 on the ground."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    inside = ((y - 32) ** 2 + (x - 32) ** 2 <= radius**2)[..., None]
    return torch.where(inside, torch.tensor(colour), torch.tensor(GROUND)).to(torch.uint8)[None]


def test_a_colour_that_strays_is_taken_back() -> None:
    source, truth = disc(THING), disc(NEW)
    soft = F.avg_pool2d(disc(NEW, 22).permute(0, 3, 1, 2).float(), 5, stride=1, padding=2, count_include_pad=False)
    edited = soft.permute(0, 2, 3, 1).round().to(torch.uint8)

    def error(picture: torch.Tensor) -> float:
        return float((picture.float() - truth.float()).square().mean().sqrt())

    held = hold_outlines(edited, source, 1.0, reach=4)
    assert error(held) < 0.2 * error(edited)
    assert error(held) < error(hold_outlines(edited, source, 0.5, reach=4)) < error(edited)
    assert torch.equal(hold_outlines(edited, source, 0.0, reach=4), edited)


def test_what_is_not_edited_stays_to_the_bit() -> None:
    source = disc(THING)
    assert torch.equal(hold_outlines(source, source, 1.0, reach=4), source)


def test_a_pattern_within_one_colour_stays() -> None:
    source, edited = disc(THING), disc(NEW)
    edited[:, ::6, 24:40] = torch.tensor([240, 240, 240], dtype=torch.uint8)
    held = hold_outlines(edited, source, 1.0, reach=4)
    inside = (slice(None), slice(22, 42), slice(26, 38))
    assert (held[inside].float() - edited[inside].float()).abs().mean() < 4


@pytest.mark.parametrize(
    ("source", "prompt", "expected"),
    [
        ("a red ball in a meadow", "a blue ball in a meadow", 1.0),
        ("a red ball in a meadow", "a red ball in the snow", 1.0),
        ("a red ball in a meadow", "a red cube in a meadow", 0.0),
        ("a red ball in a meadow", "a red ball in a meadow, comic style", 0.0),
        ("", "a blue ball in a meadow", 0.0),
    ],
)
def test_words_that_keep_shapes_ask_for_it(
    tiny_backbone: Callable[[str], Backbone], tmp_path: Path, source: str, prompt: str, expected: float
) -> None:
    engine = AdaFlow(tiny_backbone("sd1"), Cache(tmp_path))
    frames = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    plan = engine.plan(frames, PlanConfig(source_prompt=source))
    found = engine.edit(plan, prompt, EditConfig(steps=1, inversion_steps=1)).report["settings"]["edit"]["outlines"]
    assert found == expected
    own = engine.edit(plan, prompt, EditConfig(steps=1, inversion_steps=1, outlines=0.25)).report
    assert own["settings"]["edit"]["outlines"] == 0.25
