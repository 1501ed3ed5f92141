"""How event handlers follow a job, stop it, and leave it with the video that it was for."""

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
    """Snapshots of a job, one whenever it has moved on; the last one when it has finished, none once it was left."""
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
    """Outputs of a job: its progress while it runs, then what is made of its result.

    The event ends as one that failed where there is no result; `what` the job was is said of one that was stopped.
    `where`: the name of the output that shows its progress. `gone` takes away what was made. A job that was replaced by
    another shows nothing any more.
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
    """As `show_job`, of a tab's "draft" or "place" of a plan, `kind`: the one that runs, else the one that is made.

    `gone` where job or plan is not there, or what was made is of another plan. `made_before`: the job of what was made
    last, which is shown first, as the one that runs may come to nothing.
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
    """What a job has made. If the job was left meanwhile it is taken away, and the event ends as one that failed, so
    that none follows it."""
    snapshot = jobs.snapshot(job_id)
    if snapshot is None or not snapshot.left:
        yield shown
        snapshot = jobs.snapshot(job_id)
    if snapshot is not None and snapshot.left:
        if not snapshot.replaced:
            yield taken_away
        raise not_done(snapshot, "job")


def is_over(jobs: Jobs, job_id: str) -> bool:
    """Whether nothing is left of a job that could be stopped. An event that follows it may end before, with the
    connection of its tab."""
    snapshot = jobs.snapshot(job_id)
    return snapshot is None or snapshot.finished or snapshot.stopping


def leave_video(jobs: Jobs, begun: Begun, region_job_id: str) -> None:
    """There is another video: what is made of the one before ends. Edits go on (`Watched`), and so does a model that
    is being loaded."""
    for job_id in (*begun.of_video, region_job_id):
        jobs.leave(job_id or "")


def not_done(snapshot: Snapshot | None, what: str) -> gr.Error:
    """What ends the event of a job without a result; of one that was stopped nothing is said but `stopped_line`."""
    if snapshot is not None and snapshot.state == "failed" and not snapshot.left:
        return refusal(snapshot.problem)
    return refusal(_was_stopped(what), visible=False)


def stopped_line(snapshot: Snapshot | None, what: str) -> str:
    """What stands in the place of the progress of a job that has ended without a result; `what` it was."""
    stopped = snapshot is not None and snapshot.stopping and snapshot.state != "failed" and not snapshot.left
    return views.line(sentence(_was_stopped(what)) + ".") if stopped else ""


def _was_stopped(what: str) -> str:
    return f"the {what} was stopped"


def stop_job(jobs: Jobs, *job_ids: str, else_these: Iterable[str] = ()) -> Any:
    """Stop these jobs, or others where none of these runs; what is shown as their progress.

    Gradio's messages need its queue, and stopping goes past it.
    """
    stopped = [jobs.stop(job_id or "") for job_id in job_ids]  # a list: each of them is stopped
    if not any(stopped):
        stopped = [jobs.stop(job_id) for job_id in else_these]
    return gr.skip() if any(stopped) else views.line("Nothing is running that could be stopped.")
