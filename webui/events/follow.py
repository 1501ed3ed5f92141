"""What the events of the page share: refusals, following a job."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from adaflow_core.types import AdaFlowError
from webui.jobs import Jobs, Snapshot
from webui.wording import sentence, without_folders

CLIPS = Path(__file__).resolve().parent.parent / "assets" / "clips"
_LOOK = 0.3  # seconds between two looks at a job


@contextmanager
def told() -> Iterator[None]:
    """What the user can mend is said in its own sentence, never as a traceback."""
    try:
        yield
    except AdaFlowError as problem:
        raise refusal(str(problem)) from None


def refusal(problem: str, title: str = "Not possible") -> gr.Error:
    return gr.Error(said(problem), title=title, print_exception=False)


def said(problem: str) -> str:
    """A problem as Gradio's messages take it: they read HTML, and what a visitor typed may stand in it."""
    return escape(sentence(without_folders(problem)), quote=False)


def load_clips(folder: Path = CLIPS) -> list[dict[str, str]]:
    """The bundled clips: file, title, kind, source_prompt and prompt of each; none if they are not there."""
    index = folder / "clips.json"
    if not index.is_file():
        return []
    clips = json.loads(index.read_text(encoding="utf-8"))
    return [{**clip, "file": str(folder / clip["file"])} for clip in clips if (folder / clip["file"]).is_file()]


async def follow(jobs: Jobs, job_id: str) -> AsyncIterator[Snapshot]:
    """A job's snapshots, one at a time as it moves on, the last one when it is over."""
    seen: object = None
    while (snapshot := jobs.snapshot(job_id)) is not None:
        step = snapshot.progress and (snapshot.progress.stage, snapshot.progress.done)
        mark = (snapshot.state, step, snapshot.stopping, snapshot.ahead, int(snapshot.elapsed))
        if mark != seen or snapshot.over:
            yield snapshot
        if snapshot.over:
            return
        seen = mark
        await asyncio.sleep(_LOOK)


def stop_job(jobs: Jobs, job_id: str) -> None:
    if not jobs.stop(job_id or ""):
        gr.Info("There is nothing to stop.")


def unchanged(count: int) -> list[Any]:
    """As many outputs left as they are."""
    return [gr.skip() for _ in range(count)]
