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
    film, edit, result = events.film, steps.edit, steps.result
    inputs = collect(parameters(film.retake), result, edit, job_id=edit.shown_job)
    started = result.retake.click(film.retake, inputs, edit.job_id, api_name="retake", **PUBLIC)
    started.success(str, edit.job_id, result.retake_job_id, **PRIVATE)
    # What stops an edit, here too: the buttons of step 3 may be a screen away.
    result.stop_retake.click(
        events.editing.stop_retake,
        [result.retake_job_id, edit.job_id, edit.watched],
        result.retake_progress,
        api_visibility="private",
        **IMMEDIATE,
    )
    stretch = collect(parameters(film.stretch), result, job_id=edit.shown_job)
    gr.on(
        [result.first.release, result.end.release, result.first.input, result.end.input, result.retaking.expand],
        film.stretch,
        stretch,
        result.stretch_pictures,
        **PRIVATE | {"trigger_mode": "always_last"},
    )
    shown = [edit.shown_job, result.shown_second]
    for button, handler, slider in (
        (result.first_here, film.begin_here, result.first),
        (result.end_here, film.end_here, result.end),
    ):
        moved = button.click(handler, shown, slider, js=_SHOWN_SECOND, **PRIVATE)
        moved.then(film.stretch, stretch, result.stretch_pictures, **PRIVATE)
    return started


def connect_result(events: Events, steps: Steps, started: list[gr.events.Dependency]) -> None:
    editing, edit, result = events.editing, steps.edit, steps.result
    watch = watch_call(editing, steps)
    chosen = result.shown.input(editing.choose_shown, [result.shown, edit.watched], edit.job_id, **PRIVATE)
    result.shown.input(None, None, result.retake_prompt, js=_NO_PROMPT, **PRIVATE)
    # One that ran goes on aside, and its progress with it.
    other_progress = result.retake_progress, edit.progress
    begun_edit, begun_retake = (
        event.success(str, None, progress, **EACH) for event, progress in zip(started, other_progress, strict=True)
    )
    watched = [
        begun_edit.then(*watch, api_name="watch", **PUBLIC | {"trigger_mode": "multiple"}),
        begun_retake.then(*watch_call(editing, steps, progress=result.retake_progress), **EACH),
        chosen.then(*watch, **EACH),
    ]
    for event in (begun_edit, begun_retake, chosen):
        watch_aside(event.then, editing, steps)
    stretch = collect(parameters(events.film.stretch), result, job_id=edit.shown_job)
    watched[1].then(events.film.stretch, stretch, result.stretch_pictures, **PRIVATE)
    gr.on(
        [result.compared_frame.release, result.comparison.expand],
        editing.compare,
        [edit.shown_job, result.compared_frame, result.beside],
        collect(CompareOutputs._fields, result),
        api_name="compare",
        **LATEST,
    )
    handler, inputs, outputs = zoom_call(events.timeline, steps.plan, edit)
    for event in watched:
        event.then(*history_call(editing, steps), js=HISTORY, **PRIVATE)
        event.then(quietly(handler), inputs, outputs, **PRIVATE)  # now with the residual of the edit
    result.beside.input(
        editing.show_beside,
        [edit.shown_job, result.beside, result.compared_frame],
        collect(BesideOutputs._fields, result),
        **PRIVATE,
    )
