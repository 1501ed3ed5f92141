"""The choice of a model, and what the page shows of it: its settings, its words, its working sizes."""

from __future__ import annotations

import asyncio
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from adaflow_core.config import PRESETS, PlanConfig
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.project import Project
from adaflow_core.model.loading import EMBEDDED
from helpers.jobs import finish, wait_for
from helpers.pages import with_model
from helpers.plans import small_plan
from helpers.tabs import restored
from webui.events.common.outputs import ModelOutputs, ModelShown, ProjectOutputs
from webui.events.model import ModelEvents
from webui.events.plan import PlanEvents
from webui.events.project import ProjectEvents
from webui.events.session import SETTINGS, SETTINGS_KEY
from webui.jobs.queue import Begun
from webui.jobs.tasks import Request
from webui.settings import ALL, FORECAST, PLAN, shown_values
from webui.studio import Studio

OTHER = "nobody/has-this-model"
pytestmark = with_model


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Studio:
    """Its models are a toy, and one that knows any words."""
    here = Studio(str(EMBEDDED), "cpu", tmp_path, models=(OTHER,))
    monkeypatch.setattr(here, "load", lambda model: here.jobs.submit("load", lambda report, stop: None))
    return here


def chosen(studio: Studio, model: str, before: str) -> list[tuple[ModelOutputs, ModelShown, list[Any]]]:
    """What the choice of a model shows, one after the other."""
    seen: list[Any] = []

    async def choose() -> None:
        async for outputs in ModelEvents(studio).choose_model(model, before, Begun()):
            first, last = len(ModelOutputs._fields), len(ModelOutputs._fields) + len(ModelShown._fields)
            seen.append((ModelOutputs(*outputs[:first]), ModelShown(*outputs[first:last]), list(outputs[last:])))

    try:
        asyncio.run(choose())
    except gr.Error as problem:
        seen.append(str(problem))
    return seen


def test_a_model_brings_its_words_and_its_sizes(studio: Studio) -> None:
    for model, toy in ((OTHER, False), (str(EMBEDDED), True)):
        outputs, shown, settings = chosen(studio, model, "")[-1]
        assert (bool(shown.toy), shown.vocabulary.visible, shown.things.visible) == (toy, toy, toy)
        assert shown.model_before == model and len(settings) == len(ALL)
        assert outputs.side.choices[0][0] == f"the model's own ({studio.profile(model).size})"


def test_a_model_that_cannot_be_queued_leaves_the_one_before(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(model: str) -> str:
        raise AdaFlowError("the queue is full, 32 jobs wait already; try again in a few minutes")

    monkeypatch.setattr(studio, "load", full)
    (outputs, shown, settings), said = chosen(studio, OTHER, str(EMBEDDED))
    assert outputs.model == str(EMBEDDED) and "queue is full" in str(said)
    assert set(map(str, (*shown, *settings))) == {str(gr.skip())}


def test_of_a_model_that_is_not_wanted_nothing_is_waited_for(
    studio: Studio, drawn_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is planned by the settings of the model before; another choice leaves the load, and Stop ends it."""
    monkeypatch.setattr(studio, "load", lambda model: studio.jobs.submit("load", wait_for(threading.Event())))
    events, begun, first = PlanEvents(studio), Begun(), str(EMBEDDED)
    settings = shown_values([*PLAN, *FORECAST], studio.profile())

    async def choose(model: str) -> list[ModelOutputs]:
        choice = ModelEvents(studio).choose_model(model, first, begun)
        return [ModelOutputs(*outputs[: len(ModelOutputs._fields)]) async for outputs in choice]

    async def visit() -> None:
        one = asyncio.create_task(choose(OTHER))
        while not begun.load and not one.done():
            await asyncio.sleep(0.01)
        load = begun.load
        with pytest.raises(gr.Error, match="still being loaded"):
            await anext(events.preview("", str(drawn_clip), "", OTHER, 0, "", begun, *settings))
        two = asyncio.create_task(choose("another/model"))
        left = await asyncio.wait_for(one, 30)
        assert finish(studio.jobs, load).state == "stopped" and all(each.model == gr.skip() for each in left)
        events.stop_preview(begun)
        stopped = (await asyncio.wait_for(two, 30))[-1]
        assert stopped.model == first and "the model stays as it was" in stopped.status and begun.load == ""

    asyncio.run(visit())


def test_why_a_model_cannot_be_loaded_is_said(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(report: Any, stop: Any) -> None:
        raise AdaFlowError("it is not a model; choose another")

    monkeypatch.setattr(studio, "load", lambda model: studio.jobs.submit("load", fail))
    with pytest.warns(UserWarning, match=r"It is not a model; choose another\. The model stays as it was\."):
        outputs, *_ = chosen(studio, OTHER, str(EMBEDDED))[-1]
    assert outputs.model == str(EMBEDDED) and outputs.status == ""


def test_after_a_reload_the_page_shows_the_model_that_was_chosen(studio: Studio) -> None:
    plan_id = studio.kept.store_plan(Request("a.mp4", PlanConfig()), small_plan())
    kept = dict.fromkeys(SETTINGS, "") | {"model": OTHER, "side": "320x256", "takes": [{"frames": [1, 3]}]}

    session = {"plan": plan_id, "settings": [SETTINGS_KEY, *kept.values()]}
    _, shown, settings = restored(studio, session)
    assert shown.model_before == settings["model"] == OTHER and shown.toy == "" and not shown.vocabulary.visible
    side = settings["side"]
    assert side.value == "320x256" and side.choices[0][0] == f"the model's own ({studio.profile(OTHER).size})"
    assert settings["takes"] == [{"frames": [1, 3]}] and "deliver" in settings
    studio.public = True
    session["settings"] = [SETTINGS_KEY, *(kept | {"model": "not offered here"}).values()]
    _, shown, settings = restored(studio, session)
    assert shown.model_before == settings["model"] == gr.skip(), "it stays the page's own"


def test_a_project_brings_its_model(studio: Studio, drawn_clip: Path, tmp_path: Path) -> None:
    clip = shutil.copy(drawn_clip, tmp_path / "ball.mp4")
    prompts = ({"frames": [0, 12], "prompt": "a cube"},)
    project = Project(Path(clip), *PRESETS["fast"], prompts, model=OTHER)
    project.save(tmp_path / "ball.json")
    projects = ProjectEvents(studio, [])
    values = projects.open_project(str(tmp_path / "ball.json"), str(clip))
    first = len(ProjectOutputs._fields)
    opened, shown = ProjectOutputs(*values[:first]), ModelShown(*values[first : first + len(ModelShown._fields)])
    assert opened.model == shown.model_before == OTHER and shown.toy == ""
    assert opened.side.value == 0 and f"({studio.profile(OTHER).size})" in opened.side.choices[0][0]
    settings = dict(zip(ALL, values[first + len(ModelShown._fields) :], strict=True))
    assert (settings["steps"], settings["inversion_steps"], settings["fidelity"]) == (12, 12, 0.5)
    replace(project, model=str(EMBEDDED)).save(tmp_path / "there" / "ball.json")  # as a command writes it
    values = projects.open_project(shutil.copy(tmp_path / "there" / "ball.json", tmp_path / "uploaded.json"), str(clip))
    assert ProjectOutputs(*values[:first]).model == str(EMBEDDED), "by its name, as no path leads to it from here"
    replace(project, prompts=({"seconds": [0, 1], "prompt": "a cube"},)).save(tmp_path / "ball.json")
    with pytest.raises(gr.Error, match="write them for frames to open it here"):
        projects.open_project(str(tmp_path / "ball.json"), str(clip))
