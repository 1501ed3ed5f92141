"""What the components of settings show of a model, and what is asked for by them."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from adaflow_core.config import BY_WORDS, EditConfig, ModelProfile, PlanConfig
from adaflow_core.errors import AdaFlowError
from helpers.plans import small_plan
from webui.components.settings import add_settings
from webui.events.plan import PlanEvents
from webui.jobs.queue import Begun
from webui.settings import EDIT, FORECAST, PLAN, asked_values, shown_values
from webui.studio import Studio

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


def test_fields_that_were_cleared_ask_for_what_is_usual() -> None:
    names = (*PLAN, *EDIT)
    asked = asked_values(names, PROFILE, [None] * len(names))
    usual = vars(PlanConfig()) | vars(EditConfig())
    assert asked == {name: usual[name] for name in names}


@pytest.mark.parametrize(("name", "shown"), [("guidance", [4]), ("detail", "much"), ("seed", "7"), ("seed", 1e999)])
def test_what_is_no_number_is_refused_in_a_sentence(name: str, shown: object) -> None:
    with pytest.raises(AdaFlowError, match=f"^{name} is .*; it must"):
        EditConfig(**asked_values((name,), PROFILE, [shown]))


def test_large_seeds_keep_all_their_digits() -> None:
    seed = 2**63 - 1
    assert asked_values(("seed",), PROFILE, [seed]) == {"seed": seed}
    assert asked_values(("seed",), PROFILE, [7.0]) == {"seed": 7}


def test_what_is_shown_is_marked_where_other_settings_are_set(drawn_clip: Path, tmp_path: Path) -> None:
    studio = Studio("embedded", "cpu", tmp_path)
    events, begun = PlanEvents(studio), Begun()
    names = (*PLAN, *FORECAST)
    usual = dict(zip(names, shown_values(names, studio.profile()), strict=True))
    video = {"video": str(drawn_clip), "source_prompt": "a ball", "model": "", "side": 0, "frames": ""}
    request = asyncio.run(events.asked(**video, begun=begun, shown=tuple(usual.values())))
    plan_id = studio.kept.store_plan(request, small_plan())

    def said(plan_id: str = plan_id, **changed: Any) -> str:
        first = video | {name: value for name, value in changed.items() if name in video}
        shown = [changed.get(name, value) for name, value in usual.items()]
        return asyncio.run(events.check_shown(plan_id, *first.values(), begun, *shown))

    other = str(shutil.copy(drawn_clip, tmp_path / "trimmed.mp4"))
    differ = {"source_prompt": "a cube"}, {"frames": "0:5"}, {"side": "64"}, {"video": other}
    for changed in ({"keyframes_at": "3"}, *differ):
        assert "have changed since this preview; preview again" in said(**changed), changed
    assert "predicted time and memory are of the settings before" in said(steps=7)
    assert said() == said(source_prompt=" a ball") == said("", steps=7) == said(frames="5") == said(side="0") == ""
    assert "not kept any more; preview again" in said("unknown", steps=7) == said("unknown")


def test_a_slider_plans_anew_where_the_plan_is_not_kept_any_more(drawn_clip: Path, tmp_path: Path) -> None:
    """It did nothing, without a word. Before the first preview it does nothing."""
    studio = Studio("embedded", "cpu", tmp_path, runner=lambda task, report, stop: small_plan())
    shown = shown_values((*PLAN, *FORECAST), studio.profile())

    async def moved(plan_id: str) -> Any:
        events = PlanEvents(studio).replan(plan_id, str(drawn_clip), "a ball", "", 0, "", Begun(), *shown)
        return [outputs async for outputs in events][-1].plan_id

    assert asyncio.run(moved("")) == gr.skip() and studio.jobs.counts() == {}
    assert studio.kept.find_plan(asyncio.run(moved("gone"))) is not None
