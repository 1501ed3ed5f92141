"""What is said of a prompt that holds instructions to other programs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adaflow_core.model.backbone import foreign_syntax, prompt_warnings
from adaflow_core.types import Embedding


@pytest.mark.parametrize(("prompt", "signs"), [
    ("a (red:1.3) ball", "(red:1.3)"),
    ("a (big red : .5) ball", "(big red : .5)"),
    ("a ((red)) ball", "((red))"),
    ("a [red] ball", "[red]"),
    ("a [red:blue:0.5] ball", "[red:blue:0.5]"),
    ("<lora:paper:0.8> a ball <lora:ink:1>", "<lora:paper:0.8>, <lora:ink:1>"),
    ("a ball BREAK snow", "BREAK"),
    ("a ball AND snow AND ice", "AND"),
    ("a ball (in the evening), and snow: 12:30, 3 < 5", ""),
    ("(" * 50_000 + ":" * 50_000 + " " * 50_000, ""),
])  # fmt: skip
def test_instructions_to_other_programs_are_found(prompt: str, signs: str) -> None:
    assert foreign_syntax(prompt) == signs


def test_they_are_said_with_the_name_of_the_prompt() -> None:
    text = "a (red:1.3) ball"
    embedding = Embedding(text, torch.zeros(1, 2, 4), np.array([True, True]), (), "", True)
    (warning,) = prompt_warnings(embedding, "negative prompt")
    assert "nothing in a negative prompt here" in warning and warning.endswith("(red:1.3)")
