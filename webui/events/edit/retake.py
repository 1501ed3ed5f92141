"""Retakes: a stretch of a finished edit is chosen and made again."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import asdict
from typing import Any

import gradio as gr

from adaflow_core.config import EditConfig
from adaflow_core.errors import AdaFlowError
from webui import views
from webui.events.common.follow import stop_job
from webui.events.edit.edit import EditEvents
from webui.jobs.finished import FinishedEdit
from webui.jobs.queue import Watched
from webui.messages import refuse_on_error


class RetakeEvents:
    """Makes a stretch of a finished edit again, as an edit of its own."""

    def __init__(self, editing: EditEvents) -> None:
        self.editing, self.studio = editing, editing.studio

    def retake(
        self,
        job_id: str,
        first: float,
        end: float,
        retake_prompt: str,
        retake_seed: float | None,
        retake_variation: float | None,
        watched: Watched | None = None,
    ) -> str:
        """Make frames `first` to `end` (not included) of a finished edit again; returns the job's id, for `watch`."""
        with refuse_on_error():
            snapshot = self.studio.jobs.snapshot(job_id or "")
            finished = self.studio.finished(job_id)
            if snapshot is None or finished is None or finished.asked is None:
                raise AdaFlowError("there is no finished edit to take a stretch from, or no longer; edit first")
            asked = asdict(finished.asked.config)
            other = self.editing.asked(None, ("seed", "variation"), (retake_seed, retake_variation))
            config = EditConfig(**asked | other)
            prompt = (retake_prompt or "").strip() or None
            retake = self.studio.retake(job_id, (int(first), int(end)), prompt, config)
        if watched is not None:
            watched.turn_to(retake)
        return retake

    def begin_here(self, job_id: str, shown_second: float) -> Any:
        """The frame that the edit's video shows at a second, as the first one of a stretch."""
        finished = self.studio.finished(job_id)
        return min(_shown_frame(finished, shown_second), len(finished.after) - 1) if finished else gr.skip()

    def end_here(self, job_id: str, shown_second: float) -> Any:
        """The same as the end of a stretch, which is after the last frame where the video has ended."""
        finished = self.studio.finished(job_id)
        return max(1, _shown_frame(finished, shown_second)) if finished else gr.skip()

    def stretch(self, job_id: str, first: float, end: float) -> str:
        """First and last frame of the stretch, as the edit shows them."""
        finished = self.studio.finished(job_id)
        if finished is None or not 0 <= int(first) < int(end) <= len(finished.after):
            return views.line("The end must come after the first frame.") if finished else ""
        seconds = finished.seconds(int(end)) - finished.seconds(int(first))
        words = f"Frames {int(first)} to {int(end) - 1}, {seconds:.2f} s"
        return views.image(views.strip(finished.after, (int(first), int(end) - 1)), words) + views.line(words)

    def stop_retake(self, retake_job_id: str, job_id: str, watched: Watched) -> Any:
        """Stop the retake, also where another edit is looked at by now; after a reload, what `stop` does."""
        return stop_job(self.studio.jobs, retake_job_id, else_these=(job_id, *watched.aside))


def _shown_frame(finished: FinishedEdit, second: float) -> int:
    """The frame that an edit's video shows at a second, from 0; their number where it has ended."""
    begun = [finished.seconds(frame) for frame in range(1, len(finished.after) + 1)]
    return bisect_right(begun, second + 1e-3 / finished.fps)  # players round the time of a frame
