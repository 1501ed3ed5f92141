"""Events of the model: choose one, put its words into the prompt, show its own settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from adaflow_core.config import ModelProfile
from adaflow_core.errors import AdaFlowError
from webui import views
from webui.events.common.follow import follow
from webui.events.common.outputs import ModelOutputs, ModelShown, unchanged
from webui.events.common.words import with_word
from webui.jobs.queue import Begun, Jobs
from webui.messages import message, refusal
from webui.settings import ALL, PLAN, shown_values
from webui.studio import Studio
from webui.views import labels


class ModelEvents:
    """Handles the choice of a model; the studio loads it."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    async def choose_model(self, model: str, before: str, begun: Begun) -> AsyncIterator[tuple[Any, ...]]:
        """Load another model and show its own settings; if it cannot be loaded, everything stays as it was.

        A model that is still being loaded is abandoned.
        """
        same = *unchanged(ModelShown), *[gr.skip()] * len(ALL)
        leave_load(self.studio.jobs, begun)
        try:
            begun.load = job_id = self.studio.load(model)
        except AdaFlowError as problem:
            yield *unchanged(ModelOutputs, status="", model=before), *same
            raise refusal(str(problem)) from None
        snapshot = None
        async for snapshot in follow(self.studio.jobs, job_id):
            if not snapshot.finished:
                yield *unchanged(ModelOutputs, status=views.progress(snapshot)), *same
        if begun.load != job_id:  # another was chosen meanwhile
            return
        begun.load = ""
        if snapshot is None or snapshot.state != "done":
            said = views.line("Loading was stopped; the model stays as it was.")
            if snapshot is not None and snapshot.problem:
                said = ""
                gr.Warning(message(f"{snapshot.problem.rstrip('.')}. The model stays as it was."))
            yield *unchanged(ModelOutputs, status=said, model=before), *same
            return
        profile = self.studio.profile(model)
        outputs = unchanged(ModelOutputs, status="", side=side_of(profile))
        yield *outputs, *model_shown(self.studio, model), *shown_values(ALL, profile)

    def word(self, prompt: str, model: str, word: str | None, kind: str) -> tuple[Any, Any]:
        """Put a word of this kind into the prompt, and clear the choice among the kind's words."""
        if not word:
            return gr.skip(), gr.skip()
        return with_word(prompt or "", kind, word, dict(self.studio.profile(model).words)), gr.Radio(value=None)

    def larger_model(self) -> str:
        """Return a model for real footage that this machine can run, or the page's own model if there is none."""
        return self.studio.larger_model() or self.studio.model

    def own_settings(self, model: str) -> list[Any]:
        """Return the model's own values of a plan's settings."""
        return shown_values(PLAN, self.studio.profile(model))


def is_loading(jobs: Jobs, begun: Begun) -> bool:
    """Whether the model that a tab has chosen is still being loaded."""
    model = jobs.snapshot(begun.load)
    return model is not None and not model.finished


def leave_load(jobs: Jobs, begun: Begun) -> None:
    """Abandon the model that is being loaded, because another one is wanted."""
    jobs.leave(begun.load)
    begun.load = ""


def side_of(profile: ModelProfile, side: int | str = 0) -> gr.Dropdown:
    """Return the dropdown of a model's working sizes, with `side` chosen."""
    return gr.Dropdown(choices=views.working_sizes(profile.size), value=side, allow_custom_value=True)


def model_shown(studio: Studio, model: str) -> ModelShown:
    """Return what the page shows about a model, apart from its settings."""
    profile = studio.profile(model)
    words, known = profile.vocabulary, dict(profile.words)
    return ModelShown(
        model_before=model,
        vocabulary=gr.Accordion(label=views.vocabulary_title(words), visible=bool(words)),
        vocabulary_words=views.vocabulary(words),
        toy=views.toy(profile),
        larger=gr.Button(visible=bool(words and studio.larger_model())),
        **{kind: gr.Radio(choices=list(known.get(kind, ())), visible=kind in known) for kind in labels.KINDS},
    )
