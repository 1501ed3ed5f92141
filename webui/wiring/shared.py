"""What all files of this folder share: the page's steps and events, options of an event, calls that several follow."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any, NamedTuple

import gradio as gr

from webui.components.edit import EditStep
from webui.components.plan import PlanStep
from webui.components.result import ResultStep
from webui.components.video import VideoStep
from webui.events.common.outputs import (
    FrameOutputs,
    HistoryOutputs,
    OverOutputs,
    PreviewOutputs,
    TokenOutputs,
    WatchOutputs,
    ZoomOutputs,
    collect,
)
from webui.events.edit.begin import BeginEvents
from webui.events.edit.draft import DraftEvents
from webui.events.edit.edit import EditEvents
from webui.events.edit.place import PlaceEvents
from webui.events.edit.result import ResultEvents
from webui.events.edit.retake import RetakeEvents
from webui.events.edit.watch import WatchEvents
from webui.events.model import ModelEvents
from webui.events.plan import PlanEvents
from webui.events.project import ProjectEvents
from webui.events.ranges import RangeEvents
from webui.events.region import RegionEvents
from webui.events.session import SETTINGS, SETTINGS_KEY, SessionEvents
from webui.events.timeline import TimelineEvents
from webui.events.video import VideoEvents
from webui.messages import quietly

# A named event is part of the API. Private ones carry clicks, which programs do not make. Of one handler the named
# event is connected first: Gradio gives each event its handler's name unless it is taken.
PUBLIC: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden"}
PRIVATE: dict[str, Any] = {**PUBLIC, "api_visibility": "private"}
IMMEDIATE: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
EACH: dict[str, Any] = {**PRIVATE, "trigger_mode": "multiple"}  # one that runs does not keep the next from running
LATEST: dict[str, Any] = {**PUBLIC, "trigger_mode": "always_last"}  # of a moved slider only the last place counts
# Gradio leaves out a call that comes while the one before runs, also of what follows another event. Of these the last
# is made then, with the values of then; but with the data of the first click, so they are not for handlers of those.
PRIVATE_LATEST: dict[str, Any] = {**PRIVATE, "trigger_mode": "always_last"}
# What the browser remembers is said by functions of js/page.js.
# Settings are kept after what says which they are.
KEPT_SETTINGS = f"['{SETTINGS_KEY}', ...settings]"
_KEEP_SETTINGS = f"(...settings) => adaflow.keep({{ settings: {KEPT_SETTINGS} }})"
_KEEP_PLAN = f"(facts, ...settings) => adaflow.keep({{ plan: facts?.plan, planning: null, settings: {KEPT_SETTINGS} }})"
KEEP_OVER = "(over) => adaflow.keep({ over })"
HISTORY = "(_, job) => [adaflow.edits(), job]"
# The browser tells of a state's change before what came with it has reached the sliders.
SETTLED = "() => new Promise((done) => setTimeout(() => done([]), 60))"


class Call(NamedTuple):
    """What an event of Gradio takes first."""

    handler: Callable[..., Any]
    inputs: list[Any]
    outputs: list[Any]


class Steps(NamedTuple):
    video: VideoStep
    plan: PlanStep
    edit: EditStep
    result: ResultStep


class Events(NamedTuple):
    video: VideoEvents
    model: ModelEvents
    session: SessionEvents
    planning: PlanEvents
    timeline: TimelineEvents
    region: RegionEvents
    place: PlaceEvents
    drafts: DraftEvents
    ranges: RangeEvents
    editing: EditEvents
    beginning: BeginEvents
    watching: WatchEvents
    results: ResultEvents
    retakes: RetakeEvents
    projects: ProjectEvents


def when_plan_changes(steps: Steps) -> Callable[..., gr.events.Dependency]:
    """What connects a handler to the coming of another plan: called as an event is."""
    return steps.plan.plan_id.change(None, None, None, js=SETTLED, **PRIVATE).then


def plan_first(
    event: gr.events.Dependency,
    status: gr.HTML,  # where the progress of the planning is shown
    events: Events,
    steps: Steps,
) -> gr.events.Dependency:
    """Make the plan again if the settings have changed, so that what comes then follows what is shown.

    Its job is among those that the tab has begun, so that another video ends it, and with it what comes then. Asked for
    again, it takes the place of the one before.
    """
    begin, plan, planning = events.planning.begin_planning, steps.plan, gr.State("")
    asked = collect(parameters(begin), plan, steps.edit, steps.video, planning=planning)
    begun = event.success(begin, asked, planning, **PRIVATE)
    outputs = collect(PreviewOutputs._fields, plan, status=status)
    planned = begun.success(events.planning.follow_planning, [planning, plan.plan_id, plan.begun], outputs, **EACH)
    keep_plan(planned, steps)
    return planned


def keep_plan(event: gr.events.Dependency, steps: Steps) -> None:
    """The tab remembers the plan that was made, with the settings."""
    event.success(None, [steps.plan.facts, *kept_settings(steps)], None, js=_KEEP_PLAN, **PRIVATE)


def keep_settings(when: Callable[..., gr.events.Dependency], steps: Steps) -> None:
    """After an event the tab remembers the settings, as they are when all of it is shown."""
    settled = when(None, None, None, js=SETTLED, **PRIVATE_LATEST)
    settled.then(None, kept_settings(steps), None, js=_KEEP_SETTINGS, **PRIVATE_LATEST)


def kept_settings(steps: Steps) -> list[Any]:
    """The components of what the tab remembers of a plan and its edit."""
    return collect(SETTINGS, steps.plan, steps.edit, steps.edit.region)


def watch_call(watching: WatchEvents, steps: Steps, **shown: Any) -> Call:
    """`shown`: components that take the place of others, such as `progress`."""
    edit = steps.edit
    outputs = collect(WatchOutputs._fields, steps.result, edit, **shown)
    return Call(watching.watch, [edit.job_id, edit.watched], outputs)


def history_call(results: ResultEvents, steps: Steps) -> Call:
    edit = steps.edit
    return Call(results.history, [edit.session, edit.shown_job], collect(HistoryOutputs._fields, steps.result))


def watch_aside(when: Callable[..., gr.events.Dependency], events: Events, steps: Steps) -> None:
    """After an event by which the page may show something else than the edit that runs."""
    edit, outputs = steps.edit, collect(HistoryOutputs._fields, steps.result)
    ended = when(events.watching.watch_aside, edit.watched, edit.aside, **PRIVATE)
    ended.then(events.results.more_history, [edit.session, edit.shown_job], outputs, js=HISTORY, **PRIVATE)


def show_selection(when: Callable[..., Any], events: Events, steps: Steps) -> None:
    """When there is another plan: the tokens of the selected keyframe, and the selected frame."""
    planning, plan = events.planning, steps.plan
    # The plots again where they are zoomed, or show an edit.
    calls = tokens_call(planning, plan), frame_call(planning, plan), zoom_call(events.timeline, plan, steps.edit)
    for handler, inputs, outputs in calls:
        when(quietly(handler), inputs, outputs, **PRIVATE_LATEST)  # where a video was taken away there is no plan


def show_over(when: Callable[..., Any], region: RegionEvents, steps: Steps) -> None:
    """When there is another plan: what a project or a reload brought for it."""
    part = steps.edit.region
    known = collect(parameters(region.show_over), steps.plan, part)
    shown = when(region.show_over, known, collect(OverOutputs._fields, part), **EACH)
    shown.then(None, part.over_id, None, js=KEEP_OVER, **PRIVATE)


def tokens_call(planning: PlanEvents, plan: PlanStep) -> Call:
    return Call(planning.tokens, collect(parameters(planning.tokens), plan), collect(TokenOutputs._fields, plan))


def zoom_call(timeline: TimelineEvents, plan: PlanStep, edit: EditStep) -> Call:
    inputs = collect(parameters(timeline.zoom), plan, job_id=edit.shown_job)
    return Call(timeline.zoom, inputs, collect(ZoomOutputs._fields, plan))


def frame_call(planning: PlanEvents, plan: PlanStep) -> Call:
    return Call(planning.frame, [plan.plan_id, plan.frame], collect(FrameOutputs._fields, plan))


def preview_inputs(planning: PlanEvents, steps: Steps) -> list[Any]:
    return collect(parameters(planning.preview), steps.plan, steps.edit, steps.video)


def parameters(handler: Callable[..., Any]) -> list[str]:
    return list(signature(handler).parameters)


def next_version(version: float) -> float:
    return version + 1
