"""The page: which components it has, which event calls which handler, and the event's name in the API."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import gradio as gr

from webui.components.edit import EditStep
from webui.components.examples import load_clips
from webui.components.plan import PlanStep
from webui.components.video import VideoStep
from webui.events.edit import EditEvents
from webui.events.plan import SETTINGS, PlanEvents
from webui.messages import quietly
from webui.outputs import (
    BesideOutputs,
    CompareOutputs,
    ExampleOutputs,
    FrameOutputs,
    HistoryOutputs,
    ModelOutputs,
    PlaceOutputs,
    PreviewOutputs,
    TokenOutputs,
    VideoOutputs,
    WatchOutputs,
    collect,
)
from webui.studio import Studio

# A named event is part of the API. Private ones carry clicks, which programs do not make. Of one handler the named
# event is connected first: Gradio gives each event its handler's name unless it is taken.
_PUBLIC: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden"}
_PRIVATE: dict[str, Any] = {**_PUBLIC, "api_visibility": "private"}
_IMMEDIATE: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
_LATEST: dict[str, Any] = {**_PUBLIC, "trigger_mode": "always_last"}  # of a moved slider only the last place counts


_Call = tuple[Callable[..., Any], Any, list[Any]]  # handler, inputs, outputs
# What the browser remembers; the functions are in page.js.
_SESSION = "() => [adaflow.session()]"
_HISTORY = "(_, job) => [adaflow.edits(), job]"
_KEEP_VIDEO = "(video) => adaflow.keep({ video })"
_KEEP_PROMPTS = "(source_prompt, prompt) => adaflow.keep({ source_prompt, prompt })"
_KEEP_PLAN = "(facts, ...settings) => adaflow.keep({ plan: facts?.plan, settings })"
_KEEP_NO_PLAN = "(job) => adaflow.keep({ job, plan: null, settings: null })"
_KEEP_JOB = "(job, facts, ...settings) => adaflow.keep({ job, plan: facts?.plan, settings })"


def build(studio: Studio) -> gr.Blocks:
    """The whole page over one studio."""
    clips = load_clips()
    with gr.Blocks(title="AdaFlow", analytics_enabled=False) as blocks:
        gr.HTML(
            "<h1>AdaFlow</h1><p>Edit a video with a sentence. See which frames and tokens the edit will use "
            "before it runs.</p>",
            elem_classes="af-title",
        )
        video, plan, edit = VideoStep(studio.limits, clips), PlanStep(studio), EditStep(studio)
        planning, editing = PlanEvents(studio, clips), EditEvents(studio)
        _connect_video(planning, video, plan, edit)
        _connect_model(planning, plan, edit)
        _connect_plan_views(planning, plan)
        previewed = _connect_preview(planning, video, plan)
        _connect_place(planning, editing, video, plan, edit)
        edit_started = _connect_edit(planning, editing, video, plan, edit)
        watched = _connect_result(editing, edit, edit_started)
        _connect_history(editing, edit, watched)
        _connect_memory(blocks, planning, editing, video, plan, edit, [*previewed, edit_started])
    return blocks


def _connect_video(planning: PlanEvents, video: VideoStep, plan: PlanStep, edit: EditStep) -> None:
    names = ("prompt", "prompt_problems", "place", "progress", "result", "job_id")
    others = {name: getattr(edit, name) for name in names}
    cleared = collect(VideoOutputs._fields, plan, examples=video.examples, source_prompt=video.source_prompt, **others)
    jobs = [edit.job_id, plan.job_id]
    chosen = video.examples.select(_index, None, video.example_number, **_PRIVATE).then(
        planning.another_video, jobs, cleared, **_PRIVATE
    )
    outputs = collect(ExampleOutputs._fields, video, prompt=edit.prompt)
    chosen.then(planning.example, video.example_number, outputs, api_name="example", **_PUBLIC)
    uploaded = gr.on([video.video.upload, video.video.clear], planning.uploaded, jobs, cleared, **_PRIVATE)
    for event in (chosen, uploaded):
        event.then(None, edit.job_id, None, js=_KEEP_NO_PLAN, **_PRIVATE)
    video.video.change(planning.describe, video.video, video.line, api_name="describe", **_PUBLIC).success(
        quietly(planning.playable), video.video, video.playable, api_name="playable", **_PUBLIC
    )


def _connect_model(planning: PlanEvents, plan: PlanStep, edit: EditStep) -> None:
    outputs = collect(ModelOutputs._fields, plan, vocabulary=edit.vocabulary, vocabulary_words=edit.vocabulary_words)
    plan.model.input(
        planning.choose_model, [plan.model, plan.model_before], outputs, api_name="choose_model", **_PUBLIC
    )


def _connect_preview(planning: PlanEvents, video: VideoStep, plan: PlanStep) -> list[gr.events.Dependency]:
    inputs, outputs = _preview_inputs(planning, video, plan), collect(PreviewOutputs._fields, plan)
    previewed = plan.preview.click(planning.preview, inputs, outputs, api_name="preview", **_PUBLIC)
    replanned = gr.on(
        [plan.prune.release, plan.keyframes.release, plan.scales.input],
        planning.replan,
        inputs,
        outputs,
        api_name="replan",
        **_LATEST,
    )
    for event in (previewed, replanned):
        _show_selection(event, planning, plan)
    plan.stop.click(planning.stop_preview, plan.job_id, plan.status, api_name="stop_preview", **_IMMEDIATE)
    return [previewed, replanned]


def _connect_plan_views(planning: PlanEvents, plan: PlanStep) -> None:
    """The keyframe under Tokens and the frame under Timeline, by their sliders and by clicks."""
    tokens, frame = _tokens_call(planning, plan), _frame_call(planning, plan)
    gr.on([plan.number.release, plan.grid.input, plan.show.input], *tokens, api_name="tokens", **_LATEST)
    plan.frame.release(*frame, api_name="frame", **_LATEST)
    plan.gallery.select(_number, None, plan.number, **_PRIVATE).then(*tokens, **_PRIVATE)
    for plot in (plan.timeline, plan.time_slice):
        plot.select(planning.find_clicked_frame, plan.plan_id, plan.frame, **_PRIVATE).then(*frame, **_PRIVATE)


def _plan_first(
    button: gr.Button,
    shown: dict[str, Any],  # what shows the planning and its progress: `job_id` and `status`
    planning: PlanEvents,
    editing: EditEvents,
    video: VideoStep,
    plan: PlanStep,
    edit: EditStep,
) -> gr.events.Dependency:
    """A click makes the plan again if the settings have changed, so that what comes then follows what is shown."""
    inputs, outputs = _preview_inputs(planning, video, plan), collect(PreviewOutputs._fields, plan, **shown)
    planned = button.click(editing.check_not_empty, edit.prompt, None, **_PRIVATE).success(
        planning.preview, inputs, outputs, **_PRIVATE
    )
    _show_selection(planned, planning, plan)
    return planned


def _connect_place(planning: PlanEvents, editing: EditEvents, video: VideoStep, plan: PlanStep, edit: EditStep) -> None:
    """The button that shows where the prompt changes the video."""
    shown = {"job_id": edit.place_job_id, "status": edit.place_progress}
    planned = _plan_first(edit.show_place, shown, planning, editing, video, plan, edit)
    inputs = collect(_parameters(editing.place), plan, prompt=edit.prompt)
    planned.success(editing.place, inputs, collect(PlaceOutputs._fields, edit), api_name="place", **_PUBLIC)


def _connect_edit(
    planning: PlanEvents, editing: EditEvents, video: VideoStep, plan: PlanStep, edit: EditStep
) -> gr.events.Dependency:
    """The button Edit."""
    shown = {"job_id": edit.job_id, "status": edit.progress}
    planned = _plan_first(edit.start, shown, planning, editing, video, plan, edit)
    inputs = collect(_parameters(editing.edit), plan, prompt=edit.prompt)
    started = planned.success(editing.edit, inputs, edit.job_id, api_name="edit", **_PUBLIC)
    check_prompt = editing.check_prompt, [edit.prompt, plan.model, plan.negative_prompt], edit.prompt_problems
    gr.on(
        [edit.prompt.blur, edit.prompt.submit, plan.negative_prompt.blur],
        *check_prompt,
        api_name="check_prompt",
        **_PUBLIC,
    )
    started.success(*check_prompt, **_PRIVATE)
    plan.structure_by_words.change(_if_not, plan.structure_by_words, plan.structure, **_PRIVATE)
    edit.stop.click(editing.stop, [edit.job_id, edit.place_job_id], edit.progress, api_name="stop", **_IMMEDIATE)
    return started


def _connect_result(
    editing: EditEvents, edit: EditStep, edit_started: gr.events.Dependency
) -> list[gr.events.Dependency]:
    watch = _watch_call(editing, edit)
    watched = edit_started.success(*watch, api_name="watch", **_PUBLIC)
    chosen = edit.shown.input(_same, edit.shown, edit.job_id, **_PRIVATE).then(*watch, **_PRIVATE)
    gr.on(
        [edit.compared_frame.release, edit.comparison.expand],
        editing.compare,
        [edit.job_id, edit.compared_frame, edit.beside],
        collect(CompareOutputs._fields, edit),
        api_name="compare",
        **_LATEST,
    )
    return [watched, chosen]


def _connect_history(editing: EditEvents, edit: EditStep, watched: list[gr.events.Dependency]) -> None:
    for event in watched:
        event.then(*_history_call(editing, edit), js=_HISTORY, **_PRIVATE)
    edit.beside.input(
        editing.show_beside,
        [edit.job_id, edit.beside, edit.compared_frame],
        collect(BesideOutputs._fields, edit),
        **_PRIVATE,
    )


def _connect_memory(
    blocks: gr.Blocks,
    planning: PlanEvents,
    editing: EditEvents,
    video: VideoStep,
    plan: PlanStep,
    edit: EditStep,
    keeping: list[gr.events.Dependency],  # previews, and the start of an edit
) -> None:
    """The browser's tab remembers what it shows, and the browser its edits: a reload loses nothing."""
    settings = collect(SETTINGS, plan)
    *previews, started = keeping
    for event in previews:
        event.success(None, [plan.facts, *settings], None, js=_KEEP_PLAN, **_PRIVATE)
    started.success(None, [edit.job_id, plan.facts, *settings], None, js=_KEEP_JOB, **_PRIVATE)
    gr.on(
        [video.source_prompt.change, edit.prompt.change],
        None,
        [video.source_prompt, edit.prompt],
        None,
        js=_KEEP_PROMPTS,
        **_PRIVATE,
    )
    video.video.change(quietly(planning.keep_video), video.video, video.video_id, **_PRIVATE).then(
        None, video.video_id, None, js=_KEEP_VIDEO, **_PRIVATE
    )
    restored = [video.video, video.source_prompt, edit.prompt, edit.job_id, plan.plan_id, *settings]
    loaded = blocks.load(planning.restore, edit.session, restored, js=_SESSION, **_PRIVATE)
    loaded.then(*_watch_call(editing, edit), **_PRIVATE).then(*_history_call(editing, edit), js=_HISTORY, **_PRIVATE)
    shown = loaded.then(planning.restore_plan, plan.plan_id, collect(PreviewOutputs._fields, plan), **_PRIVATE)
    _show_selection(shown, planning, plan)


