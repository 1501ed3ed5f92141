"""Step 2: the model and its settings, the preview, what is looked at in a plan, keyframes by hand."""

from __future__ import annotations

from functools import partial

import gradio as gr

from webui.components.edit import EditStep
from webui.components.plan import PlanStep
from webui.events.common.outputs import MatchOutputs, ModelOutputs, ModelShown, PreviewOutputs, ZoomOutputs, collect
from webui.events.timeline import TimelineEvents
from webui.messages import quietly
from webui.settings import ALL, AUTOMATIC, EDIT, FORECAST, PLAN
from webui.wiring.shared import (
    EACH,
    IMMEDIATE,
    LATEST,
    PRIVATE,
    PRIVATE_LATEST,
    PUBLIC,
    Call,
    Events,
    Steps,
    frame_call,
    keep_settings,
    parameters,
    preview_inputs,
    show_selection,
    tokens_call,
    when_plan_changes,
    zoom_call,
)

# A file that was written for a click is fetched at once.
_SAVE_PLAN = (
    "() => setTimeout(() => document.querySelector('.af-plan-file a, a.af-plan-file, .af-plan-file')?.click(), 300)"
)
_FOLLOWED = "prune", "keyframes", "scales"  # the plan follows these by itself
_NOT_BY_HAND = "() => ['']"


def connect_settings(events: Events, steps: Steps) -> None:
    """The model with its own settings, and the buttons that bring these back."""
    plan, edit = steps.plan, steps.edit
    outputs = collect((*ModelOutputs._fields, *ModelShown._fields, *ALL), plan, edit, steps.video)
    choose = events.model.choose_model, [plan.model, plan.model_before, plan.begun], outputs
    chosen = plan.model.input(*choose, api_name="choose_model", **PUBLIC | {"trigger_mode": "multiple"})
    larger = steps.video.larger.click(events.model.larger_model, None, plan.model, **PRIVATE)
    chosen_larger = larger.then(*choose, **EACH)
    for event in (chosen, chosen_larger):
        keep_settings(event.then, steps)
    own = plan.reset.click(events.model.own_settings, plan.model, collect(PLAN, plan), **PRIVATE)
    edit.reset.click(events.editing.own_settings, plan.model, collect(EDIT, edit), **PRIVATE)
    # Where others are set than those of what is shown, the page says so.
    known, others = {**plan.settings, **edit.settings}, (steps.video.source_prompt, plan.model, plan.side, plan.frames)
    asked = [known[name] for name in (*PLAN, *FORECAST) if name not in _FOLLOWED]
    check = events.planning.check_shown, preview_inputs(events.planning, steps), plan.stale
    gr.on([component.change for component in (*others, *asked)], *check, **PRIVATE_LATEST)
    # Two models may have the same settings of their own: then nothing of these changes with the model.
    for when in (own.then, chosen.then, chosen_larger.then, when_plan_changes(steps)):
        when(*check, **PRIVATE_LATEST)


def connect_preview(events: Events, steps: Steps) -> list[gr.events.Dependency]:
    planning, plan = events.planning, steps.plan
    inputs, outputs = preview_inputs(planning, steps), collect(PreviewOutputs._fields, plan)
    previewed = plan.preview.click(planning.preview, inputs, outputs, api_name="preview", **LATEST)
    replanned = [plan.settings["scales"].input(planning.replan, inputs, outputs, api_name="replan", **LATEST)]
    # What is set elsewhere in the place of a slider's value gives way when the slider is moved.
    for name, instead, nothing in (("keyframes", "keyframes_at", "''"), ("prune", "kv_frames", AUTOMATIC)):
        moved = plan.settings[name].release(None, None, plan.settings[instead], js=f"() => [{nothing}]", **PRIVATE)
        replanned.append(moved.then(planning.replan, inputs, outputs, **PRIVATE_LATEST))
    show_selection(when_plan_changes(steps), events, steps)
    plan.stop.click(planning.stop_preview, plan.begun, plan.status, api_name="stop_preview", **IMMEDIATE)
    return [previewed, *replanned]


