"""Events of step 3 (prompt, edit and result), one handler per event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr
import numpy as np

from adaflow_core.config import EditConfig
from adaflow_core.report.visualize import place_sentence, place_view
from webui import views
from webui.events.follow import follow, stop_job
from webui.jobs.queue import Snapshot
from webui.jobs.tasks import FinishedEdit
from webui.messages import message, refusal, refuse_on_error
from webui.outputs import BesideOutputs, CompareOutputs, HistoryOutputs, PlaceOutputs, WatchOutputs, unchanged
from webui.served_images import serve_image
from webui.studio import Studio


class EditEvents:
    """Edits run on the server whether or not anybody watches; a visitor knows them by their job's id."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def check_prompt(self, prompt: str, model: str = "", negative_prompt: str = "") -> str:
        """Which words of the prompts the model does not know, which are no words, and what is too long."""
        with refuse_on_error():
            problems = self.studio.prompt_problems(prompt or "", model or "")
            return views.notice(
                problems + self.studio.prompt_problems(negative_prompt or "", model or "", "negative prompt")
            )

    def check_not_empty(self, prompt: str) -> None:
        """Refuse an empty prompt before planning starts."""
        if not (prompt or "").strip():
            raise refusal("the prompt is empty; say what the video should show")

    async def place(
        self, plan_id: str | None, prompt: str, focus: float, structure_by_words: bool, structure: float
    ) -> AsyncIterator[PlaceOutputs]:
        """Show where an edit of the plan to this prompt would change the video."""
        with refuse_on_error():
            config = EditConfig(focus=focus, structure=None if structure_by_words else structure)
            job_id, snapshot = self.studio.place(plan_id, prompt or "", config), None
        stored = self.studio.find_plan(plan_id)
        async for snapshot in follow(self.studio.jobs, job_id):
            if not snapshot.finished:
                yield unchanged(PlaceOutputs, place_job_id=job_id, place_progress=views.progress(snapshot))
        done = unchanged(PlaceOutputs, place_job_id="", place_progress="")
        if stored is None or snapshot is None or snapshot.state != "done":
            yield done
            if snapshot is not None and snapshot.state == "failed":
                raise refusal(snapshot.problem)
            raise refusal("the search was stopped", title="Stopped")
        items = await asyncio.to_thread(place_view, stored.plan, snapshot.result)
        yield done._replace(
            place=gr.Column(visible=True),
            place_sentence=views.quote(prompt) + views.line(place_sentence(snapshot.result)),
            place_gallery=[(serve_image(picture), caption) for picture, caption in items],
        )

    def edit(
        self,
        plan_id: str | None,
        prompt: str,
        negative_prompt: str,
        steps: float,
        guidance: float,
        injection: float,
        injection_conv: float,
        seed: float,
        focus: float,
        structure_by_words: bool,
        structure: float,
        smoothing: float,
    ) -> str:
        """Start an edit of the plan; returns the job's id, for `watch` and `stop`."""
        with refuse_on_error():
            config = EditConfig(
                steps=int(steps),
                guidance=guidance,
                negative_prompt=(negative_prompt or "").strip() or None,
                injection_attention=injection,
                injection_conv=injection_conv,
                seed=int(seed),
                focus=focus,
                structure=None if structure_by_words else structure,
                smoothing=smoothing,
            )
            return self.studio.edit(plan_id, prompt or "", config)

    async def watch(self, job_id: str) -> AsyncIterator[WatchOutputs]:
        """Follow a job to its end: status, progress, then source, edit, files and report."""
        snapshot = self.studio.jobs.snapshot(job_id) if job_id else None
        if snapshot is None:
            yield unchanged(WatchOutputs, status=views.status(None), progress="")
            return
        async for snapshot in follow(self.studio.jobs, job_id):
            yield _watch_outputs(snapshot)
        if snapshot.state == "failed":
            gr.Warning(message(snapshot.problem))

    def compare(self, job_id: str, number: float, beside: str = "") -> CompareOutputs:
        """Frame `number` (from 0) of a finished edit beside its source or, given that one's job, another edit."""
        finished = self._finished(job_id)
        if finished is None:
            return unchanged(CompareOutputs)
        return _compare_outputs(finished, int(number), self._finished(beside))

    def history(self, job_ids: str, shown: str) -> HistoryOutputs:
        """The finished ones of the edits that a browser remembers (a JSON list, newest first)."""
        edits = {job_id: edit for job_id in json.loads(job_ids or "[]") if (edit := self._finished(str(job_id)))}
        names = [(views.edit_name(edit, len(edits) - place), key) for place, (key, edit) in enumerate(edits.items())]
        others = [(name, key) for name, key in names if key != shown]
        return HistoryOutputs(
            history=gr.Accordion(visible=len(edits) > 1),
            history_table=views.history(list(edits.values())),
            shown=gr.Dropdown(choices=names, value=shown if shown in edits else None),
            beside=gr.Dropdown(choices=[("its source", ""), *others], value=""),
            source=gr.Video(label=views.SOURCE),  # it may have been another edit's
        )

    def show_beside(self, job_id: str, beside: str, number: float) -> BesideOutputs:
        """Another finished edit in the place of the source."""
        finished, other = self._finished(job_id), self._finished(beside)
        if finished is None:
            return unchanged(BesideOutputs)
        video = gr.Video(str(finished.source), label=views.SOURCE)
        if other is not None:
            video = gr.Video(str(other.edit), label=f"Edit: {other.prompt}")
        return BesideOutputs(video, *_compare_outputs(finished, int(number), other))

    def _finished(self, job_id: str | None) -> FinishedEdit | None:
        snapshot = self.studio.jobs.snapshot(job_id or "")
        return snapshot.result if snapshot is not None and isinstance(snapshot.result, FinishedEdit) else None

    def stop(self, job_id: str, place_job_id: str = "") -> Any:
        """Stop a job, and the search for a place; they end within two seconds of compute."""
        return stop_job(self.studio.jobs, job_id, place_job_id)


