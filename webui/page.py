"""The page: which components it has, which event calls which handler, and the event's name in the API."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any, NamedTuple

import gradio as gr

from webui import views
from webui.components.edit import EditStep
from webui.components.examples import load_clips
from webui.components.heading import head
from webui.components.plan import PlanStep
from webui.components.result import ResultStep
from webui.components.video import VideoStep
from webui.events.edit import EditEvents, Rows
from webui.events.film import FilmEvents
from webui.events.plan import SETTINGS, PlanEvents
from webui.events.region import RegionEvents
from webui.events.timeline import TimelineEvents
from webui.messages import quietly, refusal
from webui.outputs import (
    BesideOutputs,
    CompareOutputs,
    DraftOutputs,
    ExampleOutputs,
    FrameOutputs,
    HistoryOutputs,
    MatchOutputs,
    ModelOutputs,
    OverOutputs,
    PlaceOutputs,
    PreviewOutputs,
    ProjectOutputs,
    RowsOutputs,
    TokenOutputs,
    VideoOutputs,
    WatchOutputs,
    ZoomOutputs,
    collect,
)
from webui.settings import ALL, EDIT, PLAN
from webui.studio import Studio

# A named event is part of the API. Private ones carry clicks, which programs do not make. Of one handler the named
# event is connected first: Gradio gives each event its handler's name unless it is taken.
_PUBLIC: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden"}
_PRIVATE: dict[str, Any] = {**_PUBLIC, "api_visibility": "private"}
_IMMEDIATE: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
_LATEST: dict[str, Any] = {**_PUBLIC, "trigger_mode": "always_last"}  # of a moved slider only the last place counts

_HIDDEN: dict[str, Any] = {"show_progress": "hidden"}
_Call = tuple[Callable[..., Any], Any, list[Any]]  # handler, inputs, outputs
# What the browser remembers; the functions are in page.js.
_SESSION = "() => [adaflow.session()]"
_HISTORY = "(_, job) => [adaflow.edits(), job]"
_KEEP_VIDEO = "(video) => adaflow.keep({ video })"
_KEEP_OVER = "(over) => adaflow.keep({ over })"
_KEEP_PROMPTS = "(source_prompt, prompt) => adaflow.keep({ source_prompt, prompt })"
_KEEP_PLAN = "(facts, ...settings) => adaflow.keep({ plan: facts?.plan, settings })"
_KEEP_NO_PLAN = "(job) => adaflow.keep({ job, plan: null, settings: null })"
# What is typed into a row, and the frame that the edit's video shows.
_SET_PROMPT = "(rows, text) => [rows.map((row, i) => i === %d ? { ...row, prompt: text } : row)]"
# A file that was written for a click is fetched at once.
_SAVE_PLAN = (
    "() => setTimeout(() => document.querySelector('.af-plan-file a, a.af-plan-file, .af-plan-file')?.click(), 300)"
)
_SHOWN_FRAME = (
    "(frame, report) => [Math.round((document.querySelector('.af-edited video')?.currentTime ?? 0) * "
    "(report?.fps ?? 0))]"
)
_KEEP_JOB = "(job, facts, ...settings) => adaflow.keep({ job, plan: facts?.plan, settings })"


class Steps(NamedTuple):
    video: VideoStep
    plan: PlanStep
    edit: EditStep
    result: ResultStep


class Events(NamedTuple):
    planning: PlanEvents
    editing: EditEvents
    film: FilmEvents
    timeline: TimelineEvents
    region: RegionEvents


def build(studio: Studio) -> gr.Blocks:
    """The whole page over one studio."""
    clips = load_clips()
    with gr.Blocks(title="AdaFlow", analytics_enabled=False) as blocks:
        head()
        steps = Steps(VideoStep(studio, clips), PlanStep(studio), EditStep(studio), ResultStep())
        editing = EditEvents(studio)
        planning, film = PlanEvents(studio, clips), FilmEvents(studio, clips, editing)
        events = Events(planning, editing, film, TimelineEvents(studio), RegionEvents(studio))
        _connect_video(events, steps)
        _connect_settings(events, steps)
        _connect_plan_views(events, steps.plan, steps.edit)
        _connect_point(events.timeline, steps.plan, steps.edit)
        _connect_words(events.planning, steps)
        previewed = [*_connect_preview(events, steps), *_connect_hand(events, steps)]
        _connect_place(events, steps)
        _connect_draft(events, steps)
        _connect_region(events.region, steps, previewed)
        _connect_timeline(events, steps, previewed)
        edit_started = _connect_edit(events, steps)
        retake_started = _connect_retake(events, steps)
        _connect_result(events, steps, [edit_started, retake_started])
        _connect_project(events, steps)
        _connect_memory(blocks, events, steps, [*previewed, edit_started, retake_started])
    return blocks


def _connect_video(events: Events, steps: Steps) -> None:
    planning, video, edit = events.planning, steps.video, steps.edit
    cleared, jobs = _clearing(steps)
    chosen = video.examples.select(_index, None, video.example_number, **_PRIVATE).then(
        planning.another_video, jobs, cleared, **_PRIVATE
    )
    outputs = collect(ExampleOutputs._fields, video, edit)
    chosen.then(planning.example, video.example_number, outputs, api_name="example", **_PUBLIC)
    uploaded = gr.on([video.video.upload, video.video.clear], planning.uploaded, jobs, cleared, **_PRIVATE)
    for event in (chosen, uploaded):
        event.then(None, edit.job_id, None, js=_KEEP_NO_PLAN, **_PRIVATE)
    video.video.change(planning.describe, video.video, video.line, api_name="describe", **_PUBLIC).success(
        quietly(planning.playable), video.video, video.playable, api_name="playable", **_PUBLIC
    )


def _connect_settings(events: Events, steps: Steps) -> None:
    """The model with its own settings, and the buttons that bring these back."""
    plan, edit = steps.plan, steps.edit
    outputs = collect((*ModelOutputs._fields, *ALL), plan, edit, steps.video)
    choose = events.planning.choose_model, [plan.model, plan.model_before], outputs
    plan.model.input(*choose, api_name="choose_model", **_PUBLIC)
    steps.video.larger.click(events.planning.larger_model, None, plan.model, **_PRIVATE).then(*choose, **_PRIVATE)
    plan.reset.click(events.planning.own_settings, plan.model, collect(PLAN, plan), **_PRIVATE)
    edit.reset.click(events.editing.own_settings, plan.model, collect(EDIT, edit), **_PRIVATE)


def _connect_preview(events: Events, steps: Steps) -> list[gr.events.Dependency]:
    planning, plan = events.planning, steps.plan
    inputs, outputs = _preview_inputs(planning, steps), collect(PreviewOutputs._fields, plan)
    previewed = plan.preview.click(planning.preview, inputs, outputs, api_name="preview", **_PUBLIC)
    replanned = gr.on(
        [plan.settings[name].release for name in ("prune", "keyframes")] + [plan.settings["scales"].input],
        planning.replan,
        inputs,
        outputs,
        api_name="replan",
        **_LATEST,
    )
    for event in (previewed, replanned):
        _show_selection(event, events, steps)
    plan.stop.click(planning.stop_preview, plan.job_id, plan.status, api_name="stop_preview", **_IMMEDIATE)
    return [previewed, replanned]


def _connect_plan_views(events: Events, plan: PlanStep, edit: EditStep) -> None:
    """The keyframe under Tokens and the frame under Timeline, by their sliders and by clicks."""
    planning, timeline = events.planning, events.timeline
    tokens, frame = _tokens_call(planning, plan), _frame_call(planning, plan)
    gr.on([plan.number.release, plan.grid.input, plan.show.input], *tokens, api_name="tokens", **_LATEST)
    no_matches: _Call = _no_matches, None, [plan.matches, plan.match_sentence]
    moved = plan.frame.release(*frame, api_name="frame", **_LATEST).then(*no_matches, **_PRIVATE)
    inputs = collect(_parameters(timeline.keep_in_view), plan, job_id=edit.job_id)
    moved.then(quietly(timeline.keep_in_view), inputs, collect(ZoomOutputs._fields, plan), **_PRIVATE)
    opened = plan.gallery.select(_number, None, plan.number, **_PRIVATE).then(*tokens, **_PRIVATE)
    opened.then(_open_tokens, None, plan.tabs, **_PRIVATE)
    for plot in (plan.timeline, plan.time_slice):
        plot.select(timeline.find_clicked_frame, [plan.plan_id, plan.window], plan.frame, **_PRIVATE).then(
            *frame, **_PRIVATE
        ).then(*no_matches, **_PRIVATE)


def _connect_point(timeline: TimelineEvents, plan: PlanStep, edit: EditStep) -> None:
    """A click on the frame, zoom, the slice's column, and the plan's files."""
    outputs = collect(MatchOutputs._fields, plan)
    point = plan.frame_picture.select(_point, None, [plan.x, plan.y], **_PRIVATE)
    inputs = [plan.plan_id, plan.frame, plan.x, plan.y]
    point.then(timeline.matches, inputs, outputs, api_name="matches", **_PUBLIC)
    column = [plan.plan_id, plan.column, plan.window]
    plan.column.release(timeline.column, column, plan.time_slice, api_name="column", **_LATEST)
    handler, inputs, outputs = _zoom_call(timeline, plan, edit)
    plan.zoom.release(handler, inputs, outputs, api_name="zoom", **_LATEST)
    for kind, button in plan.save.items():
        asked = button.click(partial(str, kind), None, plan.file_kind, **_PRIVATE)
        api = {"api_name": "plan_file", **_PUBLIC} if kind == "json" else _PRIVATE
        written = asked.then(timeline.plan_file, [plan.plan_id, plan.file_kind], plan.plan_file, **api)
        written.success(None, None, None, js=_SAVE_PLAN, **_PRIVATE)


def _connect_hand(events: Events, steps: Steps) -> list[gr.events.Dependency]:
    """Keyframes that are set by hand; the plan follows."""
    planning, plan = events.planning, steps.plan
    inputs, outputs = _preview_inputs(planning, steps), collect(PreviewOutputs._fields, plan)
    done = []
    for action, button in plan.hand.items():
        asked = [plan.plan_id, plan.frame, gr.State(action)]
        changed = button.click(events.timeline.by_hand, asked, plan.settings["keyframes_at"], **_PRIVATE)
        done.append(changed.success(planning.replan, inputs, outputs, **_PRIVATE))
        _show_selection(done[-1], events, steps)
    return done


def _connect_words(planning: PlanEvents, steps: Steps) -> None:
    """A click on a word puts it into the prompt."""
    edit, model = steps.edit, steps.plan.model
    for kind in views.KINDS:
        words = getattr(edit, kind)
        words.input(planning.word, [edit.prompt, model, words, gr.State(kind)], [edit.prompt, words], **_PRIVATE)


def _plan_first(
    event: gr.events.Dependency,
    shown: dict[str, Any],  # what shows the planning and its progress: `job_id` and `status`
    events: Events,
    steps: Steps,
) -> gr.events.Dependency:
    """Make the plan again if the settings have changed, so that what comes then follows what is shown."""
    planning = events.planning
    inputs, outputs = _preview_inputs(planning, steps), collect(PreviewOutputs._fields, steps.plan, **shown)
    planned = event.success(planning.preview, inputs, outputs, **_PRIVATE)
    _show_selection(planned, events, steps)
    _show_over(planned, events.region, steps)
    return planned


def _asked(button: gr.Button, editing: EditEvents, edit: EditStep, *more: Any) -> gr.events.Dependency:
    """A click, if there is a prompt."""
    return button.click(editing.check_not_empty, [edit.prompt, *more], None, **_PRIVATE)


def _connect_place(events: Events, steps: Steps) -> None:
    """The button that shows where the prompt changes the video."""
    editing, edit = events.editing, steps.edit
    shown = {"job_id": edit.place_job_id, "status": edit.place_progress}
    planned = _plan_first(_asked(edit.show_place, editing, edit), shown, events, steps)
    inputs = collect(_parameters(editing.place), steps.plan, edit)
    planned.success(editing.place, inputs, collect(PlaceOutputs._fields, edit), api_name="place", **_PUBLIC)


def _connect_draft(events: Events, steps: Steps) -> None:
    """The button that tries the edit on the keyframes, and the choice of a draft."""
    film, edit = events.film, steps.edit
    shown = {"job_id": edit.draft_job_id, "status": edit.draft_progress}
    planned = _plan_first(_asked(edit.try_it, events.editing, edit), shown, events, steps)
    inputs = collect(_parameters(film.draft), steps.plan, edit, edit.region)
    planned.success(film.draft, inputs, collect(DraftOutputs._fields, edit), api_name="draft", **_PUBLIC)
    edit.draft_gallery.select(film.choose_draft, [edit.drafts, steps.plan.model], collect(EDIT, edit), **_PRIVATE)


def _connect_region(region: RegionEvents, steps: Steps, previewed: list[gr.events.Dependency]) -> None:
    """A region that is painted, and keyframes that are given back."""
    plan, edit, part = steps.plan, steps.edit, steps.edit.region
    known = {"plan_id": plan.plan_id, "drafted": edit.drafted, "video": steps.video.video}

    def call(handler: Callable[..., Any], outputs: list[Any]) -> _Call:
        return handler, collect(_parameters(handler), part, **known), outputs

    shown = collect(OverOutputs._fields, part)
    part.load_frame.click(*call(region.load_frame, [part.canvas]), **_PRIVATE)
    changed = [
        part.use_strokes.click(*call(region.use_strokes, shown), **_PRIVATE),
        gr.on([part.find_words.click, part.region_words.submit], *call(region.find_words, shown), **_PRIVATE),
        part.feather.release(*call(region.set_feather, shown), **_PRIVATE),
        part.no_region.click(*call(region.no_region, shown), **_PRIVATE),
        part.give_back.upload(*call(region.give_back, shown), **_PRIVATE),
        part.take_back.click(*call(region.take_back, shown), **_PRIVATE),
        steps.video.video.change(*call(quietly(region.of_video), shown), **_PRIVATE),
    ]
    changed[-1].then(lambda: None, None, part.canvas, **_PRIVATE)
    file = call(region.keyframe_file, [part.keyframe_file])
    gr.on([part.keyframe.change, part.keyframe_of.input, edit.drafted.change], *file, **_PRIVATE)
    for event in previewed:
        event.success(*call(region.keyframes, [part.keyframe]), **_PRIVATE).then(*file, **_PRIVATE)
        _show_over(event, region, steps)
    for event in changed:
        event.then(None, part.over_id, None, js=_KEEP_OVER, **_PRIVATE)


def _connect_timeline(events: Events, steps: Steps, previewed: list[gr.events.Dependency]) -> None:
    """A prompt for each shot: the rows, and what is done to them."""
    film, plan, edit = events.film, steps.plan, steps.edit
    rows = collect(RowsOutputs._fields, edit)
    shots: _Call = quietly(film.shots), [plan.plan_id, *rows], rows  # a moved slider may come here without a plan
    shown = {"job_id": edit.draft_job_id, "status": edit.draft_progress}
    edit.prompting.change(_by_shot, edit.prompting, [edit.prompt, edit.timeline, edit.show_place, edit.try_it],
                          **_PRIVATE)  # fmt: skip
    wanted = edit.prompting.input(_refuse_one, edit.prompting, None, **_PRIVATE)
    _plan_first(wanted, shown, events, steps).success(*shots, **_PRIVATE)
    for event in previewed:
        event.success(*shots, **_PRIVATE)
    with edit.rows:
        gr.render([edit.prompts, plan.plan_id], [edit.prompts_version.change], **_HIDDEN)(
            lambda prompts, plan_id: _show_rows(film, edit, rows, prompts, plan_id)
        )


def _show_rows(film: FilmEvents, edit: EditStep, rows: list[Any], prompts: Rows, plan_id: str) -> None:
    """A picture, the prompt, and what splits and merges, for each range."""
    for number, row in enumerate(prompts or []):
        picture, words = film.row_pictures(plan_id, row)
        first, end = row["frames"]
        with gr.Row(elem_classes="af-row"):
            gr.HTML(picture, min_width=160, elem_classes="af-row-pictures")
            with gr.Column(scale=3, min_width=260):
                # Told that they can be changed: as inputs of such events alone they would be locked.
                box = gr.Textbox(row["prompt"], label=words, placeholder="left as it is", max_lines=3, interactive=True)
                with gr.Row():
                    at = gr.Number(
                        (first + end) // 2,
                        precision=0,
                        label=f"Split row {number + 1} at frame",
                        min_width=90,
                        interactive=True,
                    )
                    cut = gr.Button("Split", size="sm", min_width=70, interactive=end - first > 1)
                    join = gr.Button("Merge with the next", size="sm", min_width=120,
                                     interactive=number + 1 < len(prompts))  # fmt: skip
        # In the browser, so that what is typed is there with the next click.
        box.change(None, [edit.prompts, box], edit.prompts, js=_SET_PROMPT % number, **_PRIVATE)
        which = gr.Number(number, visible=False)
        cut.click(film.split, [edit.prompts, which, at, edit.prompts_version], rows, **_PRIVATE)
        join.click(film.merge, [edit.prompts, which, edit.prompts_version], rows, **_PRIVATE)


def _connect_edit(events: Events, steps: Steps) -> gr.events.Dependency:
    """The button Edit."""
    editing, plan, edit = events.editing, steps.plan, steps.edit
    shown = {"job_id": edit.job_id, "status": edit.progress}
    asked = _asked(edit.start, editing, edit, edit.prompting, edit.region.over)
    planned = _plan_first(asked, shown, events, steps)
    inputs = collect(_parameters(editing.edit), plan, edit, edit.region)
    started = planned.success(editing.edit, inputs, edit.job_id, api_name="edit", **_PUBLIC)
    check_prompt = editing.check_prompt, collect(_parameters(editing.check_prompt), plan, edit), edit.prompt_problems
    negative = edit.settings["negative_prompt"]
    gr.on([edit.prompt.blur, edit.prompt.submit, negative.blur], *check_prompt, api_name="check_prompt", **_PUBLIC)
    started.success(*check_prompt, **_PRIVATE).then(list, None, edit.takes, **_PRIVATE)
    jobs = [edit.job_id, edit.place_job_id, edit.draft_job_id]
    edit.stop.click(editing.stop, jobs, edit.progress, api_name="stop", **_IMMEDIATE)
    return started


def _connect_retake(events: Events, steps: Steps) -> gr.events.Dependency:
    film, edit, result = events.film, steps.edit, steps.result
    inputs = collect(_parameters(film.retake), result, edit)
    started = result.retake.click(film.retake, inputs, edit.job_id, api_name="retake", **_PUBLIC)
    stretch = collect(_parameters(film.stretch), result, edit)
    gr.on(
        [result.first.release, result.end.release, result.first.input, result.end.input, result.retaking.expand],
        film.stretch,
        stretch,
        result.stretch_pictures,
        **_PRIVATE | {"trigger_mode": "always_last"},
    )
    for button, slider in ((result.first_here, result.first), (result.end_here, result.end)):
        moved = button.click(None, [slider, result.report], slider, js=_SHOWN_FRAME, **_PRIVATE)
        moved.then(film.stretch, stretch, result.stretch_pictures, **_PRIVATE)
    return started


def _connect_result(events: Events, steps: Steps, started: list[gr.events.Dependency]) -> None:
    editing, edit, result = events.editing, steps.edit, steps.result
    watch = _watch_call(editing, steps)
    of_edit, of_retake = started
    watched = [
        of_edit.success(*watch, api_name="watch", **_PUBLIC),
        of_retake.success(*watch, **_PRIVATE),
        result.shown.input(_same, result.shown, edit.job_id, **_PRIVATE).then(*watch, **_PRIVATE),
    ]
    gr.on(
        [result.compared_frame.release, result.comparison.expand],
        editing.compare,
        [edit.job_id, result.compared_frame, result.beside],
        collect(CompareOutputs._fields, result),
        api_name="compare",
        **_LATEST,
    )
    handler, inputs, outputs = _zoom_call(events.timeline, steps.plan, edit)
    for event in watched:
        event.then(*_history_call(editing, steps), js=_HISTORY, **_PRIVATE)
        event.then(quietly(handler), inputs, outputs, **_PRIVATE)  # now with the residual of the edit
    result.beside.input(
        editing.show_beside,
        [edit.job_id, result.beside, result.compared_frame],
        collect(BesideOutputs._fields, result),
        **_PRIVATE,
    )


def _connect_project(events: Events, steps: Steps) -> None:
    video, plan, edit = steps.video, steps.plan, steps.edit
    outputs = collect((*ProjectOutputs._fields, *ALL), video, plan, edit, edit.region)
    cleared, jobs = _clearing(steps)
    opened = video.open_project.upload(
        events.film.open_project, [video.open_project, video.video], outputs, api_name="open_project", **_PUBLIC
    )
    opened.success(events.planning.another_plan, jobs, cleared, **_PRIVATE).then(
        _next, edit.prompts_version, edit.prompts_version, **_PRIVATE
    )


def _clearing(steps: Steps) -> tuple[list[Any], list[Any]]:
    """What is taken away with a video, and the jobs that are about it."""
    edit, plan = steps.edit, steps.plan
    return collect(VideoOutputs._fields, edit, plan, steps.result, steps.video), [edit.job_id, plan.job_id]


def _connect_memory(
    blocks: gr.Blocks,
    events: Events,
    steps: Steps,
    keeping: list[gr.events.Dependency],  # previews, and at last the starts of an edit and of a retake
) -> None:
    """The browser's tab remembers what it shows, and the browser its edits: a reload loses nothing."""
    planning, editing, video, plan, edit = events.planning, events.editing, steps.video, steps.plan, steps.edit
    settings = collect(SETTINGS, plan, edit)
    for event in keeping[:-2]:
        event.success(None, [plan.facts, *settings], None, js=_KEEP_PLAN, **_PRIVATE)
    for event in keeping[-2:]:
        event.success(None, [edit.job_id, plan.facts, *settings], None, js=_KEEP_JOB, **_PRIVATE)
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
    part = edit.region
    restored = [
        video.video,
        video.source_prompt,
        edit.prompt,
        edit.job_id,
        plan.plan_id,
        part.over,
        part.over_id,
        *settings,
    ]
    loaded = blocks.load(planning.restore, edit.session, restored, js=_SESSION, **_PRIVATE)
    loaded.then(*_watch_call(editing, steps), **_PRIVATE).then(*_history_call(editing, steps), js=_HISTORY, **_PRIVATE)
    shown = loaded.then(planning.restore_plan, plan.plan_id, collect(PreviewOutputs._fields, plan), **_PRIVATE)
    shown.then(_next, edit.prompts_version, edit.prompts_version, **_PRIVATE)
    shown.then(events.region.keyframes, plan.plan_id, part.keyframe, **_PRIVATE)
    _show_over(shown, events.region, steps)
    _show_selection(shown, events, steps)


