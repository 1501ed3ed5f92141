"""What the events of the page share: limits, refusals, following a job."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from adaflow_core.types import AdaFlowError, VideoInfo
from adaflow_core.video import probe
from webui import views
from webui.jobs import Jobs, Snapshot

CLIPS = Path(__file__).resolve().parent.parent / "assets" / "clips"
_LOOK = 0.3  # seconds between two looks at a job


@dataclass(frozen=True)
class Limits:
    """What an upload may be; said on the page before anything is uploaded."""

    megabytes: int = 200
    seconds: float = 120.0
    side: int = 4096  # pixels

    def __str__(self) -> str:
        return f"up to {self.seconds:g} s, {self.megabytes} MB and {self.side} pixels a side"

    def check(self, path: str) -> VideoInfo:
        info = probe(path)
        if info.seconds > self.seconds:
            raise AdaFlowError(
                f"the video lasts {info.seconds:.0f} s; this page takes up to {self.seconds:g} s: "
                "cut it, or start the app with a higher --max-seconds"
            )
        if max(info.width, info.height) > self.side:
            raise AdaFlowError(
                f"the video has {info.width}x{info.height} pixels; this page takes up to {self.side} a side: "
                "scale it down first"
            )
        return info


@contextmanager
def told() -> Iterator[None]:
    """What the user can mend is said in its own sentence, never as a traceback."""
    try:
        yield
    except AdaFlowError as problem:
        raise refusal(str(problem)) from None


def refusal(problem: str, title: str = "Not possible") -> gr.Error:
    return gr.Error(views.sentence(problem), title=title, print_exception=False)


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
