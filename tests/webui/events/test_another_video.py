"""What is made belongs to its video: nothing of it is shown after another is chosen; a reload brings it back."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.film.draft import Draft
from adaflow_core.types import Place
from helpers.jobs import finish, until, wait_for
from helpers.plans import small_plan
from helpers.tabs import restored
from webui import views
from webui.events.common.follow import show_job, show_unless_left
from webui.events.common.outputs import PreviewOutputs, unchanged
from webui.events.edit.draft import DraftEvents
from webui.events.edit.edit import EditEvents
from webui.events.edit.place import PlaceEvents
from webui.events.edit.result import ResultEvents
from webui.events.edit.watch import WatchEvents
from webui.events.plan import PlanEvents
from webui.events.region import RegionEvents
from webui.events.session import RUNNING, SETTINGS, SETTINGS_KEY
from webui.events.video import VideoEvents
from webui.jobs.queue import Begun, Jobs, Watched
from webui.jobs.tasks import Drafts, FoundPlace, Request
from webui.kept import Opened, OverState
from webui.messages import refusal
from webui.page import build
from webui.settings import EDIT, FORECAST, PLAN, shown_values
from webui.studio import Studio
from webui.views import labels


def studio(tmp_path: Path, run: Any = None) -> Studio:
    return Studio("embedded", "cpu", tmp_path, runner=run or (lambda task, report, stop: small_plan()))


@pytest.mark.parametrize("kind", ["preview", "place", "draft"])
def test_what_is_made_of_the_video_before_ends_without_a_word(kind: str, drawn_clip: Path, tmp_path: Path) -> None:
    """And nothing follows it: the event fails, though nobody is told."""

    def run(task: Any, report: Any, stop: Any) -> Any:
        return wait_for(threading.Event())(report, stop)

    here = studio(tmp_path, run)
    events, profile = VideoEvents(here, []), here.profile()
    plan_id = here.kept.store_plan(Request(str(drawn_clip), PlanConfig()), small_plan())
    editing = EditEvents(here)
    begun, running, progress = Begun(), None, f"{kind}_progress"  # type: Begun, Any, str
    if kind == "preview":
        settings = shown_values([*PLAN, *FORECAST], profile)
        running, progress = (
            PlanEvents(here).preview(None, str(drawn_clip), "a ball", "", 0, "", begun, *settings),
            "status",
        )
    elif kind == "place":
        running = PlaceEvents(editing).place(plan_id, "a cube", 0.5, 0.5, begun)
    else:
        settings = shown_values(EDIT, profile)
        running = DraftEvents(editing).draft(
            plan_id, "a cube", next(iter(labels.TRIED)), OverState(), "", begun, *settings
        )
    jobs: list[str] = []

    def leave() -> None:
        jobs.append(begun.plans[0] if kind == "preview" else getattr(begun, kind))
        cleared = events.another_video(begun, "", Watched())
        assert cleared.plan_id == cleared.status == ""
        assert cleared.progress == cleared.draft_progress == cleared.place_progress == cleared.drafted == ""
        assert cleared.keyframes_at == cleared.region_progress == "", "frames are counted in a video"
        assert (cleared.retake_prompt, cleared.retake_seed, cleared.painted_frame, cleared.box_left) == ("", 1, 0, 25)
        opened = events.another_plan(begun, "", Watched())
        assert opened.keyframes_at == opened.frames == gr.skip(), "those of the project"

    seen: list[Any] = []

    async def watch() -> None:
        async for outputs in running:
            seen.append(outputs)
            if len(seen) == 1:
                leave()

    with pytest.raises(gr.Error) as problem:
        asyncio.run(asyncio.wait_for(watch(), 30))
    assert problem.value.visible is False
    assert getattr(seen[-1], progress) == "", "its progress is taken away"
    assert finish(here.jobs, jobs[0]).state == "stopped"


def test_a_model_that_is_being_loaded_is_no_part_of_a_video(tmp_path: Path) -> None:
    here = studio(tmp_path)
    release = threading.Event()
    load = here.jobs.submit("load", wait_for(release))
    begun = Begun(load=load)
    assert VideoEvents(here, []).another_video(begun, "", Watched()).status != "" and begun.load == load
    release.set()
    assert finish(here.jobs, load).state == "done"


@pytest.mark.parametrize("when", ["before", "while it is shown", "never"])
def test_what_is_done_just_before_another_video_comes_is_not_shown(when: str) -> None:
    jobs = Jobs()
    job = jobs.submit("draft", lambda report, stop: "made")
    finish(jobs, job)
    if when == "before":
        jobs.leave(job)

    async def watch() -> list[str]:
        seen = []
        try:
            async for outputs in show_unless_left(jobs, job, "shown", "taken away"):
                seen.append(outputs)
                if when == "while it is shown":
                    jobs.leave(job)
        except gr.Error as problem:
            assert not problem.visible
            seen.append("failed")
        return seen

    expected = {"before": ["taken away", "failed"], "never": ["shown"]}
    assert asyncio.run(asyncio.wait_for(watch(), 30)) == expected.get(when, ["shown", "taken away", "failed"])


@pytest.mark.parametrize("kind", ["draft", "place"])
def test_what_is_asked_for_again_replaces_what_runs(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one takes nothing away that the second one shows, and is not made to its end."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    release, plan, begun = threading.Event(), small_plan(), Begun()

    def run(task: Any, report: Any, stop: Any) -> Any:
        wait_for(release)(report, stop)
        made: Any = drafts_of(plan) if kind == "draft" else place_of(plan)
        return replace(made, prompt=task.prompt)

    here = studio(tmp_path, run)
    mine, tried = here.kept.store_plan(Request("a.mp4", PlanConfig()), plan), next(iter(labels.TRIED))
    editing = EditEvents(here)
    settings = shown_values(EDIT, here.profile())

    def ask(prompt: str, plan_id: str = mine) -> AsyncIterator[Any]:
        if kind == "draft":
            return DraftEvents(editing).draft(plan_id, prompt, tried, OverState(), "", begun, *settings)
        return PlaceEvents(editing).place(plan_id, prompt, 0.5, 0.5, begun)

    async def visit() -> Any:
        first = ask("a cube")
        await anext(first)
        job = getattr(begun, kind)
        with pytest.raises(gr.Error, match="no plan to edit from"):
            await anext(ask("a star", "gone"))
        assert getattr(begun, kind) == job and not here.jobs.snapshot(job).stopping, "nothing takes its place"
        second = ask("a star")
        await anext(second)
        with pytest.raises(gr.Error) as problem:
            await anext(first)
        assert not problem.value.visible and finish(here.jobs, job).state == "stopped"
        release.set()
        return [outputs async for outputs in second][-1]

    shown = asyncio.run(asyncio.wait_for(visit(), 30))
    assert "a star" in getattr(shown, f"{kind}_sentence") and getattr(begun, kind) == ""


def test_what_is_planned_first_is_planned_as_it_was_asked_for_last(drawn_clip: Path, tmp_path: Path) -> None:
    """For drafts and a place: while one planning ran another was left out. The same plan is not made again."""
    release, begun = threading.Event(), Begun()
    here = studio(tmp_path, lambda task, report, stop: wait_for(release)(report, stop) and small_plan())
    planning, settings = PlanEvents(here), shown_values([*PLAN, *FORECAST], here.profile())

    def begin(before: str, plan_id: str, source_prompt: str) -> Any:
        return planning.begin_planning(before, plan_id, str(drawn_clip), source_prompt, "", 0, "", begun, *settings)

    async def visit() -> str:
        first = await begin("", "", "a ball")
        second = await begin(first, "", "a cube")
        assert here.jobs.snapshot(first).replaced and begun.plans == [first, second]
        with pytest.raises(gr.Error) as ended:
            assert [shown async for shown in planning.follow_planning(first, "", begun)] == []
        assert not ended.value.visible
        release.set()
        made = [shown async for shown in planning.follow_planning(second, "", begun)][-1].plan_id
        assert here.kept.find_plan(made).request.config.source_prompt == "a cube" and begun.plans == []
        assert await begin(second, made, "a cube") == ""
        return [shown async for shown in planning.follow_planning("", made, begun)][-1].plan_id

    assert here.kept.find_plan(asyncio.run(asyncio.wait_for(visit(), 30))) is not None


def test_the_progress_goes_where_what_was_made_cannot_be_shown() -> None:
    jobs = Jobs()
    job = jobs.submit("plan", lambda report, stop: "gone")
    finish(jobs, job)

    def make(snapshot: Any) -> Any:
        raise refusal("there is no plan yet")

    async def watch() -> list[Any]:
        seen = []
        with pytest.raises(gr.Error, match="no plan"):
            async for outputs in show_job(jobs, job, "preview", "status", unchanged(PreviewOutputs), make):
                seen.append(outputs.status)  # up to where it fails
        return seen

    assert asyncio.run(watch()) == [""]


def edit_that_waits(here: Studio, release: threading.Event, title: str = "ball.mp4, “a cube”") -> str:
    job = here.jobs.submit("edit", wait_for(release), title=title)
    until(lambda: here.jobs.snapshot(job).state == "running")
    return job


def test_an_edit_goes_on_aside_and_says_of_which_video_it_is(tmp_path: Path) -> None:
    here, release, watched = studio(tmp_path), threading.Event(), Watched()
    editing = EditEvents(here)
    job = edit_that_waits(here, release)
    seen: list[Any] = []
    lines: list[str] = []

    async def watch() -> None:
        async for outputs in WatchEvents(editing.studio).watch(job, watched):
            seen.append(outputs)
            if len(seen) == 1:
                cleared = VideoEvents(here, []).another_video(Begun(), "", watched)
                assert cleared.job_id == cleared.progress == cleared.retake_progress == ""
                assert cleared.result.visible is False

    async def watch_aside() -> None:
        async for line in WatchEvents(editing.studio).watch_aside(watched):
            lines.append(line)
            release.set()

    asyncio.run(asyncio.wait_for(watch(), 30))
    assert len(seen) == 2 and seen[-1].progress == "", "nothing of it comes to the page any more"
    assert here.jobs.snapshot(job).state == "running", "it was not stopped"
    asyncio.run(watch_aside())
    assert "ball.mp4, “a cube”" in lines[0] and "so far" in lines[0]
    assert "ball.mp4, “a cube”" in lines[-1] and f'href="#{labels.EDITS}"' in lines[-1]


def test_stop_ends_what_goes_on_aside_only_where_nothing_else_runs(tmp_path: Path) -> None:
    here, release = studio(tmp_path), threading.Event()
    editing = EditEvents(here)
    aside, mine = edit_that_waits(here, release), here.jobs.submit("plan", wait_for(release))
    watched, begun = Watched(aside=[aside]), Begun([mine])
    editing.stop("", begun, watched=watched)
    assert here.jobs.snapshot(mine).state == "stopped" and not here.jobs.snapshot(aside).stopping
    editing.stop("", begun, watched=watched)
    assert finish(here.jobs, aside).state == "stopped"
    assert "Nothing is running" in editing.stop("", begun, watched=watched)


def test_after_a_reload_the_edits_that_run_go_on_aside(tmp_path: Path) -> None:
    here, release, watched = studio(tmp_path), threading.Event(), Watched()
    done, running = here.jobs.submit("edit", lambda report, stop: 1), edit_that_waits(here, release)
    shown = here.jobs.submit("edit", wait_for(release))
    WatchEvents(here).go_on_aside(json.dumps([shown, running, done, "unknown"]), shown, watched)
    assert watched.aside == [running] and watched.here == []
    assert WatchEvents(here).choose_shown(running, watched) == running and watched.aside == []
    release.set()


def test_edits_can_be_reached_where_none_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = ResultEvents(studio(tmp_path))
    finished = SimpleNamespace(video="ball.mp4", prompt="a cube", parent="", after=[])
    monkeypatch.setattr(results.studio, "finished", lambda job: finished if job == "one" else None)
    monkeypatch.setattr(views, "history", lambda edits: "")
    monkeypatch.setattr(results, "show_beside", lambda *given: SimpleNamespace(_asdict=dict))
    hidden, reached = (
        results.history('["one"]', "one"),
        results.history('["one"]', ""),
    )
    assert hidden.history.visible is False and reached.history.visible is True
    assert reached.shown.constructor_args["value"] is None and reached.beside.visible is False
    more = results.more_history('["one"]', "")
    assert "value" not in more.shown.constructor_args and "value" not in more.beside.constructor_args


def drafts_of(plan: Any) -> Drafts:
    count = len(plan.layout.keyframes)
    draft = Draft(plan.layout.keyframes, plan.video.frames[:count], {})
    return Drafts(plan.video.digest, plan.config, plan.model, "a cube", (("edit", EditConfig(), draft),))


def place_of(plan: Any) -> FoundPlace:
    return FoundPlace(plan.video.digest, plan.config, plan.model, "a cube", Place(None, 1.0, False, "why"))


def ended(event: AsyncIterator[Any], release: threading.Event | None = None) -> Any:
    """The last outputs of an event; at the first ones `release` is set."""

    async def watch() -> Any:
        last: Any = None
        async for last in event:  # noqa: B007  # it is returned
            if release is not None:
                release.set()
        return last

    return asyncio.run(asyncio.wait_for(watch(), 30))


def last_shown(event: AsyncIterator[Any]) -> Any:
    """The last outputs but for progress of an event that fails."""

    async def watch() -> Any:
        last: Any = ()
        with pytest.raises(gr.Error):
            async for outputs in event:
                last = outputs if isinstance(outputs[1], gr.Column) else last
        return last

    return asyncio.run(asyncio.wait_for(watch(), 30))


@pytest.mark.parametrize("kind", RUNNING)
def test_what_runs_goes_on_after_a_reload(kind: str, drawn_clip: Path, tmp_path: Path) -> None:
    """And what was done meanwhile is shown."""
    here, release, plan = studio(tmp_path), threading.Event(), small_plan()
    planning, editing = PlanEvents(here), EditEvents(here)
    request = Request(str(drawn_clip), PlanConfig(prune=0.3))
    mine = here.kept.store_plan(request, plan)
    found = place_of(plan)

    def work(report: Any, stop: Any) -> Any:
        wait_for(release)(report, stop)
        return {"planning": mine, "drafting": drafts_of(plan), "placing": found}[kind]

    job = here.jobs.submit({"planning": "plan", "drafting": "draft", "placing": "place"}[kind], work)
    settings = [str(number) for number in range(len(SETTINGS))]
    session = {kind: job, "video": here.kept.keep_video(str(drawn_clip)), "settings": [SETTINGS_KEY, *settings]}
    session |= {} if kind == "planning" else {"plan": mine}
    begun = Begun()
    had, _, shown = restored(here, session, begun)
    assert (had.video, had.drafted, had.placed) == (str(drawn_clip), "", "")
    assert (begun.draft, begun.place) == tuple(job * (name == kind) for name in ("drafting", "placing"))
    assert begun.plans == [job] * (kind == "planning")
    if kind == "planning":
        assert had.plan_id == "" and list((shown | {"side": shown["side"].value}).values()) == settings
        assert ended(planning.go_on_planning(had.plan_id, begun), release).plan_id == mine
        assert restored(here, session)[0].plan_id == mine, "as when it was done while nobody looked"
    elif kind == "drafting":
        assert ended(DraftEvents(editing).show_drafts(had.plan_id, had.drafted, begun), release).drafted == job
        assert restored(here, session)[0].drafted == job
    else:
        assert ended(PlaceEvents(editing).show_place(had.plan_id, had.placed, begun), release).placed == job
        assert restored(here, session)[0].placed == job
    assert begun.of_video == (*begun.plans, "", "") and begun.plans == []


def test_settings_come_back_before_they_are_planned(drawn_clip: Path, tmp_path: Path) -> None:
    """As of a project that was opened; what is of a video goes with it."""
    here = studio(tmp_path)
    kept = dict.fromkeys(SETTINGS, "") | {"frames": "0:6", "side": "320x256", "takes": [{"frames": [1, 3]}], "seed": 7}
    kept_as = [SETTINGS_KEY, *kept.values()]
    session = {"video": here.kept.keep_video(str(drawn_clip)), "settings": kept_as, "prompt": "a blue ball"}
    had, _, settings = restored(here, session)
    assert had.video == str(drawn_clip)
    assert settings["frames"] == "0:6" and settings["takes"] == kept["takes"] and settings["side"].value == "320x256"
    _, _, settings = restored(here, session | {"video": "gone"})
    assert settings["frames"] == settings["takes"] == gr.skip() and settings["seed"] == 7
    for older in (list(kept.values()), ["another", *kept.values()]):  # as many, perhaps in another order
        assert all(value == gr.skip() for value in restored(here, session | {"settings": older})[2].values())


def test_what_a_project_holds_over_the_picture_comes_back_before_it_is_planned(tmp_path: Path) -> None:
    here = studio(tmp_path)
    region = RegionEvents(here)
    kept = region.keep_opened(OverState(file="of the video", opened=Opened(None, []), shown=False))
    assert kept.over.id == kept.over_id != ""
    had, *_ = restored(here, {"over": kept.over_id})
    assert (had.over, had.over_id) == (kept.over, kept.over_id)
    assert region.keep_opened(OverState()).over_id == "", "and not what was painted before"


def test_a_reload_says_nothing_of_what_was_stopped_before(tmp_path: Path) -> None:
    """What was made before that is there still."""
    here, begun = studio(tmp_path), Begun()
    mine, release = here.kept.store_plan(Request("ball.mp4", PlanConfig()), small_plan()), threading.Event()
    jobs = {name: here.jobs.submit(name, wait_for(release)) for name in ("draft", "place")}
    for job in jobs.values():
        here.jobs.stop(job)
        assert finish(here.jobs, job).state == "stopped"
    stopped = {"plan": mine, "drafting": jobs["draft"], "placing": jobs["place"]}
    had, *_ = restored(here, stopped, begun)
    editing = EditEvents(here)
    assert ended(DraftEvents(editing).show_drafts(mine, had.drafted, begun)).drafted == ""
    assert ended(PlaceEvents(editing).show_place(mine, had.placed, begun)).placed == ""
    had, *_ = restored(here, stopped | {"drafted": "a draft", "placed": "a place"})
    assert (had.drafted, had.placed) == ("a draft", "a place")


def test_drafts_and_a_place_are_of_their_plan_and_come_back_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    here = studio(tmp_path / "results")
    editing = EditEvents(here)
    region = RegionEvents(here)
    request, plan, other = Request("clips/my ball.mp4", PlanConfig()), small_plan(), small_plan(keyframes=2)
    mine, another = here.kept.store_plan(request, plan), here.kept.store_plan(request, other)
    found = place_of(plan)
    drafted = here.jobs.submit("draft", lambda report, stop: drafts_of(plan))
    placed = here.jobs.submit("place", lambda report, stop: found)
    finish(here.jobs, placed)

    shown, place = (
        ended(DraftEvents(editing).show_drafts(mine, drafted, Begun())),
        ended(PlaceEvents(editing).show_place(mine, placed, Begun())),
    )
    assert (
        shown.draft.visible and shown.drafted == drafted and len(shown.drafts) == 1 and "a cube" in shown.draft_sentence
    )
    assert f'href="#{labels.DRAFTS}"' in shown.draft_progress and f'href="#{labels.PLACE}"' in place.place_progress
    assert place.place.visible and place.placed == placed
    for made, none in ((DraftEvents(editing).show_drafts, "drafted"), (PlaceEvents(editing).show_place, "placed")):
        for plan_id, job in ((another, drafted if none == "drafted" else placed), (mine, "unknown"), ("", drafted)):
            assert getattr(ended(made(plan_id, job, Begun())), none) == "", "nothing of another plan"

    # What comes to nothing takes away nothing that was made before.
    failed = here.jobs.submit("draft", lambda report, stop: None / 0)
    for plan_id, shows in ((mine, True), (another, False)):
        begun = Begun(draft=failed, place=failed)
        assert last_shown(DraftEvents(editing).show_drafts(plan_id, drafted, begun)).count(drafted) == shows
        assert last_shown(PlaceEvents(editing).show_place(plan_id, placed, begun)).count(placed) == shows

    idle = Begun()
    assert (
        DraftEvents(editing).fit_drafts(mine, drafted, idle).drafted != ""
        and PlaceEvents(editing).fit_place(mine, placed, idle).placed != ""
    )
    for plan_id in (another, ""):
        gone, no_place = (
            DraftEvents(editing).fit_drafts(plan_id, drafted, idle),
            PlaceEvents(editing).fit_place(plan_id, placed, idle),
        )
        assert gone.draft.visible is False and gone.drafted == gone.draft_progress == ""
        assert no_place.place.visible is False and no_place.placed == no_place.place_progress == ""
    busy = Begun(draft="others")
    assert DraftEvents(editing).fit_drafts(another, drafted, busy).draft_progress != "", (
        "that of the ones that are being made"
    )

    keyframe = int(plan.segments.keyframes[0])
    file, taken_from = region.keyframe_file(mine, keyframe, labels.THE_DRAFT, drafted)
    assert (Path(str(file)).name, taken_from) == (f"my-ball-draft-{keyframe}.png", labels.THE_DRAFT)
    file, taken_from = region.keyframe_file(another, keyframe, labels.THE_DRAFT, drafted)
    assert (Path(str(file)).name, taken_from) == (f"my-ball-keyframe-{keyframe}.png", labels.THE_SOURCE)
    with pytest.raises(gr.Error, match="no draft of this plan"):
        region.check_draft(another, labels.THE_DRAFT, drafted)


def test_every_planning_is_known_to_what_ends_it(tmp_path: Path) -> None:
    """Also one that comes before an edit, drafts or a place; and a project ends it before its prompt comes."""
    blocks = build(studio(tmp_path))
    events: dict[str, list[Any]] = {}
    for event in blocks.fns.values():
        events.setdefault(str(event.name), []).append(event)
    begun = events["stop_preview"][0].inputs[0]
    made = {"preview": 1, "begin": 1, "show_planning": 1, "begin_planning": 3, "follow_planning": 3, "replan": 7}
    assert {name: len(events[name]) for name in made} == made
    planning = [event for name in (*made, "go_on_planning") for event in events[name]]
    ending = [events[name][0] for name in ("example", "another_plan", "uploaded", "trimmed", "open_project", "stop")]
    assert all(begun in event.inputs for event in (*planning, *ending, *events["choose_model"], *events["restore"]))
    plan = events["preview"][0].outputs[PreviewOutputs._fields.index("plan_id")]
    assert plan in events["open_project"][0].outputs

    history, result = (next(b for b in blocks.blocks.values() if b.elem_id == i) for i in (labels.EDITS, labels.RESULT))
    inside = history.parent
    while inside is not None:
        assert inside is not result, "it would be hidden with it"
        inside = inside.parent
