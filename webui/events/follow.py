"""How event handlers follow a job and stop it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from webui import views
from webui.jobs.queue import Jobs, Snapshot
from webui.messages import refusal

_INTERVAL = 0.3  # seconds between two looks at a job


async def follow(jobs: Jobs, job_id: str) -> AsyncIterator[Snapshot]:
    """Snapshots of a job, one whenever it has moved on; the last one when it has finished."""
    seen: object = None
    while (snapshot := jobs.snapshot(job_id)) is not None:
        step = snapshot.progress and (snapshot.progress.stage, snapshot.progress.done)
        mark = (snapshot.state, step, snapshot.stopping, snapshot.ahead, int(snapshot.elapsed))
        if mark != seen or snapshot.finished:
            yield snapshot
        if snapshot.finished:
            return
        seen = mark
        await asyncio.sleep(_INTERVAL)


def not_done(snapshot: Snapshot | None, what: str) -> gr.Error:
    """What is said of a job without a result; `what` it was, if it was stopped."""
    if snapshot is not None and snapshot.state == "failed":
        return refusal(snapshot.problem)
    return refusal(f"the {what} was stopped", title="Stopped")


def stop_job(jobs: Jobs, *job_ids: str) -> Any:
    """Stop these jobs; what is shown as their progress. Gradio's messages need its queue, and stopping goes past it."""
    stopped = [jobs.stop(job_id or "") for job_id in job_ids]  # a list: each of them is stopped
    return gr.skip() if any(stopped) else views.line("Nothing is running that could be stopped.")
