"""What a tab and a browser remember, and what comes back with a reload."""

from __future__ import annotations

from functools import partial

import gradio as gr

from webui.events.common.outputs import DraftOutputs, ModelShown, PlaceOutputs, PreviewOutputs, RestoredOutputs, collect
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
    *,
    previewed: list[gr.events.Dependency],
    edit_started: gr.events.Dependency,
    retake_started: gr.events.Dependency,
) -> None:
    """The browser's tab remembers what it shows, and the browser its edits.

    A reload loses nothing that is done or runs, while the server keeps it; the search for a region begins anew.
    """
    for event in (*previewed, edit_started):
        keep_plan(event, steps)
    for event in (edit_started, retake_started):
        event.success(None, [steps.edit.job_id, steps.plan.facts, *kept_settings(steps)], None, js=_KEEP_JOB, **PRIVATE)
    _keep(steps)
    _restore(blocks, events, steps)


def _keep(steps: Steps) -> None:
    """What is made, chosen and typed is remembered as it comes."""
    video, plan, edit = steps.video, steps.plan, steps.edit
    settings = kept_settings(steps)
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
    planning, watching, video, plan, edit = events.planning, events.watching, steps.video, steps.plan, steps.edit
    history, watch = history_call(events.results, steps), watch_call(watching, steps)
    part = edit.region
    restored = [
        *collect(RestoredOutputs._fields, video, edit, plan, part),
        *collect(ModelShown._fields, plan, edit, video),
        *kept_settings(steps),
    ]
    had = [edit.session, video.expected, plan.begun]
    loaded = blocks.load(events.session.restore, had, restored, js=_SESSION, **PRIVATE)
    # Now, since the edit may run for long; and again when it has ended.
    loaded.then(*history, js=HISTORY, **PRIVATE)
    again = loaded.then(watching.show_again, [edit.shown_job, edit.job_id], watch.outputs, **PRIVATE)
    again.then(*watch, **EACH).then(*history, js=HISTORY, **PRIVATE)
    aside = [edit.session, edit.job_id, edit.watched]
    watch_aside(loaded.then(watching.go_on_aside, aside, None, js=_ASIDE, **PRIVATE).then, events, steps)
    shown = loaded.then(planning.restore_plan, plan.plan_id, collect(PreviewOutputs._fields, plan), **PRIVATE)
    shown.then(next_version, edit.prompts_version, edit.prompts_version, **PRIVATE)
    shown.then(events.region.keyframes, plan.plan_id, part.keyframe, **PRIVATE)
    for handler, kind in ((events.drafts.show_drafts, DraftOutputs), (events.place.show_place, PlaceOutputs)):
        shown.then(handler, collect(parameters(handler), plan, edit), collect(kind._fields, edit), **PRIVATE)
    previewing = [plan.plan_id, plan.begun], collect(PreviewOutputs._fields, plan)
    planned = shown.then(planning.go_on_planning, *previewing, **PRIVATE)
    keep_plan(planned, steps)
    # An edit that came after the planning was not there before.
    begun = planned.success(watching.watch_begun, watch.inputs, watch.outputs, **EACH)
    begun.success(*history, js=HISTORY, **PRIVATE)
    for event in (shown, planned):
        add_rows(event.success, events.ranges, steps)
    show_over(shown.then, events.region, steps)
    show_selection(shown.then, events, steps)