def _watch_call(editing: EditEvents, steps: Steps) -> _Call:
    return editing.watch, steps.edit.job_id, collect(WatchOutputs._fields, steps.result, steps.edit)


def _history_call(editing: EditEvents, steps: Steps) -> _Call:
    edit = steps.edit
    return editing.history, [edit.session, edit.job_id], collect(HistoryOutputs._fields, steps.result)


def _show_selection(event: gr.events.Dependency, events: Events, steps: Steps) -> None:
    """After a plan was made: show the tokens of the selected keyframe, and the selected frame."""
    planning, plan = events.planning, steps.plan
    # The plots again where they are zoomed, or show an edit.
    calls = _tokens_call(planning, plan), _frame_call(planning, plan), _zoom_call(events.timeline, plan, steps.edit)
    for handler, inputs, outputs in calls:
        # Before the first preview a moved slider comes here without a plan.
        event.success(quietly(handler), inputs, outputs, **_PRIVATE)


def _show_over(event: gr.events.Dependency, region: RegionEvents, steps: Steps) -> None:
    """After a plan was made: show what a project or a reload brought for it."""
    part = steps.edit.region
    shown = event.success(
        region.show_over, [steps.plan.plan_id, part.over], collect(OverOutputs._fields, part), **_PRIVATE
    )
    shown.then(None, part.over_id, None, js=_KEEP_OVER, **_PRIVATE)


