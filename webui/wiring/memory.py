"""What a tab and a browser remember, and what comes back with a reload."""

from __future__ import annotations

from functools import partial

import gradio as gr

from webui.events.common.outputs import DraftOutputs, ModelShown, PlaceOutputs, PreviewOutputs, RestoredOutputs, collect
from webui.events.video import VideoEvents
from webui.wiring.rows import add_rows
from webui.wiring.shared import (
    EACH,
    HISTORY,
    KEPT_SETTINGS,
    PRIVATE,
    Events,
    Steps,
    history_call,
    keep_plan,
    keep_settings,
    kept_settings,
    next_version,
    parameters,
    show_over,
    show_selection,
    watch_aside,
    watch_call,
)

# What the browser remembers; the functions are in js/page.js.
_SESSION = "() => [adaflow.session()]"
_ASIDE = "(_, job, watched) => [adaflow.edits(), job, watched]"
_KEEP_PROMPTS = "(source_prompt, prompt) => adaflow.keep({ source_prompt, prompt })"
_KEEP_BEGUN = "(job) => adaflow.keep({ job })"
_KEEP_SHOWN = "(shown) => adaflow.keep({ shown })"
_KEEP_DRAFTS = "(drafted) => adaflow.keep({ drafted })"
_KEEP_PLACE = "(placed) => adaflow.keep({ placed })"
_KEEP_RUNNING = f"(progress, ...settings) => adaflow.keepRunning(progress, {KEPT_SETTINGS})"
_KEEP_JOB = f"(job, facts, ...settings) => adaflow.keep({{ job, plan: facts?.plan, settings: {KEPT_SETTINGS} }})"


def connect_memory(
    blocks: gr.Blocks,
    events: Events,
    steps: Steps,
    keeping: list[gr.events.Dependency],  # previews, and at last the starts of an edit and of a retake
) -> None:
    """The browser's tab remembers what it shows, and the browser its edits.

    A reload loses nothing that is done or runs, while the server keeps it; the search for a region begins anew.
    """
    _keep(events.video, steps, keeping)
    _restore(blocks, events, steps)


def _keep(events: VideoEvents, steps: Steps, keeping: list[gr.events.Dependency]) -> None:
    """What is made, chosen and typed is remembered as it comes."""
    video, plan, edit = steps.video, steps.plan, steps.edit
    settings = kept_settings(steps)
    for event in keeping[:-1]:
        keep_plan(event, steps)
    for event in keeping[-2:]:
        event.success(None, [edit.job_id, plan.facts, *settings], None, js=_KEEP_JOB, **PRIVATE)
    gr.on(
        [video.source_prompt.change, edit.prompt.change],
        None,
        [video.source_prompt, edit.prompt],
        None,
        js=_KEEP_PROMPTS,
        **PRIVATE,
    )
    for progress in (plan.status, edit.progress, edit.draft_progress, edit.place_progress):
        progress.change(None, [progress, *settings], None, js=_KEEP_RUNNING, **PRIVATE)
    for job, keep in (
        (edit.shown_job, _KEEP_SHOWN),
        (edit.job_id, _KEEP_BEGUN),
        (edit.drafted, _KEEP_DRAFTS),
        (edit.placed, _KEEP_PLACE),
    ):
        job.change(None, job, None, js=keep, **PRIVATE)
    # But for the model, of which the settings come when it is loaded (`connect_settings`).
    keep_settings(partial(gr.on, [setting.change for setting in settings if setting is not plan.model]), steps)


def _restore(blocks: gr.Blocks, events: Events, steps: Steps) -> None:
    """After a reload."""
    planning, editing, video, plan, edit = events.planning, events.editing, steps.video, steps.plan, steps.edit
    part = edit.region
    restored = [
        *collect(RestoredOutputs._fields, video, edit, plan, part),
        *collect(ModelShown._fields, plan, edit, video),
        *kept_settings(steps),
    ]
    had = [edit.session, video.expected, plan.begun]
    loaded = blocks.load(events.session.restore, had, restored, js=_SESSION, **PRIVATE)
    # Now, since the edit may run for long; and again when it has ended.
    loaded.then(*history_call(editing, steps), js=HISTORY, **PRIVATE)
    watch = watch_call(editing, steps)
    again = loaded.then(editing.show_again, [edit.shown_job, edit.job_id], watch[2], **PRIVATE)
    again.then(*watch, **EACH).then(*history_call(editing, steps), js=HISTORY, **PRIVATE)
    aside = [edit.session, edit.job_id, edit.watched]
    watch_aside(loaded.then(editing.go_on_aside, aside, None, js=_ASIDE, **PRIVATE).then, editing, steps)
    shown = loaded.then(planning.restore_plan, plan.plan_id, collect(PreviewOutputs._fields, plan), **PRIVATE)
    shown.then(next_version, edit.prompts_version, edit.prompts_version, **PRIVATE)
    shown.then(events.region.keyframes, plan.plan_id, part.keyframe, **PRIVATE)
    for handler, kind in ((events.film.show_drafts, DraftOutputs), (editing.show_place, PlaceOutputs)):
        shown.then(handler, collect(parameters(handler), plan, edit), collect(kind._fields, edit), **PRIVATE)
    previewing = [plan.plan_id, plan.begun], collect(PreviewOutputs._fields, plan)
    planned = shown.then(planning.go_on_planning, *previewing, **PRIVATE)
    keep_plan(planned, steps)
    # An edit that came after the planning was not there before.
    begun = planned.success(editing.watch_begun, *watch[1:], **EACH)
    begun.success(*history_call(editing, steps), js=HISTORY, **PRIVATE)
    for event in (shown, planned):
        add_rows(event.success, events.film, steps)
    show_over(shown.then, events.region, steps)
    show_selection(shown.then, events, steps)
