"""The page: its three steps, put together; which event calls which handler, and under which name."""

from __future__ import annotations

from typing import Any

import gradio as gr

from webui.handlers import Handlers, Limits
from webui.steps import EditStep, PlanStep, VideoStep
from webui.studio import Studio


def build(studio: Studio, limits: Limits | None = None) -> gr.Blocks:
    """The whole page over one engine."""
    handlers = Handlers(studio, limits or Limits())
    with gr.Blocks(title="AdaFlow", analytics_enabled=False, delete_cache=(3600, 86400)) as blocks:
        gr.HTML(
            "<h1>AdaFlow</h1><p>Edit a video with a sentence. See which frames and tokens the edit will use "
            "before it runs.</p>",
            elem_classes="af-title",
        )
        video = VideoStep(handlers)
        plan = PlanStep(studio.profile())
        edit = EditStep(studio)
        _connect(blocks, handlers, video, plan, edit)
    return blocks


def _connect(blocks: gr.Blocks, handlers: Handlers, video: VideoStep, plan: PlanStep, edit: EditStep) -> None:
    free: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden"}
    quiet: dict[str, Any] = {
        **free,
        "api_visibility": "private",
    }  # these carry clicks, which programs do not make

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
    ]
    outputs = [plan.id, plan.job, plan.status, *plan.shown]
    token_inputs, token_outputs = (
        [plan.id, plan.number, plan.grid, plan.show],
        [plan.selected, plan.tokens, plan.sentence],
    )
    frame_inputs, frame_outputs = [plan.id, plan.frame], [plan.frame_picture, plan.frame_sentence]
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
    plan.stop.click(handlers.stop, plan.job, None, api_name="stop_preview", queue=False, show_progress="hidden")

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
    # An edit is always of the plan that is seen: it is made anew where the settings changed since.
    started = edit.start.click(handlers.begin, edit.prompt, None, **quiet).success(
        handlers.preview, [plan.id, *controls], [plan.id, edit.job, edit.progress, *plan.shown], **quiet
    )
    for event in [*fresh, started]:
        event.success(handlers.tokens, token_inputs, token_outputs, **quiet)
        event.success(handlers.frame, frame_inputs, frame_outputs, **quiet)

    gr.on(
        [edit.prompt.blur, edit.prompt.submit],
        handlers.check_prompt,
        edit.prompt,
        edit.words,
        api_name="check_prompt",
        **free,
    )
    settings = [plan.negative, plan.steps, plan.guidance, plan.injection, plan.injection_conv, plan.seed]
    queued = started.success(handlers.edit, [plan.id, edit.prompt, *settings], edit.job, api_name="edit", **free)
    queued.success(lambda job: job, edit.job, edit.remembered, **quiet)
    queued.success(handlers.check_prompt, edit.prompt, edit.words, **quiet)
    queued.success(handlers.watch, edit.job, edit.shown, api_name="watch", **free)
    edit.stop.click(handlers.stop, edit.job, None, api_name="stop", queue=False, show_progress="hidden")
    # A reload finds the browser's last job, running or done.
    blocks.load(lambda job: job, edit.remembered, edit.job, **quiet).then(handlers.watch, edit.job, edit.shown, **quiet)


def _index(event: gr.SelectData) -> int:
    return int(event.index)


def _number(event: gr.SelectData) -> int:
    return int(event.index) + 1
