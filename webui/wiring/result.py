"""The result: a finished edit, what stands beside it, its history, and a stretch of it made again."""

from __future__ import annotations

import gradio as gr

from webui.events.common.outputs import BesideOutputs, CompareOutputs, collect
from webui.messages import quietly
from webui.wiring.shared import (
    EACH,
    HISTORY,
    IMMEDIATE,
    LATEST,
    PRIVATE,
    PUBLIC,
    Events,
    Steps,
    history_call,
    parameters,
    watch_aside,
    watch_call,
    zoom_call,
)

# The second that the edit's video shows.
_SHOWN_SECOND = "(job) => [job, document.querySelector('.af-edited video')?.currentTime ?? 0]"
_NO_PROMPT = "() => ['']"


def connect_retake(events: Events, steps: Steps) -> gr.events.Dependency:
    retakes, edit, result = events.retakes, steps.edit, steps.result
    inputs = collect(parameters(retakes.retake), result, edit, job_id=edit.shown_job)
    started = result.retake.click(retakes.retake, inputs, edit.job_id, api_name="retake", **PUBLIC)
    started.success(str, edit.job_id, result.retake_job_id, **PRIVATE)
    # What stops an edit, here too: the buttons of step 3 may be a screen away.
    result.stop_retake.click(
        retakes.stop_retake,
        [result.retake_job_id, edit.job_id, edit.watched],
        result.retake_progress,
        api_visibility="private",
        **IMMEDIATE,
    )
    stretch = collect(parameters(retakes.stretch), result, job_id=edit.shown_job)
    gr.on(
        [result.first.release, result.end.release, result.first.input, result.end.input, result.retaking.expand],
        retakes.stretch,
        stretch,
        result.stretch_pictures,
        **PRIVATE | {"trigger_mode": "always_last"},
    )
    shown = [edit.shown_job, result.shown_second]
    for button, handler, slider in (
        (result.first_here, retakes.begin_here, result.first),
        (result.end_here, retakes.end_here, result.end),
    ):
        moved = button.click(handler, shown, slider, js=_SHOWN_SECOND, **PRIVATE)
        moved.then(retakes.stretch, stretch, result.stretch_pictures, **PRIVATE)
    return started


def connect_result(
    events: Events, steps: Steps, *, edit_started: gr.events.Dependency, retake_started: gr.events.Dependency
) -> None:
    results, edit, result = events.results, steps.edit, steps.result
    watch = watch_call(events.watching, steps)
    chosen = result.shown.input(events.watching.choose_shown, [result.shown, edit.watched], edit.job_id, **PRIVATE)
    result.shown.input(None, None, result.retake_prompt, js=_NO_PROMPT, **PRIVATE)
    # One that ran goes on aside, and its progress with it.
    begun_edit = edit_started.success(str, None, result.retake_progress, **EACH)
    begun_retake = retake_started.success(str, None, edit.progress, **EACH)
    edit_watched = begun_edit.then(*watch, api_name="watch", **PUBLIC | {"trigger_mode": "multiple"})
    watch_retake = watch_call(events.watching, steps, progress=result.retake_progress)
    retake_watched = begun_retake.then(*watch_retake, **EACH)
    chosen_watched = chosen.then(*watch, **EACH)
    for event in (begun_edit, begun_retake, chosen):
        watch_aside(event.then, events, steps)
    stretch = collect(parameters(events.retakes.stretch), result, job_id=edit.shown_job)
    retake_watched.then(events.retakes.stretch, stretch, result.stretch_pictures, **PRIVATE)
    gr.on(
        [result.compared_frame.release, result.comparison.expand],
        results.compare,
        [edit.shown_job, result.compared_frame, result.beside],
        collect(CompareOutputs._fields, result),
        api_name="compare",
        **LATEST,
    )
    handler, inputs, outputs = zoom_call(events.timeline, steps.plan, edit)
    for event in (edit_watched, retake_watched, chosen_watched):
        event.then(*history_call(results, steps), js=HISTORY, **PRIVATE)
        event.then(quietly(handler), inputs, outputs, **PRIVATE)  # now with the residual of the edit
    result.beside.input(
        results.show_beside,
        [edit.shown_job, result.beside, result.compared_frame],
        collect(BesideOutputs._fields, result),
        **PRIVATE,
    )
