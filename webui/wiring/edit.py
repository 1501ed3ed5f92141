"""Step 3: the words of a prompt, its place, drafts, and the edit itself."""

from __future__ import annotations

import gradio as gr

from webui.events.common.outputs import DraftOutputs, PlaceOutputs, PreviewOutputs, collect
from webui.events.model import ModelEvents
from webui.settings import EDIT
from webui.views import labels
from webui.wiring.shared import (
    EACH,
    IMMEDIATE,
    PRIVATE,
    PRIVATE_LATEST,
    PUBLIC,
    Call,
    Events,
    Steps,
    parameters,
    plan_first,
    when_plan_changes,
)


def connect_words(events: ModelEvents, steps: Steps) -> None:
    """A click on a word puts it into the prompt."""
    edit, model = steps.edit, steps.plan.model
    for kind in labels.KINDS:
        words = getattr(edit, kind)
        words.input(events.word, [edit.prompt, model, words, gr.State(kind)], [edit.prompt, words], **PRIVATE)


def connect_place(events: Events, steps: Steps) -> None:
    """The button that shows where the prompt changes the video."""
    place, edit = events.place, steps.edit
    asked = edit.show_place.click(events.editing.check_not_empty, edit.prompt, None, **PRIVATE)
    planned = plan_first(asked, edit.place_progress, events, steps)
    inputs, outputs = collect(parameters(place.place), steps.plan, edit), collect(PlaceOutputs._fields, edit)
    # The one that it replaces may still run.
    planned.success(place.place, inputs, outputs, api_name="place", **PUBLIC | {"trigger_mode": "multiple"})
    known = collect(parameters(place.fit_place), steps.plan, edit)
    when_plan_changes(steps)(place.fit_place, known, outputs, **PRIVATE)


def connect_draft(events: Events, steps: Steps) -> None:
    """The button that tries the edit on the keyframes, and the choice of a draft."""
    drafts, edit = events.drafts, steps.edit
    asked = edit.try_it.click(events.editing.check_not_empty, edit.prompt, None, **PRIVATE)
    planned = plan_first(asked, edit.draft_progress, events, steps)
    inputs = collect(parameters(drafts.draft), steps.plan, edit, edit.region)
    outputs = collect(DraftOutputs._fields, edit)
    planned.success(drafts.draft, inputs, outputs, api_name="draft", **PUBLIC | {"trigger_mode": "multiple"})
    known = collect(parameters(drafts.fit_drafts), steps.plan, edit)
    when_plan_changes(steps)(drafts.fit_drafts, known, outputs, **PRIVATE)
    edit.draft_gallery.select(drafts.choose_draft, [edit.drafts, steps.plan.model], collect(EDIT, edit), **EACH)


def connect_edit(events: Events, steps: Steps) -> gr.events.Dependency:
    """The button Edit."""
    editing, beginning, plan, edit = events.editing, events.beginning, steps.plan, steps.edit
    parts = plan, edit, edit.region, steps.video
    planning = gr.State("")
    asked = collect(parameters(beginning.begin), *parts, planning=planning)
    # The planning is followed by an event of its own: while this one ran, another press would be left out.
    begun = edit.start.click(beginning.begin, asked, [planning, edit.job_id], **PRIVATE)
    outputs = collect(PreviewOutputs._fields, plan, status=edit.progress)
    started = begun.success(beginning.show_planning, [planning, plan.plan_id, plan.begun], outputs, **EACH)
    edit.start_of_plan.click(
        editing.edit, collect(parameters(editing.edit), *parts), edit.job_id, api_name="edit", **PUBLIC
    )
    inputs = collect(parameters(editing.check_prompt), plan, edit)
    check_prompt = Call(editing.check_prompt, inputs, [edit.prompt_problems])
    negative = edit.settings["negative_prompt"]
    gr.on([edit.prompt.blur, edit.prompt.submit, negative.blur], *check_prompt, api_name="check_prompt", **PUBLIC)
    started.success(*check_prompt, **PRIVATE)
    made = [edit.takes, steps.video.project_line]
    edit.shown_job.change(editing.takes_made, [edit.shown_job, edit.takes], made, **PRIVATE_LATEST)
    jobs = collect(parameters(editing.stop), *parts)
    edit.stop.click(editing.stop, jobs, edit.progress, api_name="stop", **IMMEDIATE)
    return started
