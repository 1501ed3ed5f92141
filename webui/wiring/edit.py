"""Step 3: the words of a prompt, its place, drafts, and the edit itself."""

from __future__ import annotations

from typing import Any

import gradio as gr

from webui import views
from webui.components.edit import EditStep
from webui.events.edit import EditEvents
from webui.events.plan import PlanEvents
from webui.outputs import DraftOutputs, PlaceOutputs, collect
from webui.settings import EDIT
from webui.wiring.shared import IMMEDIATE, PRIVATE, PUBLIC, Events, Steps, parameters, plan_first


def connect_words(planning: PlanEvents, steps: Steps) -> None:
    """A click on a word puts it into the prompt."""
    edit, model = steps.edit, steps.plan.model
    for kind in views.KINDS:
        words = getattr(edit, kind)
        words.input(planning.word, [edit.prompt, model, words, gr.State(kind)], [edit.prompt, words], **PRIVATE)


def connect_place(events: Events, steps: Steps) -> None:
    """The button that shows where the prompt changes the video."""
    editing, edit = events.editing, steps.edit
    shown = {"job_id": edit.place_job_id, "status": edit.place_progress}
    planned = plan_first(_asked(edit.show_place, editing, edit), shown, events, steps)
    inputs = collect(parameters(editing.place), steps.plan, edit)
    planned.success(editing.place, inputs, collect(PlaceOutputs._fields, edit), api_name="place", **PUBLIC)


def connect_draft(events: Events, steps: Steps) -> None:
    """The button that tries the edit on the keyframes, and the choice of a draft."""
    film, edit = events.film, steps.edit
    shown = {"job_id": edit.draft_job_id, "status": edit.draft_progress}
    planned = plan_first(_asked(edit.try_it, events.editing, edit), shown, events, steps)
    inputs = collect(parameters(film.draft), steps.plan, edit, edit.region)
    planned.success(film.draft, inputs, collect(DraftOutputs._fields, edit), api_name="draft", **PUBLIC)
    edit.draft_gallery.select(film.choose_draft, [edit.drafts, steps.plan.model], collect(EDIT, edit), **PRIVATE)


def connect_edit(events: Events, steps: Steps) -> gr.events.Dependency:
    """The button Edit."""
    editing, plan, edit = events.editing, steps.plan, steps.edit
    shown = {"job_id": edit.job_id, "status": edit.progress}
    asked = _asked(edit.start, editing, edit, edit.prompting, edit.region.over)
    planned = plan_first(asked, shown, events, steps)
    inputs = collect(parameters(editing.edit), plan, edit, edit.region)
    started = planned.success(editing.edit, inputs, edit.job_id, api_name="edit", **PUBLIC)
    check_prompt = editing.check_prompt, collect(parameters(editing.check_prompt), plan, edit), edit.prompt_problems
    negative = edit.settings["negative_prompt"]
    gr.on([edit.prompt.blur, edit.prompt.submit, negative.blur], *check_prompt, api_name="check_prompt", **PUBLIC)
    started.success(*check_prompt, **PRIVATE).then(list, None, edit.takes, **PRIVATE)
    jobs = [edit.job_id, edit.place_job_id, edit.draft_job_id]
    edit.stop.click(editing.stop, jobs, edit.progress, api_name="stop", **IMMEDIATE)
    return started


def _asked(button: gr.Button, editing: EditEvents, edit: EditStep, *more: Any) -> gr.events.Dependency:
    """A click, if there is a prompt."""
    return button.click(editing.check_not_empty, [edit.prompt, *more], None, **PRIVATE)
