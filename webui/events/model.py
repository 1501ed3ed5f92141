"""Events of the model: its choice, its words and its own settings."""

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
    """What a visitor does with models; the studio loads them."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    async def choose_model(self, model: str, before: str, begun: Begun) -> AsyncIterator[tuple[Any, ...]]:
        """Load another model and show its own settings; if it cannot be loaded, everything stays as it was.

        One that is still being loaded is left.
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
        """The prompt with a word of a kind in it, and the kind's words with none of them chosen."""
        if not word:
            return gr.skip(), gr.skip()
        return with_word(prompt or "", kind, word, dict(self.studio.profile(model).words)), gr.Radio(value=None)

    def larger_model(self) -> str:
        """A model for real footage that this machine can run."""
        return self.studio.larger_model() or self.studio.model

    def own_settings(self, model: str) -> list[Any]:
        """The model's own values of a plan's settings."""
        return shown_values(PLAN, self.studio.profile(model))


def is_loading(jobs: Jobs, begun: Begun) -> bool:
    """Whether the model that a tab has chosen is still being loaded."""
    model = jobs.snapshot(begun.load)
    return model is not None and not model.finished


def leave_load(jobs: Jobs, begun: Begun) -> None:
    """Another model is wanted: one that is being loaded is not."""
    jobs.leave(begun.load)
    begun.load = ""


def side_of(profile: ModelProfile, side: int | str = 0) -> gr.Dropdown:
    """A working size, among those of a model."""
    return gr.Dropdown(choices=views.working_sizes(profile.size), value=side, allow_custom_value=True)


def model_shown(studio: Studio, model: str) -> ModelShown:
    """What the page shows of a model, beside its settings."""
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
