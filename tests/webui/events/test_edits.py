"""Edits of one video: which of them is followed, and which one is shown."""

from __future__ import annotations

import asyncio
import json
import threading
import warnings
from collections.abc import AsyncIterator
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest

from adaflow_core.errors import AdaFlowError
from adaflow_core.report.scores import Scores
from helpers.jobs import finish, until, wait_for
from helpers.plans import small_plan
from helpers.tabs import restored
from webui import views
from webui.events.common.outputs import WatchOutputs, unchanged
from webui.events.edit.begin import BeginEvents
from webui.events.edit.edit import EditEvents
from webui.events.edit.result import ResultEvents
from webui.events.edit.retake import RetakeEvents
from webui.events.edit.watch import WatchEvents, _watch_outputs
from webui.events.plan import PlanEvents
from webui.events.video import VideoEvents
from webui.jobs.finished import FinishedEdit
from webui.jobs.queue import Begun, Watched
from webui.jobs.tasks import EditTask, PlanTask
from webui.kept import OverState, RegionState
from webui.limits import Limits
from webui.page import build
from webui.settings import EDIT, FORECAST, PLAN, shown_values
from webui.studio import Studio
from webui.views import labels


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
        async for outputs in WatchEvents(editing.studio).watch(job, watched):
            seen[job].append(outputs)

    async def both() -> None:
        one = asyncio.create_task(watch(first))
        while not seen[first]:
            await asyncio.sleep(0.01)
        watched.turn_to(second)
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


def test_a_retake_is_stopped_also_where_another_edit_is_looked_at(tmp_path: Path) -> None:
    """And nothing else that goes on aside."""
    here, release, watched = studio(tmp_path), threading.Event(), Watched()
    editing = EditEvents(here)
    shown = here.jobs.submit("edit", lambda report, stop: 1)
    finish(here.jobs, shown)
    retake, other = (here.jobs.submit("edit", wait_for(release)) for _ in range(2))
    for job in (other, retake, shown):
        watched.turn_to(job)
    assert RetakeEvents(editing).stop_retake(retake, shown, watched) == gr.skip()
    assert finish(here.jobs, retake).state == "stopped" and not here.jobs.snapshot(other).stopping
    assert RetakeEvents(editing).stop_retake("", other, watched) == gr.skip(), "after a reload it is what runs"
    assert finish(here.jobs, other).state == "stopped"
    assert "Nothing is running" in RetakeEvents(editing).stop_retake(retake, shown, watched)


def finished_edit(folder: Path, frames: np.ndarray, **values: Any) -> FinishedEdit:
    """An edit of these frames [T, H, W, 3] that says nothing."""
    nothing_else = dict.fromkeys((field.name for field in fields(FinishedEdit)), "")
    made = {"folder": folder, "before": frames, "after": frames, "fps": 10, "asked": None} | values
    return FinishedEdit(**nothing_else | made)  # type: ignore[arg-type]


def uneven_edit(folder: Path) -> FinishedEdit:
    """Of 5 frames, the last of which is shown for six times as long as each other."""
    frames = np.zeros((5, 2, 2, 3), np.uint8)
    video = replace(small_plan().video, frames=frames, times=(3.0, 3.1, 3.2, 3.3, 3.4, 4.0))
    return finished_edit(folder, frames, asked=SimpleNamespace(plan=SimpleNamespace(video=video)))


