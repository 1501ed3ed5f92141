"""Rows of prompts for ranges of frames."""

from __future__ import annotations

from typing import Any

import pytest

from webui.events.film import FilmEvents

NOTHING: Any = None


@pytest.mark.parametrize(
    ("first", "second", "prompt", "source"),
    [
        (("a ball", "a cube"), ("a star", None), "a ball", "a cube"),
        (("", None), ("a star", "a cube"), "a star", "a cube"),
        (("a ball", None), ("a star", "a cube"), "a ball", None),
    ],
)
def test_rows_that_are_merged_say_what_one_of_them_said(
    first: tuple[str, str | None], second: tuple[str, str | None], prompt: str, source: str | None
) -> None:
    """With what is in its frames now, which is no part of the row that a visitor sees."""
    texts = (("prompt", "source_prompt"), first), (("prompt", "source_prompt"), second)
    rows: list[dict[str, Any]] = [
        {"frames": span} | {name: text for name, text in zip(*each, strict=True) if text is not None}
        for span, each in zip(([0, 4], [4, 9]), texts, strict=True)
    ]
    (row,), _ = FilmEvents(NOTHING, [], NOTHING).merge(rows, 0, 0)
    assert (row["frames"], row["prompt"], row.get("source_prompt")) == ([0, 9], prompt, source)
