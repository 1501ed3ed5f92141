"""The page: its three steps, put together; which event calls which handler, and under which name."""

from __future__ import annotations

from typing import Any

import gradio as gr

from webui.edit_events import EditEvents
from webui.plan_events import PlanEvents
from webui.steps import EditStep, PlanStep, VideoStep
from webui.studio import Studio


def build(studio: Studio) -> gr.Blocks:
    """The whole page over one studio."""
    planning, editing = PlanEvents(studio), EditEvents(studio)
    with gr.Blocks(title="AdaFlow", analytics_enabled=False) as blocks:
        gr.HTML(
            "<h1>AdaFlow</h1><p>Edit a video with a sentence. See which frames and tokens the edit will use "
            "before it runs.</p>",
            elem_classes="af-title",
        )
        video = VideoStep(planning)
        plan = PlanStep(studio)
        edit = EditStep(studio)
        controls = _connect_plan(planning, video, plan, edit)
        _connect_edit(blocks, planning, editing, controls, plan, edit)
    return blocks


_FREE: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden"}
_QUIET: dict[str, Any] = {**_FREE, "api_visibility": "private"}  # these carry clicks, which programs do not make


def _connect_plan(handlers: PlanEvents, video: VideoStep, plan: PlanStep, edit: EditStep) -> list[Any]:
    """Steps 1 and 2; returns the controls that a plan is made from."""
    free, quiet = _FREE, _QUIET
    picked = video.examples.select(_index, None, video.example_number, **quiet)
    shown = [video.video, video.source_prompt, edit.prompt]
    picked.then(handlers.example, video.example_number, shown, api_name="example", **free)
    video.video.change(handlers.describe, video.video, video.line, api_name="describe", **free)

    controls = [
        video.video,
        video.source_prompt,
        plan.prune,
        plan.keyframes,
        plan.scales,
        plan.method,
        plan.importance,
        plan.side,
        plan.frames,
        plan.steps,
        plan.injection,
        plan.model,
    ]
    outputs = [plan.id, plan.job, plan.status, *plan.shown]
    token_inputs, token_outputs = (
        [plan.id, plan.number, plan.grid, plan.show],
        [plan.selected, plan.tokens, plan.sentence],
    )
    frame_inputs, frame_outputs = [plan.id, plan.frame], [plan.frame_picture, plan.frame_sentence]
    plan.model.input(
        handlers.choose_model,
        [plan.model, plan.model_before],
        [plan.status, plan.model, plan.model_before, plan.prune, plan.steps, plan.guidance, plan.injection,
         plan.injection_conv, plan.side, edit.known, edit.known_words],
        api_name="choose_model",
        **free,
    )  # fmt: skip
    fresh = [
        plan.preview.click(handlers.preview, [plan.id, *controls], outputs, api_name="preview", **free),
        gr.on(
            [plan.prune.release, plan.keyframes.release, plan.scales.input],
            handlers.replan,
            [plan.id, *controls],
            outputs,
            api_name="replan",
            trigger_mode="always_last",
            **free,
        ),
    ]
    plan.stop.click(handlers.stop_preview, plan.job, None, api_name="stop_preview", queue=False, show_progress="hidden")

    gr.on(
        [plan.number.release, plan.grid.input, plan.show.input],
        handlers.tokens,
        token_inputs,
        token_outputs,
        api_name="tokens",
        trigger_mode="always_last",
        **free,
    )
    plan.frame.release(
        handlers.frame, frame_inputs, frame_outputs, api_name="frame", trigger_mode="always_last", **free
    )

    # What follows by itself.
    plan.gallery.select(_number, None, plan.number, **quiet).then(handlers.tokens, token_inputs, token_outputs, **quiet)
    for plot in (plan.timeline, plan.slice):
        plot.select(handlers.frame_clicked, plan.id, plan.frame, **quiet).then(
            handlers.frame, frame_inputs, frame_outputs, **quiet
        )
    for event in fresh:
        _show_details(event, handlers, plan)
    return controls


def _show_details(event: Any, handlers: PlanEvents, plan: PlanStep) -> None:
    """After a plan: the tokens of the selected keyframe, and the selected frame."""
    event.success(
        handlers.tokens,
        [plan.id, plan.number, plan.grid, plan.show],
        [plan.selected, plan.tokens, plan.sentence],
        **_QUIET,
    )
    event.success(handlers.frame, [plan.id, plan.frame], [plan.frame_picture, plan.frame_sentence], **_QUIET)


def _connect_edit(
    blocks: gr.Blocks, planning: PlanEvents, editing: EditEvents, controls: list[Any], plan: PlanStep, edit: EditStep
) -> None:
    free, quiet = _FREE, _QUIET
    # An edit is always of the plan that is seen: it is made anew where the settings changed since.
    started = edit.start.click(editing.begin, edit.prompt, None, **quiet).success(
        planning.preview, [plan.id, *controls], [plan.id, edit.job, edit.progress, *plan.shown], **quiet
    )
    _show_details(started, planning, plan)
    gr.on(
        [edit.prompt.blur, edit.prompt.submit],
        editing.check_prompt,
        [edit.prompt, plan.model],
        edit.words,
        api_name="check_prompt",
        **free,
    )
    settings = [plan.negative, plan.steps, plan.guidance, plan.injection, plan.injection_conv, plan.seed]
    queued = started.success(editing.edit, [plan.id, edit.prompt, *settings], edit.job, api_name="edit", **free)
    queued.success(lambda job: job, edit.job, edit.remembered, **quiet)
    queued.success(editing.check_prompt, [edit.prompt, plan.model], edit.words, **quiet)
    gr.on(
        [edit.compared_frame.release, edit.comparer.expand],
        editing.compare,
        [edit.job, edit.compared_frame],
        [edit.compared, edit.compared_line],
        api_name="compare",
        trigger_mode="always_last",
        **free,
    )
    queued.success(editing.watch, edit.job, edit.shown, api_name="watch", **free)
    edit.stop.click(editing.stop, edit.job, None, api_name="stop", queue=False, show_progress="hidden")
    # A reload finds the browser's last job, running or done.
    blocks.load(lambda job: job, edit.remembered, edit.job, **quiet).then(editing.watch, edit.job, edit.shown, **quiet)


def _index(event: gr.SelectData) -> int:
    return int(event.index)


def _number(event: gr.SelectData) -> int:
    return int(event.index) + 1