@pytest.mark.parametrize(
    ("second", "first", "end"), [(0.0, 0, 1), (0.05, 0, 1), (0.0999999, 1, 1), (0.19, 1, 1), (0.95, 4, 4), (2.0, 4, 5)]
)
def test_the_frame_that_is_shown_is_the_one_that_has_begun(
    second: float, first: int, end: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of frames of uneven lengths, and where the video has ended."""
    retakes, edit = RetakeEvents(EditEvents(studio(tmp_path))), uneven_edit(tmp_path)
    monkeypatch.setattr(retakes.studio, "finished", lambda job: edit if job == "job" else None)
    assert (retakes.begin_here("job", second), retakes.end_here("job", second)) == (first, end)
    assert retakes.begin_here("", second) == retakes.end_here("", second) == gr.skip()


def test_times_are_those_of_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    editing, edit = EditEvents(studio(tmp_path)), uneven_edit(tmp_path)
    monkeypatch.setattr(editing.studio, "finished", lambda job: edit if job == "job" else None)
    assert "0.40 s, frame 4:" in ResultEvents(editing.studio).compare("job", 4).compared_line
    assert "Frames 3 to 4, 0.70 s" in RetakeEvents(editing).stretch("job", 3, 5)


def test_the_prompt_of_a_stretch_goes_with_the_edit_that_it_was_for(
    page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays for the same stretch once more."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    (shown,) = [block for block in page.blocks.values() if getattr(block, "label", "") == "Edit shown"]
    (prompt,) = [block for block in page.blocks.values() if getattr(block, "label", "") == "Prompt of the stretch"]
    chosen = [event for event in page.fns.values() if (shown._id, "input") in event.targets]
    assert [event.js for event in chosen if event.outputs == [prompt]] == ["() => ['']"]
    report = tmp_path / "report.json"
    report.write_text("{}")
    values = {"edited": 4, "warnings": (), "scores": Scores(None, None, None)}
    values |= dict.fromkeys(("source", "edit", "delivered", "report", "project"), report)
    frames, jobs = np.zeros((4, 2, 2, 3), np.uint8), studio(tmp_path).jobs
    made = (finished_edit(tmp_path, frames, **values, stretch=stretch) for stretch in (None, (1, 3)))
    for kept in ("", gr.skip()):
        done = finish(jobs, jobs.submit("edit", lambda report, stop: next(made)))
        assert _watch_outputs(done).retake_prompt == kept


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
    editing, edit = EditEvents(here), finished_edit(tmp_path, np.zeros((1, 2, 2, 3), np.uint8))
    monkeypatch.setattr(
        "webui.events.edit.watch._watch_outputs", lambda snapshot: unchanged(WatchOutputs, shown_job=snapshot.id)
    )
    shown = here.jobs.submit("edit", lambda report, stop: edit)
    finish(here.jobs, shown)
    retake = here.jobs.submit("edit", wait_for(threading.Event()))
    here.jobs.stop(retake)
    finish(here.jobs, retake)
    assert WatchEvents(editing.studio).show_again(shown, retake).shown_job == shown
    nothing = unchanged(WatchOutputs)
    assert (
        WatchEvents(editing.studio).show_again(shown, shown)
        == WatchEvents(editing.studio).show_again("", retake)
        == WatchEvents(editing.studio).show_again("gone", "")
        == nothing
    )


def held_studio(folder: Path, release: threading.Event, limits: Limits | None = None) -> tuple[Studio, list[Any]]:
    """What is planned and edited waits for `release`; and the tasks that were begun."""
    tasks: list[Any] = []

    def run(task: Any, report: Any, stop: Any) -> Any:
        tasks.append(task)
        wait_for(release)(report, stop)
        return small_plan()

    return Studio("embedded", "cpu", folder, runner=run, limits=limits), tasks


async def clicked(
    here: Studio, clip: Path, begun: Begun, watched: Watched | None = None, plan_id: str = "", planning: str = "",
    **other: Any,
) -> tuple[str, str]:  # fmt: skip
    """A click on Edit, by default before anything was planned: the jobs of the planning and of the edit."""
    shown = shown_values([*PLAN, *EDIT], here.profile(), {name: other.pop(name) for name in EDIT if name in other})
    asked = {
        "prompt": "a cube", "prompting": labels.ONE, "prompts": [], "rows_of": {}, "crossfade": None, "takes": [],
        "deliver": "source", "over": OverState(), "over_id": "",
    } | other  # fmt: skip
    parts = planning, plan_id, str(clip), "a ball", "", 0, "", begun, watched or Watched()
    return await beginning(here).begin(*parts, *asked.values(), *shown)


def beginning(here: Studio) -> BeginEvents:
    return BeginEvents(PlanEvents(here), EditEvents(here))


OF_OTHERS = OverState(video="of others", region=RegionState({0: np.ones((48, 64), bool)}))


@pytest.mark.parametrize("over", [OverState(), OF_OTHERS], ids=["nothing", "of others"])
def test_an_edit_comes_after_its_planning_though_the_page_is_closed(
    over: OverState, drawn_clip: Path, tmp_path: Path
) -> None:
    """The browser knows it from the first moment, and what is wrong with it is said by its job, also where the queue is
    full by then."""
    release, begun, room = threading.Event(), Begun(), Limits(waiting=1)
    here, tasks = held_studio(tmp_path, release, room)

    planning, edit = asyncio.run(clicked(here, drawn_clip, begun, over=over))
    assert here.jobs.snapshot(edit) is None and begun.plans == [planning], "Stop ends it where the tab is there again"
    until(lambda: tasks)
    if not over.is_empty:
        here.jobs.submit("edit", wait_for(release))
    release.set()
    assert finish(here.jobs, planning).state == "done"
    ended = finish(here.jobs, edit)
    assert ended.kind == "edit" and [type(task) for task in tasks] == [PlanTask, EditTask][: 1 + over.is_empty]
    assert over.is_empty or "is of other frames" in ended.problem


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"deliver": "nonsense"}, "Deliver is 'nonsense'"),
        ({"seed": -1}, "[Ss]eed is -1"),
        ({"prompting": labels.BY_SHOT, "prompts": [{"frames": [4, 2], "prompt": "a cube"}]}, "4:2"),
        (
            {"prompting": labels.BY_SHOT, "prompts": [{"frames": [0, 4], "prompt": ""}], "rows_of": {"others": []}},
            "No range of the timeline has a prompt",
        ),
        ({"over_id": "what is not kept any more"}, "not kept any more; reload"),
        ({}, "1 of your jobs"),
    ],
)
def test_what_is_wrong_with_an_edit_is_said_before_its_planning(
    wrong: dict[str, Any], said: str, drawn_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = held_studio(tmp_path, threading.Event())
    monkeypatch.setattr("webui.studio.visitor", lambda own: {"me": 1})
    if not wrong:
        here.jobs.submit("edit", wait_for(threading.Event()), visitor={"me": 1})
    with pytest.raises(gr.Error, match=said):
        asyncio.run(clicked(here, drawn_clip, Begun(), **wrong))
    assert sum(here.jobs.counts().values()) == (not wrong)


def test_an_edit_that_is_queued_as_the_video_changes_goes_on_aside(drawn_clip: Path, tmp_path: Path) -> None:
    """Before the page knows of it; with a planning before it, and without. Stop ends it."""
    planned, begun, watched = threading.Event(), Begun(), Watched()

    def run(task: Any, report: Any, stop: Any) -> Any:
        return wait_for(planned if isinstance(task, PlanTask) else threading.Event())(report, stop) and small_plan()

    here = Studio("embedded", "cpu", tmp_path, runner=run)
    videos, editing = VideoEvents(here, []), EditEvents(here)

    async def click(plan_id: str = "") -> tuple[str, str]:
        """The jobs of the planning, where there is one, and of the edit, which runs by now."""
        planning, edit = await clicked(here, drawn_clip, begun, watched, plan_id)
        planned.set()
        until(lambda: (job := here.jobs.snapshot(edit)) is not None and job.state == "running")
        videos.another_video(begun, "", watched)
        assert (watched.here, watched.aside[-1]) == ([], edit)
        if planning:
            with pytest.raises(gr.Error):
                [shown async for shown in beginning(here).show_planning(planning, plan_id, begun)]
        assert editing.stop("", begun, watched=watched) == gr.skip()
        assert finish(here.jobs, edit).state == "stopped"
        return planning, edit

    planning, _ = asyncio.run(click())
    asyncio.run(click(finish(here.jobs, planning).result))


@pytest.mark.parametrize("stopped", [True, False])
def test_another_press_of_edit_counts_in_the_place_of_one_that_plans(
    stopped: bool, drawn_clip: Path, tmp_path: Path
) -> None:
    """It was left out without a word: the edit came with the prompt before, or after Stop not at all."""
    release, begun = threading.Event(), Begun()
    here, tasks = held_studio(tmp_path, release)

    async def press_twice() -> tuple[str, str]:
        first, before = await clicked(here, drawn_clip, begun, prompt="a cube")
        showing = beginning(here).show_planning(first, "", begun)
        assert 'data-job="plan' in (await anext(showing)).status
        if stopped:
            EditEvents(here).stop("", begun)
        second, edit = await clicked(here, drawn_clip, begun, planning=first, prompt="a star")
        with pytest.raises(gr.Error) as ended:
            assert [shown async for shown in showing] == [], "the progress is that of the second one"
        assert not ended.value.visible and begun.plans == [second]
        return before, edit

    before, edit = asyncio.run(asyncio.wait_for(press_twice(), 30))
    release.set()
    finish(here.jobs, begun.plans[0])
    finish(here.jobs, edit)
    assert [task.timeline.text for task in tasks if isinstance(task, EditTask)] == ["a star"]
    assert here.jobs.snapshot(before) is None


@pytest.mark.parametrize("mine", [True, False])
def test_a_failure_is_told_to_who_waits_for_it(mine: bool, tmp_path: Path) -> None:
    """It was told again in each new tab, which began with it."""
    here = studio(tmp_path)
    here.jobs.refuse("edit", AdaFlowError("it cannot be done"), "failed")
    done = here.jobs.submit("edit", lambda report, stop: 1)
    assert finish(here.jobs, done).state == "done"
    had, *_ = restored(here, {"edits": ["stopped before it began", "failed", done]})
    assert had.job_id == done, "a new tab begins with what is done"
    watched = Watched(here=["failed"] if mine else [])

    async def watch() -> Any:
        return [outputs async for outputs in WatchEvents(here).watch("failed", watched)][-1]

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert "It cannot be done" in asyncio.run(watch()).progress
    assert [str(warning.message) for warning in told] == ["It cannot be done"] * mine


def test_edits_that_came_to_nothing_take_no_place_among_those_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editing, edit = EditEvents(studio(tmp_path)), finished_edit(tmp_path, np.zeros((1, 2, 2, 3), np.uint8))
    monkeypatch.setattr(editing.studio, "finished", lambda job: edit if job.startswith("done") else None)
    monkeypatch.setattr(views, "history", lambda edits: "")
    listed = ResultEvents(editing.studio).more_history(
        json.dumps([f"{what} {n}" for n in range(20) for what in ("stopped", "done")]), ""
    )
    assert [job for _, job in listed.shown.choices] == [f"done {n}" for n in range(12)]


def test_an_edit_keeps_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes after it, and however many are listed."""
    editing, numbered = EditEvents(studio(tmp_path)), list[int]()
    edit = finished_edit(tmp_path, np.zeros((1, 2, 2, 3), np.uint8))
    monkeypatch.setattr(editing.studio, "finished", lambda job: edit)
    monkeypatch.setattr(views, "history", lambda edits: numbered.extend(edits) or "")
    for count in (3, 14, 15):
        jobs = [f"job {number}" for number in range(count, 0, -1)]
        names = {
            job: name for name, job in ResultEvents(editing.studio).more_history(json.dumps(jobs), "").shown.choices
        }
        assert names["job 3" if count == 3 else "job 14"].startswith(f"{min(count, 14)}: ")
        assert numbered[-len(names) :] == [int(job.split()[1]) for job in names]


@pytest.mark.parametrize("button", ["edit", "preview"])
def test_stop_ends_all_plannings_and_what_was_to_follow(button: str, drawn_clip: Path, tmp_path: Path) -> None:
    """An edit that was begun while a preview ran went on. And nobody is told that it is an error."""
    release, begun = threading.Event(), Begun()
    here, tasks = held_studio(tmp_path, release)
    planning, editing = PlanEvents(here), EditEvents(here)
    settings = shown_values([*PLAN, *FORECAST], here.profile())
    preview = planning.preview("", str(drawn_clip), "a ball", "", 0, "", begun, *settings)

    async def last(outputs: AsyncIterator[Any]) -> tuple[Any, bool]:
        seen: Any = None
        try:
            async for seen in outputs:  # noqa: B007  # it is returned
                pass
        except gr.Error as problem:
            return seen, problem.visible
        return seen, True

    async def edited() -> AsyncIterator[Any]:
        plan, _ = await clicked(here, drawn_clip, begun)
        async for outputs in beginning(here).show_planning(plan, "", begun):
            yield outputs

    async def both() -> list[tuple[Any, bool]]:
        running = asyncio.gather(last(preview), last(edited()))
        while len(begun.plans) < 2 and not running.done():
            await asyncio.sleep(0.01)
        plans = list(begun.plans)
        assert (editing.stop("", begun) if button == "edit" else planning.stop_preview(begun)) == gr.skip()
        ended = await asyncio.wait_for(running, 30)
        assert {finish(here.jobs, job).state for job in plans} == {"stopped"} and begun.plans == []
        return list(ended)

    (previewed, told), (begun_edit, told_of_edit) = asyncio.run(both())
    assert not told and not told_of_edit
    assert "The preview was stopped." in previewed.status
    assert "The edit was stopped." in begun_edit.status
    assert here.jobs.counts() == {"stopped": 2} and EditTask not in map(type, tasks)


def test_takes_of_a_project_stay_until_an_edit_holds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editing = EditEvents(studio(tmp_path))
    takes = [{"frames": [1, 3], "prompt": "a cube", "settings": {"seed": 1}}]
    done = SimpleNamespace(asked=SimpleNamespace(takes=tuple(takes)))
    monkeypatch.setattr(editing.studio, "finished", lambda job: done if job == "done" else None)
    for job, shown in (("stopped", takes), ("done", []), ("done", [*takes, *takes])):
        assert editing.takes_made(job, shown) == (gr.skip(), gr.skip())
    left, line = editing.takes_made("done", takes)
    assert left == [] and "another one leaves them out" in line
