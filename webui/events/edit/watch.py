"""Edits that run are followed to their end, here or aside, and shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import gradio as gr

from webui import views
from webui.events.common.follow import follow
from webui.events.common.outputs import (
    WatchOutputs,
    unchanged,
)
from webui.events.edit.result import compare_outputs
from webui.jobs.finished import FinishedEdit
from webui.jobs.queue import Snapshot, Watched
from webui.messages import message, refusal
from webui.studio import Studio


class WatchEvents:
    """Follows the edits of a tab (`Watched`)."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    async def watch(self, job_id: str, watched: Watched | None = None) -> AsyncIterator[WatchOutputs]:
        """Follow a job to its end: status, progress, then source, edit, files and report.

        That it has failed is told as it happens, and of a job of this tab; later it only stands there.
        """
        watched = watched or Watched()
        snapshot = self.studio.jobs.snapshot(job_id) if job_id else None
        if snapshot is None:
            yield unchanged(WatchOutputs, job_status=views.status(None), progress="")
            return
        told = not snapshot.finished or job_id in watched.here
        if job_id not in (*watched.here, *watched.aside):
            watched.here.append(job_id)
        async for snapshot in follow(self.studio.jobs, job_id):
            outputs = await asyncio.to_thread(_watch_outputs, snapshot)
            if job_id not in watched.aside:
                yield outputs
            if job_id in watched.aside:  # another video is shown by now, or another edit
                if not watched.here:  # what was on its way here when the video changed
                    yield unchanged(WatchOutputs, progress="", result=gr.Column(visible=False))
                return
        if snapshot.state == "failed" and told:
            gr.Warning(message(snapshot.problem))

    async def watch_begun(self, job_id: str, watched: Watched) -> AsyncIterator[WatchOutputs]:
        """After a reload and a planning: the edit that came after it; refused if there is none, or it is followed."""
        if job_id in watched.here or self.studio.jobs.snapshot(job_id or "") is None:
            raise refusal("there is nothing new to follow", visible=False)
        async for outputs in self.watch(job_id, watched):
            yield outputs

    async def watch_aside(self, watched: Watched) -> AsyncIterator[str]:
        """Follow the edits that go on aside, one line for each."""
        running: list[str] = []
        while True:
            jobs = {job_id: self.studio.jobs.snapshot(job_id) for job_id in dict.fromkeys(watched.aside)}
            known = {job_id: snapshot for job_id, snapshot in jobs.items() if snapshot is not None}
            running += [job_id for job_id, snapshot in known.items() if not snapshot.finished and job_id not in running]
            yield views.aside([known[job_id] for job_id in running if job_id in known])
            if all(known[job_id].finished for job_id in running if job_id in known):
                return
            await asyncio.sleep(1)

    def go_on_aside(self, job_ids: str, shown: str, watched: Watched) -> None:
        """After a reload: the edits of this browser that run still, but for the one that is shown."""
        for job_id in map(str, json.loads(job_ids or "[]")):
            snapshot = self.studio.jobs.snapshot(job_id)
            if snapshot is not None and snapshot.kind == "edit" and not snapshot.finished and job_id != shown:
                watched.aside.append(job_id)

    def choose_shown(self, shown: str, watched: Watched) -> str:
        """The job of the edit to show; one that runs goes on aside."""
        watched.turn_to(shown)
        return shown

    def show_again(self, shown_job: str, job_id: str) -> WatchOutputs:
        """After a reload: the edit that was shown while another ran, or after that was stopped."""
        snapshot = self.studio.jobs.snapshot(shown_job or "")
        if shown_job == job_id or snapshot is None or not isinstance(snapshot.result, FinishedEdit):
            return unchanged(WatchOutputs)
        return _watch_outputs(snapshot)._replace(progress=gr.skip())


def _watch_outputs(snapshot: Snapshot) -> WatchOutputs:
    status, progress = views.status(snapshot), views.progress(snapshot)
    finished = snapshot.result
    if not isinstance(finished, FinishedEdit):
        return unchanged(WatchOutputs, job_status=status, progress=progress)
    middle, last = len(finished.after) // 2, max(1, len(finished.after) - 1)
    first, end = finished.stretch or (0, len(finished.after))  # a stretch is made again until it fits
    comparison = compare_outputs(finished, middle)
    return WatchOutputs(
        job_status=status,
        progress=progress,
        result=gr.Column(visible=True),
        about=views.quote(finished.prompt) + views.line(f"Edit of {finished.video}.{views.how(finished)}"),
        source=str(finished.source),
        edited=str(finished.edit),
        compared_frame=gr.Slider(value=middle, maximum=last),
        compared=comparison.compared,
        compared_line=comparison.compared_line,
        scores=views.scores(finished.scores),
        warnings=views.notice(finished.warnings),
        rims=views.rims(finished),
        first=gr.Slider(value=first, maximum=last),
        end=gr.Slider(value=end, maximum=last + 1),
        stretch_pictures="",
        retake_prompt=gr.skip() if finished.stretch else "",
        video_file=str(finished.delivered),
        small_file=gr.DownloadButton(value=str(finished.edit), visible=finished.delivered != finished.edit),
        report_file=str(finished.report),
        project_file=gr.DownloadButton(
            value=finished.project and str(finished.project), visible=finished.project is not None
        ),
        command=finished.command,
        report=json.loads(finished.report.read_text(encoding="utf-8")),
        shown_job=snapshot.id,
    )