def connect_plan_views(events: Events, plan: PlanStep, edit: EditStep) -> None:
    """The keyframe under Tokens and the frame under Timeline, by their sliders and by clicks."""
    planning, timeline = events.planning, events.timeline
    tokens, frame = tokens_call(planning, plan), frame_call(planning, plan)
    gr.on([plan.number.release, plan.grid.input, plan.show.input], *tokens, api_name="tokens", **LATEST)
    no_matches = Call(_no_matches, [], [plan.matches, plan.match_sentence])
    moved = plan.frame.release(*frame, api_name="frame", **LATEST).then(*no_matches, **PRIVATE_LATEST)
    inputs = collect(parameters(timeline.keep_in_view), plan, job_id=edit.shown_job)
    moved.then(quietly(timeline.keep_in_view), inputs, collect(ZoomOutputs._fields, plan), **PRIVATE_LATEST)
    opened = plan.gallery.select(_number, None, plan.number, **EACH).then(*tokens, **PRIVATE_LATEST)
    opened.then(_open_tokens, None, plan.tabs, **PRIVATE)
    for plot in (plan.timeline, plan.time_slice):
        plot.select(timeline.find_clicked_frame, [plan.plan_id, plan.window], plan.frame, **EACH).then(
            *frame, **PRIVATE_LATEST
        ).then(*no_matches, **PRIVATE_LATEST)


def connect_point(timeline: TimelineEvents, plan: PlanStep, edit: EditStep) -> None:
    """A click on the frame, zoom, the slice's column, and the plan's files."""
    outputs = collect(MatchOutputs._fields, plan)
    point = plan.frame_picture.select(_point, None, [plan.x, plan.y], **PRIVATE)
    inputs = [plan.plan_id, plan.frame, plan.x, plan.y]
    point.then(timeline.matches, inputs, outputs, api_name="matches", **PUBLIC)
    column = [plan.plan_id, plan.column, plan.window]
    plan.column.release(timeline.column, column, plan.time_slice, api_name="column", **LATEST)
    handler, inputs, outputs = zoom_call(timeline, plan, edit)
    plan.zoom.release(handler, inputs, outputs, api_name="zoom", **LATEST)
    for kind, button in plan.save.items():
        asked = button.click(partial(str, kind), None, plan.file_kind, **PRIVATE)
        api = {"api_name": "plan_file", **PUBLIC} if kind == "json" else PRIVATE
        written = asked.then(timeline.plan_file, [plan.plan_id, plan.file_kind], plan.plan_file, **api)
        written.success(None, None, None, js=_SAVE_PLAN, **PRIVATE)


def connect_hand(events: Events, steps: Steps) -> list[gr.events.Dependency]:
    """Keyframes that are set by hand; the plan follows."""
    planning, plan = events.planning, steps.plan
    inputs, outputs = preview_inputs(planning, steps), collect(PreviewOutputs._fields, plan)
    keyframes_at, done = plan.settings["keyframes_at"], []
    for action, button in plan.hand.items():
        asked = [plan.plan_id, plan.frame, gr.State(action), keyframes_at]
        changed = button.click(events.timeline.by_hand, asked, keyframes_at, **PRIVATE_LATEST)
        done.append(changed.success(planning.replan, inputs, outputs, **PRIVATE_LATEST))
    # They are counted in the range of frames, so those of another range are other frames.
    plan.frames.input(None, None, keyframes_at, js=_NOT_BY_HAND, **PRIVATE)
    return done


def _no_matches() -> tuple[gr.Gallery, str]:
    """Of another frame: those of the one before are no longer shown."""
    return gr.Gallery(visible=False), ""


def _open_tokens() -> gr.Tabs:
    return gr.Tabs(selected="tokens")


def _point(event: gr.SelectData) -> tuple[int, int]:
    return int(event.index[0]), int(event.index[1])


def _number(event: gr.SelectData) -> int:
    return int(event.index) + 1
