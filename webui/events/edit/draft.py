"""Drafts: the edited keyframes, before the long edit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import gradio as gr
import numpy as np

from adaflow_core.config import EditConfig
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.draft import Draft, contact_sheet
from adaflow_core.types import Plan
from webui import views
from webui.events.common.follow import show_of_plan
from webui.events.common.outputs import (
    DraftOutputs,
    unchanged,
)
from webui.events.common.over import asked_over, held
from webui.events.edit.edit import EditEvents
from webui.jobs.queue import Begun, Snapshot
from webui.jobs.tasks import Drafts
from webui.kept import OverState
from webui.messages import refuse_on_error
from webui.served_images import serve_image
from webui.settings import EDIT, named, shown_values
from webui.views import labels

_VARIATION = 0.3  # without any, seeds do not differ


class DraftEvents:
    """Drafts of a plan, with up to four settings side by side; another plan takes them away."""

    def __init__(self, editing: EditEvents) -> None:
        self.editing, self.studio = editing, editing.studio

    @named(*EDIT)
    async def draft(
        self, plan_id: str | None, prompt: str, tried: str, over: OverState, over_id: str, begun: Begun, *shown: Any
    ) -> AsyncIterator[DraftOutputs]:
        """The edited keyframes of a plan, before the long run; up to four settings side by side."""
        with refuse_on_error():
            configs = _tried(tried, self.editing.asked(plan_id, EDIT, shown))
            parts = asked_over(self.studio.kept.find_plan(plan_id), held(self.studio, over, over_id))
            job_id = self.studio.draft(plan_id, prompt or "", configs, *parts)
        # Only now: where others are refused, those that are being made go on.
        self.studio.jobs.leave(begun.draft, replaced=True)
        begun.draft = job_id
        async for outputs in self.show_drafts(plan_id, "", begun):
            yield outputs

    def fit_drafts(self, plan_id: str | None, drafted: str, begun: Begun) -> DraftOutputs:
        """There is another plan: drafts of the one before go, and their progress if no others are being made."""
        if not drafted or self.studio.drafts(drafted, self.studio.kept.find_plan(plan_id)) is not None:
            return unchanged(DraftOutputs)
        return _no_drafts(**({"draft_progress": gr.skip()} if begun.draft else {}))

    async def show_drafts(self, plan_id: str | None, drafted: str, begun: Begun) -> AsyncIterator[DraftOutputs]:
        """Drafts that are being made, or are made, as a reloaded page had them: their progress, then their pictures.

        Nothing where they are gone, or of another plan. While some are being made, those before them are shown.
        """
        how = "draft", "draft_progress", _no_drafts(), self.studio.drafts, _draft_outputs
        async for outputs in show_of_plan(self.studio, plan_id, begun, "draft", drafted, *how):
            yield outputs

    def choose_draft(self, drafts: list[dict[str, Any]], model: str, event: gr.SelectData) -> list[Any]:
        """The settings of the draft under a click."""
        return shown_values(EDIT, self.studio.profile(model), drafts[int(event.index)])


def _tried(tried: str, asked: dict[str, Any]) -> list[tuple[str, EditConfig]]:
    """The edits whose drafts are shown side by side, with their labels."""
    if tried not in labels.TRIED:
        raise AdaFlowError(f"drafts side by side are {tried!r}; choose one of {', '.join(labels.TRIED)}")
    compared = labels.TRIED[tried]
    if compared is None:
        return [("edit", EditConfig(**asked))]
    name, values = compared
    if name == "seed":
        values = tuple(asked["seed"] + int(value) for value in values)
        asked = asked | {"variation": asked["variation"] or _VARIATION}
    return [(f"{name} {value:g}", EditConfig(**asked | {name: value})) for value in values]


def _draft_outputs(plan: Plan, drafts: Drafts, snapshot: Snapshot) -> DraftOutputs:
    """Show the drafts that a job has made."""
    made = drafts.made
    warnings = dict.fromkeys(warning for _, _, draft in made for warning in draft.warnings)
    several = " Choose one, and the edit goes on from it." if len(made) > 1 else " The edit goes on from it."
    return DraftOutputs(
        draft_progress=views.progress(snapshot),
        draft=gr.Column(visible=True),
        draft_sentence=views.quote(drafts.prompt)
        + views.line("Keyframes of the source, and below them what the edit makes of them." + several)
        + views.notice(list(warnings)),
        draft_gallery=gr.Gallery(
            [_sheet(plan, label, draft) for label, _, draft in made],
            selected_index=None,
            columns=1 if len(made) == 1 else 2,
        ),
        drafts=[asdict(config) for _, config, _ in made],
        drafted=snapshot.id,
    )


def _no_drafts(**others: Any) -> DraftOutputs:
    hidden = unchanged(DraftOutputs, draft=gr.Column(visible=False), drafts=[], drafted="")
    return hidden._replace(**{"draft_progress": ""} | others)


def _sheet(plan: Plan, label: str, draft: Draft) -> tuple[str, str]:
    return serve_image(np.asarray(contact_sheet(plan, [(label, draft)])), "png"), label