def _watch_call(editing: EditEvents, edit: EditStep) -> _Call:
    return editing.watch, edit.job_id, collect(WatchOutputs._fields, edit)


def _history_call(editing: EditEvents, edit: EditStep) -> _Call:
    return editing.history, [edit.session, edit.job_id], collect(HistoryOutputs._fields, edit)


def _show_selection(event: gr.events.Dependency, planning: PlanEvents, plan: PlanStep) -> None:
    """After a plan was made: show the tokens of the selected keyframe, and the selected frame."""
    for handler, inputs, outputs in (_tokens_call(planning, plan), _frame_call(planning, plan)):
        # Before the first preview a moved slider comes here without a plan.
        event.success(quietly(handler), inputs, outputs, **_PRIVATE)


def _tokens_call(planning: PlanEvents, plan: PlanStep) -> _Call:
    return planning.tokens, collect(_parameters(planning.tokens), plan), collect(TokenOutputs._fields, plan)


def _frame_call(planning: PlanEvents, plan: PlanStep) -> _Call:
    return planning.frame, [plan.plan_id, plan.frame], collect(FrameOutputs._fields, plan)


def _preview_inputs(planning: PlanEvents, video: VideoStep, plan: PlanStep) -> list[Any]:
    names = _parameters(planning.preview)
    return collect(names, plan, video=video.video, source_prompt=video.source_prompt)


def _parameters(handler: Callable[..., Any]) -> list[str]:
    return list(signature(handler).parameters)


def _same(value: str) -> str:
    return value


def _if_not(automatic: bool) -> gr.Slider:
    return gr.Slider(interactive=not automatic)


def _index(event: gr.SelectData) -> int:
    return int(event.index)


def _number(event: gr.SelectData) -> int:
    return int(event.index) + 1
