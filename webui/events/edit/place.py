"""Where an edit would take place: the search for it, and its pictures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from adaflow_core.config import EditConfig
from adaflow_core.report.overlays import place_sentence, place_view
from adaflow_core.types import Plan
from webui import views
from webui.events.common.follow import show_of_plan
from webui.events.common.outputs import (
    PlaceOutputs,
    unchanged,
)
from webui.events.edit.edit import EditEvents
from webui.jobs.queue import Begun, Snapshot
from webui.jobs.tasks import FoundPlace
from webui.messages import refuse_on_error
from webui.served_images import serve_image


class PlaceEvents:
    """Searches for the place of an edit in a plan; another plan takes them away."""

    def __init__(self, editing: EditEvents) -> None:
        self.editing, self.studio = editing, editing.studio

    async def place(
        self, plan_id: str | None, prompt: str, focus: float, structure: float | str, begun: Begun
    ) -> AsyncIterator[PlaceOutputs]:
        """Show where an edit of the plan to this prompt would change the video."""
        with refuse_on_error():
            config = EditConfig(**self.editing.asked(plan_id, ("focus", "structure"), (focus, structure)))
            job_id = self.studio.place(plan_id, prompt or "", config)
        # Only now: where another search is refused, the one that runs goes on.
        self.studio.jobs.leave(begun.place, replaced=True)
        begun.place = job_id
        async for outputs in self.show_place(plan_id, "", begun):
            yield outputs

    def fit_place(self, plan_id: str | None, placed: str, begun: Begun) -> PlaceOutputs:
        """There is another plan: a place in the one before goes, and its progress if no other is being searched."""
        if not placed or self.studio.found_place(placed, self.studio.kept.find_plan(plan_id)) is not None:
            return unchanged(PlaceOutputs)
        return _no_place(**({"place_progress": gr.skip()} if begun.place else {}))

    async def show_place(self, plan_id: str | None, placed: str, begun: Begun) -> AsyncIterator[PlaceOutputs]:
        """A search, or one that is done, as a reloaded page had it: its progress, then the place that it found.

        Nothing where it is gone, or of another plan. While one runs, the place before it is shown.
        """
        how = "search", "place_progress", _no_place(), self.studio.found_place, _place_outputs
        async for outputs in show_of_plan(self.studio, plan_id, begun, "place", placed, *how):
            yield outputs


def _place_outputs(plan: Plan, found: FoundPlace, snapshot: Snapshot) -> PlaceOutputs:
    """Show the place that a job has found."""
    return PlaceOutputs(
        place_progress=views.progress(snapshot),
        place=gr.Column(visible=True),
        place_sentence=views.quote(found.prompt) + views.line(place_sentence(found.place)),
        place_gallery=[(serve_image(picture), caption) for picture, caption in place_view(plan, found.place)],
        placed=snapshot.id,
    )


def _no_place(**others: Any) -> PlaceOutputs:
    hidden = unchanged(PlaceOutputs, place=gr.Column(visible=False), placed="")
    return hidden._replace(**{"place_progress": ""} | others)
