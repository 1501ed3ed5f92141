"""What the components of settings show of a model, and what is asked for by them."""

from __future__ import annotations

import gradio as gr

from adaflow_core.config import BY_WORDS, ModelProfile
from webui.components.settings import add_settings
from webui.settings import EDIT, asked_values, shown_values

PROFILE = ModelProfile()


def test_what_is_shown_of_a_model_asks_for_nothing() -> None:
    asked = asked_values(EDIT, PROFILE, shown_values(EDIT, PROFILE))
    assert asked == asked_values(EDIT, PROFILE, shown_values(EDIT, PROFILE, asked))
    assert {name for name in vars(PROFILE) if asked.get(name) is not None} == set()


def test_a_model_s_own_value_is_no_wish_unless_words_decide() -> None:
    names = ("guidance", *BY_WORDS)
    own = [getattr(PROFILE, name) for name in names]
    assert asked_values(names, PROFILE, own) == dict(zip(names, [None, *own[1:]], strict=True))
    assert asked_values(names, PROFILE, [3.0, "", "0.25"]) == dict(zip(names, [3.0, None, 0.25], strict=True))


def test_what_words_decide_is_shown_as_automatic() -> None:
    with gr.Blocks():
        made = add_settings(("guidance", *BY_WORDS), PROFILE)
    assert made["guidance"].value == PROFILE.guidance
    assert all(isinstance(made[name], gr.Dropdown) and made[name].value == "" for name in BY_WORDS)
    assert shown_values(BY_WORDS, PROFILE, {"injection_attention": 1.0}) == [1.0, ""]
