"""Step 3 of the page: what the events of prompt, edit and result do, one method per event."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr
import numpy as np

from adaflow_core.config import EditConfig
from webui import views
from webui.events import follow, refusal, said, stop_job, told, unchanged
from webui.jobs import Snapshot
from webui.pictures import shown
from webui.studio import Studio
from webui.work import Edited

_RESULT_VIEWS = 13  # outputs that show a finished edit


class EditEvents:
    """Jobs run on the server whether or not anybody watches; a visitor holds their ids."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def check_prompt(self, prompt: str, model: str = "") -> str:
        """Which words of a prompt the model does not know, and what of it is too long."""
        with told():
            return views.notice(self.studio.doubts(prompt or "", model or ""))

    def begin(self, prompt: str) -> None:
        """Say at once what would otherwise be said after planning."""
        if not (prompt or "").strip():
            raise refusal("the prompt is empty; say what the video should show")

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
    ) -> str:
        """Start an edit of the plan; returns the job's id, for `watch` and `stop`."""
        with told():
            config = EditConfig(
                steps=int(steps),
                guidance=guidance,
                negative_prompt=(negative_prompt or "").strip() or None,
                injection_attention=injection,
                injection_conv=injection_conv,
                seed=int(seed),
            )
            return self.studio.edit(plan_id, prompt or "", config)

    async def watch(self, job_id: str) -> AsyncIterator[tuple[Any, ...]]:
        """Follow a job to its end: status, progress, then source, edit, files and report."""
        snapshot = self.studio.jobs.snapshot(job_id) if job_id else None
        if snapshot is None:
            yield (views.status(None), "", *unchanged(_RESULT_VIEWS))
            return
        async for snapshot in follow(self.studio.jobs, job_id):
            yield (views.status(snapshot), views.progress(snapshot), *_results(snapshot))
        if snapshot.state == "failed":
            gr.Warning(said(snapshot.problem))

    def compare(self, job_id: str, number: float) -> tuple[Any, ...]:
        """Frame `number` (from 0) of a finished edit: source and edit, and when it is."""
        snapshot = self.studio.jobs.snapshot(job_id or "")
        edited = snapshot.result if snapshot is not None else None
        if not isinstance(edited, Edited):
            return gr.skip(), gr.skip()
        return _compared(edited, min(max(int(number), 0), len(edited.after) - 1))

    def stop(self, job_id: str) -> None:
        """Ask a job to end; it does so at its next look, within two seconds of compute."""
        stop_job(self.studio.jobs, job_id)


def _compared(edited: Edited, frame: int) -> tuple[Any, str]:
    pictures = shown(np.asarray(edited.before[frame])), shown(np.asarray(edited.after[frame]))
    return pictures, views.line(f"{frame / edited.fps:.2f} s, frame {frame}: the source to the left of the line")


def _results(snapshot: Snapshot) -> list[Any]:
    """What a finished edit shows, in the order of `EditStep.shown`; nothing new before that."""
    edited = snapshot.result
    if not isinstance(edited, Edited):
        return unchanged(_RESULT_VIEWS)
    report = json.loads(edited.report.read_text(encoding="utf-8"))
    middle = len(edited.after) // 2
    return [
        gr.Column(visible=True),
        views.quote(edited.prompt) + views.line("Plan and inversion were reused." if edited.reused else ""),
        str(edited.source),
        str(edited.edit),
        gr.Slider(value=middle, maximum=max(1, len(edited.after) - 1)),
        *_compared(edited, middle),
        views.scores(edited.scores),
        views.notice(edited.warnings),
        str(edited.edit),
        str(edited.report),
        edited.command,
        report,
    ]