def _tokens_call(planning: PlanEvents, plan: PlanStep) -> _Call:
    return planning.tokens, collect(_parameters(planning.tokens), plan), collect(TokenOutputs._fields, plan)


def _zoom_call(timeline: TimelineEvents, plan: PlanStep, edit: EditStep) -> _Call:
    return (
        timeline.zoom,
        collect(_parameters(timeline.zoom), plan, job_id=edit.job_id),
        collect(ZoomOutputs._fields, plan),
    )


def _frame_call(planning: PlanEvents, plan: PlanStep) -> _Call:
    return planning.frame, [plan.plan_id, plan.frame], collect(FrameOutputs._fields, plan)


def _preview_inputs(planning: PlanEvents, steps: Steps) -> list[Any]:
    return collect(_parameters(planning.preview), steps.plan, steps.edit, steps.video)


def _parameters(handler: Callable[..., Any]) -> list[str]:
    return list(signature(handler).parameters)


def _no_matches() -> tuple[gr.Gallery, str]:
    """Of another frame: those of the one before are no longer shown."""
    return gr.Gallery(visible=False), ""


def _open_tokens() -> gr.Tabs:
    return gr.Tabs(selected="tokens")


def _same(value: str) -> str:
    return value


def _next(version: float) -> float:
    return version + 1


def _by_shot(prompting: str) -> tuple[Any, ...]:
    """The prompt or the rows; places and drafts are of one prompt."""
    one = prompting == views.ONE
    buttons = gr.Button(interactive=one), gr.Button(interactive=one)
    return gr.Textbox(visible=one), gr.Column(visible=not one), *buttons


def _refuse_one(prompting: str) -> None:
    """With one prompt nothing follows: there are no rows to be shown."""
    if prompting == views.ONE:
        problem = refusal("there is one prompt")
        problem.visible = False
        raise problem


def _index(event: gr.SelectData) -> int:
    return int(event.index)


def _point(event: gr.SelectData) -> tuple[int, int]:
    return int(event.index[0]), int(event.index[1])


def _number(event: gr.SelectData) -> int:
    return int(event.index) + 1
