"""Finished edits: compared with their source or with one another, and listed."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import gradio as gr
import numpy as np

from webui import views
from webui.events.common.outputs import (
    BesideOutputs,
    CompareOutputs,
    HistoryOutputs,
    unchanged,
)
from webui.jobs.finished import FinishedEdit
from webui.served_images import serve_image
from webui.studio import Studio
from webui.views import labels

_MOST_EDITS = 12  # that are listed as edits so far


class ResultEvents:
    """Shows finished edits, known by the ids of their jobs."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def compare(self, job_id: str, number: float, beside: str = "") -> CompareOutputs:
        """Frame `number` (from 0) of a finished edit beside its source or, given that one's job, another edit."""
        finished = self.studio.finished(job_id)
        if finished is None:
            return unchanged(CompareOutputs)
        return compare_outputs(finished, int(number), self.studio.finished(beside))

    def history(self, job_ids: str, shown: str) -> HistoryOutputs:
        """The last finished ones of the edits that a browser remembers (a JSON list, newest first).

        Beside a retake stands the take before it.
        """
        edits = self._edits(job_ids)
        finished = edits.get(shown)
        beside = finished.parent if finished and finished.parent in edits else ""
        pictures = self.show_beside(shown, beside, len(finished.after) // 2 if finished else 0)
        chosen = {"value": shown if shown in edits else None}, {"value": beside}
        return _history_outputs(edits, _numbers(job_ids), shown, *chosen)._replace(**pictures._asdict())

    def more_history(self, job_ids: str, shown: str) -> HistoryOutputs:
        """The same where an edit has ended aside: what is shown, and what stands beside it, stays."""
        return _history_outputs(self._edits(job_ids), _numbers(job_ids), shown, {}, {})

    def _edits(self, job_ids: str) -> dict[str, FinishedEdit]:
        found = ((str(job_id), self.studio.finished(str(job_id))) for job_id in json.loads(job_ids or "[]"))
        return dict(islice(((job_id, edit) for job_id, edit in found if edit is not None), _MOST_EDITS))

    def show_beside(self, job_id: str, beside: str, number: float) -> BesideOutputs:
        """Another finished edit in the place of the source."""
        finished, other = self.studio.finished(job_id), self.studio.finished(beside)
        if finished is None:
            return unchanged(BesideOutputs)
        video = gr.Video(str(finished.source), label=labels.SOURCE)
        if other is not None:
            video = gr.Video(str(other.edit), label=f"Edit: {other.prompt}")
        return BesideOutputs(video, *compare_outputs(finished, int(number), other))


def compare_outputs(finished: FinishedEdit, frame: int, other: FinishedEdit | None = None) -> CompareOutputs:
    frame = min(max(frame, 0), len(finished.after) - 1)
    left = finished.before if other is None else other.after
    name = "the source" if other is None else f"“{other.prompt}”"
    pair = left[min(frame, len(left) - 1)], finished.after[frame]
    return CompareOutputs(
        compared=tuple(serve_image(np.asarray(picture)) for picture in pair),
        compared_line=views.line(f"{finished.seconds(frame):.2f} s, frame {frame}: {name} to the left of the line"),
    )


def _numbers(job_ids: str) -> dict[str, int]:
    """The numbers of the edits that a browser remembers, from its first one on: an edit keeps its own."""
    remembered = json.loads(job_ids or "[]")
    return {str(job_id): len(remembered) - place for place, job_id in enumerate(remembered)}


def _history_outputs(
    edits: dict[str, FinishedEdit],
    numbers: dict[str, int],
    shown: str,
    chosen: dict[str, Any],
    beside: dict[str, Any],
) -> HistoryOutputs:
    """All edits; `chosen` and `beside` are what is said to the lists beside their choices."""
    names = [(views.edit_name(edit, numbers[key]), key) for key, edit in edits.items()]
    others = [(name, key) for name, key in names if key != shown]
    return unchanged(
        HistoryOutputs,
        history=gr.Accordion(visible=bool(others)),
        history_table=views.history({numbers[key]: edit for key, edit in edits.items()}),
        shown=gr.Dropdown(choices=names, **chosen),
        beside=gr.Dropdown(choices=[("its source", ""), *others], visible=shown in edits, **beside),
    )
