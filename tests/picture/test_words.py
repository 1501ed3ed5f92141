"""Words of the source prompt become a region: left out of it, and given the frames' edges."""

from __future__ import annotations

import pytest

from adaflow_core.errors import AdaFlowError
from adaflow_core.picture.region.words import without


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
