"""Edits of one video: which of them is followed, and which one is shown."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import fields
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest

from helpers.jobs import finish, until, wait_for
from helpers.plans import small_plan
from webui.events.edit import EditEvents
from webui.jobs.finished import FinishedEdit
from webui.jobs.queue import Watched
from webui.outputs import WatchOutputs, unchanged
from webui.page import build
from webui.studio import Studio


def studio(folder: Path) -> Studio:
    return Studio("embedded", "cpu", folder, runner=lambda task, report, stop: small_plan())


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build(Studio("embedded", "cpu", tmp_path_factory.mktemp("page")))


def names(event: Any) -> tuple[str, ...]:
    return tuple(getattr(component, "label", "") or "" for component in event.inputs)


def test_another_edit_of_the_video_is_followed_and_the_first_one_goes_on_aside(tmp_path: Path) -> None:
    """It was not until a reload, as the page followed the first."""
    here, release, watched = studio(tmp_path), threading.Event(), Watched()
    editing = EditEvents(here)
    first = here.jobs.submit("edit", wait_for(release), title="first")
    until(lambda: here.jobs.snapshot(first).state == "running")
    second = here.jobs.submit("edit", wait_for(release), title="second")
    seen: dict[str, list[Any]] = {first: [], second: []}

    async def watch(job: str) -> None:
        async for outputs in editing.watch(job, watched):
            seen[job].append(outputs)

    async def both() -> None:
        one = asyncio.create_task(watch(first))
        while not seen[first]:
            await asyncio.sleep(0.01)
        editing.turn_to(second, watched)
        other = asyncio.create_task(watch(second))
        await asyncio.wait_for(one, 30)
        shown = len(seen[first])
        assert (watched.aside, watched.here) == ([first], [second])
        release.set()
        await asyncio.wait_for(other, 60)
        assert len(seen[first]) == shown

    asyncio.run(both())
    assert finish(here.jobs, second).state == "done"
    hidden = [outputs for outputs in seen[first] if isinstance(outputs.result, gr.Column)]
    assert not hidden, "what stands there is the second one's"


def test_one_that_is_followed_keeps_no_other_from_being_followed(page: Any) -> None:
    """Gradio leaves out an event of which another still runs, unless it is told not to."""
    watching = [event for event in page.fns.values() if event.name == "watch"]
    assert len(watching) >= 4 and {event.trigger_mode for event in watching} == {"multiple"}


@pytest.mark.parametrize("name", ["compare", "retake", "show_beside", "stretch", "zoom", "history"])
def test_what_is_done_with_an_edit_is_done_with_the_one_that_is_shown(name: str, page: Any) -> None:
    """Of one that was stopped there is nothing to compare or to make again."""
    events = [event for event in page.fns.values() if event.name == name]
    assert events and all("Shown job" in names(event) and "Job" not in names(event) for event in events)


def test_after_a_reload_an_edit_is_shown_again_whose_retake_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = studio(tmp_path)
    editing, values = EditEvents(here), dict.fromkeys(each.name for each in fields(FinishedEdit))
    nothing_yet = np.zeros((1, 2, 2, 3), np.uint8)
    edit = FinishedEdit(**values | {"before": nothing_yet, "after": nothing_yet, "folder": tmp_path})  # type: ignore[arg-type]
    monkeypatch.setattr(
        "webui.events.edit._watch_outputs", lambda snapshot: unchanged(WatchOutputs, shown_job=snapshot.id)
    )
    shown = here.jobs.submit("edit", lambda report, stop: edit)
    finish(here.jobs, shown)
    retake = here.jobs.submit("edit", wait_for(threading.Event()))
    here.jobs.stop(retake)
    finish(here.jobs, retake)
    assert editing.show_again(shown, retake).shown_job == shown
    nothing = unchanged(WatchOutputs)
    assert (
        editing.show_again(shown, shown) == editing.show_again("", retake) == editing.show_again("gone", "") == nothing
    )
