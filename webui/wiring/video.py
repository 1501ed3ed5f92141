"""Step 1: an example, an upload, a project that is opened."""

from __future__ import annotations

from typing import Any

import gradio as gr

from webui.messages import quietly
from webui.outputs import ExampleOutputs, ProjectOutputs, VideoOutputs, collect
from webui.settings import ALL
from webui.wiring.shared import PRIVATE, PUBLIC, Events, Steps, next_version

# What the browser remembers is said by functions of page.js.
_KEEP_NO_PLAN = "(job) => adaflow.keep({ job, plan: null, settings: null })"


def connect_video(events: Events, steps: Steps) -> None:
    planning, video, edit = events.planning, steps.video, steps.edit
    cleared, jobs = _clearing(steps)
    chosen = video.examples.select(_index, None, video.example_number, **PRIVATE).then(
        planning.another_video, jobs, cleared, **PRIVATE
    )
    outputs = collect(ExampleOutputs._fields, video, edit)
    chosen.then(planning.example, video.example_number, outputs, api_name="example", **PUBLIC)
    uploaded = gr.on([video.video.upload, video.video.clear], planning.uploaded, jobs, cleared, **PRIVATE)
    for event in (chosen, uploaded):
        event.then(None, edit.job_id, None, js=_KEEP_NO_PLAN, **PRIVATE)
    video.video.change(planning.describe, video.video, video.line, api_name="describe", **PUBLIC).success(
        quietly(planning.playable), video.video, video.playable, api_name="playable", **PUBLIC
    )


def connect_project(events: Events, steps: Steps) -> None:
    video, plan, edit = steps.video, steps.plan, steps.edit
    outputs = collect((*ProjectOutputs._fields, *ALL), video, plan, edit, edit.region)
    cleared, jobs = _clearing(steps)
    opened = video.open_project.upload(
        events.film.open_project, [video.open_project, video.video], outputs, api_name="open_project", **PUBLIC
    )
    opened.success(events.planning.another_plan, jobs, cleared, **PRIVATE).then(
        next_version, edit.prompts_version, edit.prompts_version, **PRIVATE
    )


def _index(event: gr.SelectData) -> int:
    return int(event.index)


def _clearing(steps: Steps) -> tuple[list[Any], list[Any]]:
    """What is taken away with a video, and the jobs that are about it."""
    edit, plan = steps.edit, steps.plan
    return collect(VideoOutputs._fields, edit, plan, steps.result, steps.video), [edit.job_id, plan.job_id]
