"""Helpers of event handlers to follow a job, stop it, and abandon it when its video is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, TypeVar

import gradio as gr

from adaflow_core.types import Plan
from webui import views
from webui.events.common.outputs import Outputs, unchanged
from webui.jobs.queue import Begun, Jobs, Snapshot
from webui.kept import StoredPlan
from webui.messages import refusal, sentence
from webui.studio import Studio

Made = TypeVar("Made")

_INTERVAL = 0.3  # seconds between two looks at a job


async def follow(jobs: Jobs, job_id: str) -> AsyncIterator[Snapshot]:
    """Yield a snapshot of a job whenever it has made progress, and a last one when it has finished.

    Ends without a further snapshot if the job was abandoned (`Snapshot.left`) or is unknown.
    """
    seen: object = None
    while (snapshot := jobs.snapshot(job_id)) is not None and not snapshot.left:
        step = snapshot.progress and (snapshot.progress.stage, snapshot.progress.done)
        mark = (snapshot.state, step, snapshot.stopping, snapshot.ahead, int(snapshot.elapsed))
        if mark != seen or snapshot.finished:
            yield snapshot
        if snapshot.finished:
            return
        seen = mark
        await asyncio.sleep(_INTERVAL)


async def show_job(
    jobs: Jobs, job_id: str, what: str, where: str, gone: Outputs, make: Callable[[Snapshot], Outputs]
) -> AsyncIterator[Outputs]:
    """Show the progress of a job while it runs, then the outputs that `make` builds from its last snapshot.

    `where` is the name of the output that shows the progress, and `what` names the job in the message that it was
    stopped. `gone` are the outputs that remove the result again, if the job is abandoned while they are being made.
    Without a result the event fails, so that no event follows it. A job that was replaced by another shows nothing
    more.
    """

    def told(progress: str) -> Outputs:
        return unchanged(type(gone), **{where: progress})

    snapshot = None
    async for snapshot in follow(jobs, job_id):
        if not snapshot.finished:
            yield told(views.progress(snapshot))
    if snapshot is None or snapshot.state != "done" or snapshot.stopping:
        snapshot = jobs.snapshot(job_id)
        if snapshot is None or not snapshot.replaced:
            yield told(stopped_line(snapshot, what))
        raise not_done(snapshot, what)
    try:
        made = await asyncio.to_thread(make, snapshot)
    except Exception:
        yield told("")
        raise
    async for outputs in show_unless_left(jobs, job_id, made, gone):
        yield outputs


async def show_of_plan(
    studio: Studio,
    plan_id: str | None,
    begun: Begun,
    kind: str,
    made_before: str,
    what: str,
    where: str,
    gone: Outputs,
    find: Callable[[str, StoredPlan], Made | None],
    show: Callable[[Plan, Made, Snapshot], Outputs],
) -> AsyncIterator[Outputs]:
    """Do the same as `show_job` for the tab's running job of a `kind` ("draft" or "place"), else for `made_before`.

    `made_before` is the job of the last finished result. It is shown first, because the running job may fail. Shows
    `gone` if the job or the plan does not exist any more, or if the result belongs to another plan.
    """
    job_id: str = getattr(begun, kind) or made_before
    stored = studio.kept.find_plan(plan_id)

    def make(snapshot: Snapshot) -> Outputs:
        found = None if stored is None else find(snapshot.id, stored)
        return gone if stored is None or found is None else show(stored.plan, found, snapshot)

    try:
        if stored is None or studio.jobs.snapshot(job_id) is None:
            yield gone
            return
        last = studio.jobs.snapshot(made_before) if made_before != job_id else None
        if last is not None and find(made_before, stored) is not None:
            yield await asyncio.to_thread(make, last)
        async for outputs in show_job(studio.jobs, job_id, what, where, gone, make):
            yield outputs
    finally:
        if getattr(begun, kind) == job_id and is_over(studio.jobs, job_id):
            setattr(begun, kind, "")


async def show_unless_left(jobs: Jobs, job_id: str, shown: Outputs, taken_away: Outputs) -> AsyncIterator[Outputs]:
    """Show what a job has made, unless the job was abandoned meanwhile.

    In that case the result is taken away, and the event fails, so that no event follows it.
    """
    snapshot = jobs.snapshot(job_id)
    if snapshot is None or not snapshot.left:
        yield shown
        snapshot = jobs.snapshot(job_id)
    if snapshot is not None and snapshot.left:
        if not snapshot.replaced:
            yield taken_away
        raise not_done(snapshot, "job")


def is_over(jobs: Jobs, job_id: str) -> bool:
    """Whether a job has finished or is stopping, or is unknown, so that there is nothing to stop.

    An event that follows a job may end earlier than the job, when its tab loses the connection.
    """
    snapshot = jobs.snapshot(job_id)
    return snapshot is None or snapshot.finished or snapshot.stopping


def leave_video(jobs: Jobs, begun: Begun, region_job_id: str) -> None:
    """Abandon the jobs of the previous video: plannings, drafts and searches.

    Edits go on (`Watched`), and so does the loading of a model.
    """
    for job_id in (*begun.of_video, region_job_id):
        jobs.leave(job_id or "")


def not_done(snapshot: Snapshot | None, what: str) -> gr.Error:
    """Return the error that ends the event of a job without a result.

    It is shown only if the job failed; that a job was stopped is said by `stopped_line`.
    """
    if snapshot is not None and snapshot.state == "failed" and not snapshot.left:
        return refusal(snapshot.problem)
    return refusal(_was_stopped(what), visible=False)


def stopped_line(snapshot: Snapshot | None, what: str) -> str:
    """Return the line that replaces the progress of a job (`what`) that was stopped; "" if it was not stopped."""
    stopped = snapshot is not None and snapshot.stopping and snapshot.state != "failed" and not snapshot.left
    return views.line(sentence(_was_stopped(what)) + ".") if stopped else ""


def _was_stopped(what: str) -> str:
    return f"the {what} was stopped"


def stop_job(jobs: Jobs, *job_ids: str, else_these: Iterable[str] = ()) -> Any:
    """Stop these jobs, or `else_these` if none of them runs, and return the progress output.

    If nothing runs, that is said in the progress output, because Gradio's messages need its queue, which stopping
    bypasses.
    """
    stopped = [jobs.stop(job_id or "") for job_id in job_ids]  # a list: each of them is stopped
    if not any(stopped):
        stopped = [jobs.stop(job_id) for job_id in else_these]
    return gr.skip() if any(stopped) else views.line("Nothing is running that could be stopped.")
