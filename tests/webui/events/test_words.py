"""Words that are clicked together to a prompt."""

from __future__ import annotations

import pytest

from scenes.captions import MAIN_WORDS
from webui.events.common.words import with_word


@pytest.mark.parametrize(
    ("prompt", "kind", "word", "becomes"),
    [
        ("a red ball in a meadow", "colours", "orange", "an orange ball in a meadow"),
        ("an orange balloon on the ocean", "things", "rocket", "an orange rocket on the ocean"),
        ("a red car in a meadow", "places", "at night", "a red car at night"),
        ("a red rocket at night, photo", "styles", "comic style", "a red rocket at night, comic style"),
        ("a ball in a meadow", "colours", "blue", "a blue ball in a meadow"),
        ("a red ball, photo", "places", "in the snow", "a red ball in the snow, photo"),
        ("a red ball", "styles", "pencil sketch", "a red ball, pencil sketch"),
        ("a blue", "things", "duck", "a blue duck"),
        ("", "things", "duck", "a duck"),
        ("", "colours", "orange", "an orange"),
        ("", "places", "at night", "at night"),
        ("a xylophone", "places", "in a city", "a xylophone in a city"),
        ("a balloon", "things", "ball", "a ball"),  # of two words at one place the longer
    ],
)
def test_a_word_takes_the_place_of_its_kind(prompt: str, kind: str, word: str, becomes: str) -> None:
    assert with_word(prompt, kind, word, MAIN_WORDS) == becomes


def test_a_whole_sentence_is_clicked_together_in_any_order() -> None:
    chosen = {"things": "star", "colours": "orange", "places": "in the desert", "styles": "photo"}
    for order in (list(chosen), ["things", "places", "colours", "styles"], ["styles", "things", "colours", "places"]):
        prompt = ""
        for kind in order:
            prompt = with_word(prompt, kind, chosen[kind], MAIN_WORDS)
        assert set(prompt.replace(",", "").split()) == {"an", "orange", "star", "in", "the", "desert", "photo"}, order


def test_a_model_without_words_by_kind_gets_the_word_alone() -> None:
    assert with_word("a thing", "styles", "photo", {}) == "a thing, photo"
