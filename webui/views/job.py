"""A job: its stage, its bar and the time that it has left."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from adaflow_core.errors import counted
from adaflow_core.report.overlays import tile
from webui.jobs.queue import Snapshot
from webui.messages import sentence
from webui.views.labels import DRAFTS, EDITS, PLACE, RESULT
from webui.views.pictures import data_url
from webui.views.text import duration

_STAGES = {
    "load": "Loading the model",
    "download": "Downloading the model",
    "decode": "Reading frames",
    "cuts": "Finding cuts",
    "encode": "Encoding frames",
    "features": "Looking at every frame",
    "similarity": "Comparing frames",
    "refine": "Refining keyframes",
    "borders": "Dividing frames among keyframes",
    "slim": "Comparing the keyframes' tokens",
    "match": "Matching frames to keyframes",
    "measure": "Measuring this machine",
    "invert": "Inverting the source",
    "place": "Finding where it changes",
    "edit": "Editing",
    "decode source": "Decoding the source",
    "decode frames": "Decoding the edited frames",
    "flow": "Following the motion",
    "choose": "Finding the frames to edit",
    "smooth": "Smoothing flicker",
    "carry": "Carrying the edit to the frames between",
    "residual": "Measuring how frames follow keyframes",
    "score": "Scoring the edit",
    "write": "Writing the video",
}
_KINDS = {"plan": "Preview", "load": "Model", "place": "Search"}  # job kinds whose name on the page differs


def progress(snapshot: Snapshot) -> str:
    """Stage, bar, time left and preview of a job. One piece of HTML, because separate outputs would flicker."""
    title, detail, share = _headline(snapshot)
    # The result may be a screen further down.
    place = {"edit": RESULT, "draft": DRAFTS, "place": PLACE}.get(snapshot.kind)
    link = f' <a href="#{place}">See it</a>' if place and snapshot.state == "done" else ""
    picture = ""
    if snapshot.preview is not None and not snapshot.finished:
        picture = (
            f'<img class="af-live" src="{data_url(tile(snapshot.preview))}" '
            f'alt="The edit so far: {counted(len(snapshot.preview), "keyframe")}">'
        )
    return _job(snapshot, title, escape(detail) + link, share, _spoken(snapshot, title, detail), picture)


def aside(snapshots: Sequence[Snapshot]) -> str:
    """A line for each edit that goes on, or has ended, while the page shows something else."""
    return "".join(map(_aside, snapshots))


def _aside(snapshot: Snapshot) -> str:
    title, detail, share = _headline(snapshot)
    words = escape(f"{title}, {detail}")
    if snapshot.state == "done":
        words += f'. <a href="#{EDITS}">It is among the edits so far</a>'
    spoken = f"{snapshot.title}: {_spoken(snapshot, title, detail)}"
    return _job(snapshot, snapshot.title, words, share, spoken)


def _spoken(snapshot: Snapshot, title: str, detail: str) -> str:
    """The text for screen readers; without the seconds of a running job, which change all the time."""
    return title if snapshot.state == "running" else f"{title}, {detail}"


def _job(snapshot: Snapshot, title: str, detail: str, share: float, spoken: str, picture: str = "") -> str:
    """A title, which is escaped here, and HTML on a job over its bar. js/access.js says what is `spoken`."""
    return (
        f'<div class="af-job af-{snapshot.state}" data-job="{snapshot.kind} {snapshot.id}" '
        f'data-spoken="{escape(spoken)}">'
        f'<div class="af-job-head"><strong>{escape(title)}</strong><span>{detail}</span></div>'
        f'<div class="af-bar" role="progressbar" aria-label="{escape(snapshot.kind)}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{100 * share:.0f}">'
        f'<div style="width:{share:.1%}"></div></div>{picture}</div>'
    )


def _headline(snapshot: Snapshot) -> tuple[str, str, float]:
    """Title, detail and finished share (0 to 1) of a job."""
    kind = _KINDS.get(snapshot.kind, snapshot.kind.capitalize())
    ran = duration(snapshot.elapsed)
    if snapshot.state == "done":
        return f"{kind} ready", f"took {ran}", 1.0
    if snapshot.state == "stopped":
        return f"{kind} stopped", f"after {ran}" if snapshot.elapsed else "before it began", 0.0
    if snapshot.state == "failed":
        return f"{kind} failed", sentence(snapshot.problem), 0.0
    if snapshot.state == "waiting":
        others = "1 other job first" if snapshot.ahead == 1 else f"{snapshot.ahead} other jobs first"
        if snapshot.loads and snapshot.ahead == 1:
            others = "the model is being loaded"
        return "Waiting", others if snapshot.ahead else "about to begin", 0.0
    step = snapshot.progress
    title = _stage_name(step.stage) if step is not None else "Beginning"
    if snapshot.stopping:
        return "Stopping", title, snapshot.share
    return title, ", ".join(_running(snapshot)), snapshot.share


def _running(snapshot: Snapshot) -> list[str]:
    """What is said of a running job: what is downloaded, the time left in all or in its step, the time so far."""
    step, left, of_what, said = snapshot.progress, snapshot.remaining, "", []
    if step is not None and step.unit:
        said.append(step.amount)
    if left is None and step is not None and step.done < step.total:
        left, of_what = step.remaining, " in this step"
    if left is not None:
        said.append(f"{f'about {duration(left)}' if left >= 1 else 'less than 1 s'} left{of_what}")
    return [*said, f"{duration(snapshot.elapsed)} so far"]


def status(snapshot: Snapshot | None) -> dict[str, object]:
    """The state of a job, for programs."""
    if snapshot is None:
        return {"state": "unknown"}
    step = snapshot.progress
    return {
        "state": snapshot.state,
        "kind": snapshot.kind,
        "jobs_ahead": snapshot.ahead,
        "stage": step.stage if step is not None else None,
        "done": step.done if step is not None else 0,
        "total": step.total if step is not None else 0,
        "seconds": round(snapshot.elapsed, 2),
        "seconds_left": None if snapshot.remaining is None else round(snapshot.remaining, 1),
        "share_done": round(snapshot.share, 3),
        "problem": snapshot.problem,
    }


def _stage_name(stage: str) -> str:
    return _STAGES.get(stage, stage.replace("_", " ").capitalize())
