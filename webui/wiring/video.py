"""Step 1: an example, an upload, a project that is opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from webui.events.common.outputs import ModelShown, OverOutputs, ProjectOutputs, VideoOutputs, collect
from webui.messages import quietly
from webui.settings import ALL
from webui.wiring.shared import (
    EACH,
    HISTORY,
    KEEP_OVER,
    KEPT_SETTINGS,
    PRIVATE,
    PRIVATE_LATEST,
    PUBLIC,
    Events,
    Steps,
    history_call,
    kept_settings,
    next_version,
    watch_aside,
)

# What the browser remembers is said by functions of js/page.js.
_KEEP_VIDEO = "(video) => adaflow.keep({ video })"
_NO_PLAN = "job, plan: null, planning: null, drafted: null, drafting: null, placed: null, placing: null"
_KEEP_NO_PLAN = f"(job, ...settings) => adaflow.keep({{ {_NO_PLAN}, settings: {KEPT_SETTINGS} }})"
_HOLD = "(...known) => { adaflow.hold(true); return known; }"
_RELEASE = "() => { adaflow.hold(false); return []; }"
# As the handlers take them.
_JOBS = "begun", "region_job_id", "watched"


def connect_video(events: Events, steps: Steps) -> None:
    video = steps.video
    # Before all else that follows a change, which Gradio does one after another: to look at a large file takes long,
    # and a reload meanwhile would bring back the one before.
    kept = video.video.change(quietly(events.video.keep_video), video.video, video.video_id, **PRIVATE_LATEST)
    kept.then(None, video.video_id, None, js=_KEEP_VIDEO, **PRIVATE)
    cleared, jobs = _clearing(steps)
    known = [video.video, video.expected]
    chosen = video.examples.select(events.video.example, [video.expected, *jobs], cleared, js=_HOLD, **EACH)
    events_of_upload = [video.video.upload, video.video.clear]
    uploading = [*known, *jobs, video.source_prompt, steps.edit.prompt]
    uploaded = gr.on(events_of_upload, events.video.uploaded, uploading, cleared, js=_HOLD, **PRIVATE)
    # Of what the player's scissors make Gradio says no more than that there is another video. What looks whether it is
    # one has no outputs: they would be marked as failed after each other video.
    other = video.video.change(events.video.check_trimmed, known, None, **EACH)
    trimmed = other.success(events.video.trimmed, jobs, cleared, **EACH)
    for event in (chosen, uploaded):
        event.then(None, None, None, js=_RELEASE, **PRIVATE)
    for when in (chosen.then, uploaded.then, trimmed.success):
        when(None, [steps.edit.job_id, *kept_settings(steps)], None, js=_KEEP_NO_PLAN, **PRIVATE)
        _leave_edit(when, events, steps)
    # What is read of a large file takes long, and keeps nothing waiting that is about the next one.
    about, each = [video.video, video.described], PUBLIC | {"trigger_mode": "multiple"}
    video.video.change(events.video.describe, about, video.line, api_name="describe", **each)
    video.video.change(_no_copy, None, video.playable, **EACH).then(
        quietly(events.video.playable), about, video.playable, api_name="playable", **each
    )


def connect_project(events: Events, steps: Steps) -> None:
    video, plan, edit = steps.video, steps.plan, steps.edit
    outputs = collect((*ProjectOutputs._fields, *ModelShown._fields, *ALL), video, plan, edit, edit.region)
    cleared, jobs = _clearing(steps)
    inputs = [video.open_project, video.video, video.expected, *collect(("begun", "region_job_id"), *_parts(steps))]
    opened = video.open_project.upload(
        events.projects.open_project, inputs, outputs, api_name="open_project", **PUBLIC
    ).success(events.video.another_plan, jobs, cleared, **PRIVATE)
    opened.then(next_version, edit.prompts_version, edit.prompts_version, **PRIVATE)
    opened.then(None, [edit.job_id, *kept_settings(steps)], None, js=_KEEP_NO_PLAN, **PRIVATE)
    over = opened.then(
        events.region.keep_opened, edit.region.over, collect(OverOutputs._fields, edit.region), **PRIVATE
    )
    over.then(None, edit.region.over_id, None, js=KEEP_OVER, **PRIVATE)
    _leave_edit(opened.then, events, steps)


def _no_copy() -> gr.Video:
    return gr.Video(None, visible=False)


def _clearing(steps: Steps) -> tuple[list[Any], list[Any]]:
    """What is taken away with a video, and the jobs that are about it."""
    return collect(VideoOutputs._fields, *_parts(steps)), collect(_JOBS, *_parts(steps))


def _parts(steps: Steps) -> tuple[Any, ...]:
    return steps.edit, steps.edit.region, steps.plan, steps.result, steps.video


def _leave_edit(when: Callable[..., gr.events.Dependency], events: Events, steps: Steps) -> None:
    """After another video has come: the edit before is among the edits so far, and goes on there if it runs."""
    when(*history_call(events.results, steps), js=HISTORY, **PRIVATE)
    watch_aside(when, events, steps)
