"""Events of the timeline: a point's matches, a pixel column over time, zoom, plan files, keyframes set by hand."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder

from adaflow_core.config import PlanConfig
from adaflow_core.report import plots
from adaflow_core.report.export import plan_arrays, plan_report
from adaflow_core.types import Plan
from webui import views
from webui.events.common.outputs import MatchOutputs, ZoomOutputs, unchanged
from webui.jobs.finished import file_name
from webui.kept import StoredPlan
from webui.messages import refusal, refuse_on_error
from webui.served_images import serve_image
from webui.studio import Studio
from webui.views.labels import ADD, AUTOMATIC, MOVE

LEAST = 16  # frames that the plots show at the largest zoom
Window = tuple[int, int] | None  # first and end of the frames that are shown; None: all


class TimelineEvents:
    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def matches(self, plan_id: str | None, number: float, x: float, y: float) -> MatchOutputs:
        """Show the matches in the keyframes of the point (x, y), in pixels, of frame `number` (from 0)."""
        items, sentence = views.match_items(self._find(plan_id).plan, int(number), x, y)
        served = [(serve_image(picture), caption) for picture, caption in items]
        return MatchOutputs(matches=gr.Gallery(served, visible=bool(items)), match_sentence=views.line(sentence))

    def column(self, plan_id: str | None, column: float, window: Window = None) -> str:
        """Show one pixel column (from 0) of every frame in `window`, side by side."""
        plan = self._find(plan_id).plan
        column = min(max(int(column), 0), plan.video.size[0] - 1)
        return serve_image(plots.time_slice(plan, column, frames=_frames(window)), "png")

    def zoom(self, plan_id: str | None, frame: float, zoom: float, column: float, job_id: str) -> ZoomOutputs:
        """Draw both plots for 1/`zoom` of the frames around `frame`.

        The timeline includes the residual of the edit `job_id` if that edit is of the same video and keyframes.
        """
        plan = self._find(plan_id).plan
        window = window_around(len(plan.video), int(frame), zoom)
        edit = self.studio.finished(job_id)
        same = edit is not None and edit.asked is not None and _follow_the_same(edit.asked.plan, plan)
        edited = edit.scores.residual if edit is not None and same else None
        picture = plots.plot_timeline(plan, frames=slice(*window), edited=edited)
        return ZoomOutputs(serve_image(picture, "png"), self.column(plan_id, column, window), window)

    def keep_in_view(
        self, plan_id: str | None, frame: float, zoom: float, column: float, job_id: str, window: Window
    ) -> ZoomOutputs:
        """Do the same as `zoom` if `frame` lies outside `window`, else nothing."""
        if not window or window[0] <= frame < window[1]:
            return unchanged(ZoomOutputs)
        return self.zoom(plan_id, frame, zoom, column, job_id)

    def find_clicked_frame(self, plan_id: str | None, window: Window, event: gr.SelectData) -> int:
        """Return the frame under a click on the timeline or the time slice."""
        axis = plots.TimeAxis.of(self._find(plan_id).plan, plots.WIDTH, _frames(window))
        return axis.frame_at(event.index[0])

    async def plan_file(self, plan_id: str | None, kind: str = "json") -> str:
        """Write the plan to a file: "json", or "npz" with its masks, scores and curves as arrays."""
        stored = self._find(plan_id)
        if kind not in ("json", "npz"):
            raise refusal('a plan is given as "json" or as "npz"')
        return str(await asyncio.to_thread(_write, stored, kind))

    def by_hand(self, plan_id: str | None, number: float, action: str, keyframes_at: str = "") -> str:
        """Apply an action (one of `HAND`) to frame `number` and return the new value of the setting `keyframes_at`.

        The action starts from the keyframes in `keyframes_at` if there are any, because the plan with them may still
        be in the making; else from the plan's keyframes.
        """
        plan = self._find(plan_id).plan
        with refuse_on_error():
            asked = list(PlanConfig(keyframes_at=keyframes_at or "").given_keyframes)
        return set_by_hand(asked or plan.segments.keyframes.tolist(), plan.segments.cuts, int(number), action)

    def _find(self, plan_id: str | None) -> StoredPlan:
        stored = self.studio.kept.find_plan(plan_id)
        if stored is None:
            raise refusal("there is no plan yet; preview the keyframes first")
        return stored


def window_around(frames: int, frame: int, zoom: float) -> tuple[int, int]:
    """Return the first frame and the end of a window of 1/`zoom` of the frames, at least `LEAST`, around `frame`."""
    length = min(frames, max(LEAST, round(frames / max(1.0, zoom))))
    first = min(max(0, frame - length // 2), frames - length)
    return first, first + length


def most_zoom(frames: int) -> int:
    """Return the largest zoom of a video's plots, at least 2."""
    return max(2, frames // LEAST)


def _frames(window: Window) -> slice | None:
    return slice(*window) if window else None


def _follow_the_same(first: Plan, second: Plan) -> bool:
    """Whether two plans have the same video and keyframes, so that their residuals can be compared."""
    same = first.video.digest == second.video.digest
    return same and np.array_equal(first.segments.keyframes, second.segments.keyframes)


def set_by_hand(keyframes: Sequence[int], cuts: np.ndarray, frame: int, action: str) -> str:
    """Return `keyframes` after `action` at `frame`, as text for `keyframes_at`; "" to choose them automatically.

    `cuts` are the first frames of all shots except the first shot.
    """
    keyframes = list(keyframes)
    if action == AUTOMATIC:
        return ""
    if action in (ADD, MOVE) and frame in keyframes:
        raise refusal(f"frame {frame} is a keyframe already")
    if action == ADD:
        keyframes.append(frame)
    elif action == MOVE:
        shots = np.searchsorted(cuts, [frame, *keyframes], side="right")
        near = [k for k, shot in zip(keyframes, shots[1:], strict=True) if shot == shots[0]]
        if not near:
            raise refusal(f"the shot of frame {frame} has no keyframe to move; add one there")
        keyframes.remove(min(near, key=lambda k: abs(k - frame)))
        keyframes.append(frame)
    elif frame not in keyframes:
        raise refusal(f"frame {frame} is no keyframe; choose one on the timeline")
    elif len(keyframes) == 1:
        raise refusal("this is the only keyframe, and there must be one; move it instead")
    else:
        keyframes.remove(frame)
    return ",".join(map(str, sorted(keyframes)))


def _write(stored: StoredPlan, kind: str) -> Path:
    """Write the plan's file, named after its video; it is deleted by age like uploads."""
    # The folder is not named by the plan's id, which is secret, because the file's address may be shared.
    name = hashlib.blake2b(stored.id.encode(), digest_size=12).hexdigest()
    folder = Path(get_upload_folder()) / "plans" / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{file_name(Path(stored.request.video).stem, 'plan')}.{kind}"
    if kind == "json":
        path.write_text(json.dumps(plan_report(stored.plan), indent=1), encoding="utf-8")
    else:
        arrays: dict[str, np.ndarray] = plan_arrays(stored.plan)
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path