def _compare_outputs(finished: FinishedEdit, frame: int, other: FinishedEdit | None = None) -> CompareOutputs:
    frame = min(max(frame, 0), len(finished.after) - 1)
    left = finished.before if other is None else other.after
    name = "the source" if other is None else f"“{other.prompt}”"
    pair = left[min(frame, len(left) - 1)], finished.after[frame]
    return CompareOutputs(
        compared=tuple(serve_image(np.asarray(picture)) for picture in pair),
        compared_line=views.line(f"{frame / finished.fps:.2f} s, frame {frame}: {name} to the left of the line"),
    )


def _watch_outputs(snapshot: Snapshot) -> WatchOutputs:
    status, progress = views.status(snapshot), views.progress(snapshot)
    finished = snapshot.result
    if not isinstance(finished, FinishedEdit):
        return unchanged(WatchOutputs, status=status, progress=progress)
    middle = len(finished.after) // 2
    comparison = _compare_outputs(finished, middle)
    return WatchOutputs(
        status=status,
        progress=progress,
        result=gr.Column(visible=True),
        about=views.quote(finished.prompt)
        + views.line(f"Edit of {finished.video}." + (" Plan and inversion were reused." if finished.reused else "")),
        source=str(finished.source),
        edited=str(finished.edit),
        compared_frame=gr.Slider(value=middle, maximum=max(1, len(finished.after) - 1)),
        compared=comparison.compared,
        compared_line=comparison.compared_line,
        scores=views.scores(finished.scores),
        warnings=views.notice(finished.warnings),
        video_file=str(finished.edit),
        report_file=str(finished.report),
        command=finished.command,
        report=json.loads(finished.report.read_text(encoding="utf-8")),
    )
