"""What each event of the page does: one method per event. Components are in `page`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from adaflow_core import visualize
from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.types import AdaFlowError, Plan, VideoInfo
from adaflow_core.video import parse_range, probe, working_size
from webui import views
from webui.jobs import Snapshot
from webui.studio import Edited, Planned, Request, Studio

CLIPS = Path(__file__).resolve().parent.parent / "assets" / "clips"
_LOOK = 0.3  # seconds between two looks at a job
_PLAN_VIEWS, _RESULT_VIEWS = 10, 7  # outputs that show a plan, and a finished edit


@dataclass(frozen=True)
class Limits:
    """What an upload may be; said on the page before anything is uploaded."""

    megabytes: int = 200
    seconds: float = 120.0

    def __str__(self) -> str:
        return f"up to {self.seconds:g} s and {self.megabytes} MB"

    def check(self, path: str) -> VideoInfo:
        info = probe(path)
        if info.seconds > self.seconds:
            raise AdaFlowError(
                f"the video lasts {info.seconds:.0f} s; this page takes up to {self.seconds:g} s: "
                "cut it, or start the app with a higher --max-seconds"
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


class Handlers:
    """Plans and jobs stay on the server; a visitor holds their ids."""

    def __init__(self, studio: Studio, limits: Limits) -> None:
        self.studio, self.limits = studio, limits
        self.clips = load_clips()

    # --- video --------------------------------------------------------------------------------------

    def example(self, number: float) -> tuple[Any, ...]:
        """Video, source prompt and prompt of a bundled clip, counted from 0."""
        if not 0 <= int(number) < len(self.clips):
            raise refusal(f"there are {len(self.clips)} example clips, counted from 0")
        clip = self.clips[int(number)]
        return clip["file"], clip["source_prompt"], clip["prompt"]

    def describe(self, video: str | None) -> str:
        """One line on the video."""
        if not video:
            return ""
        with told():
            return views.line(views.video_line(self._checked(video)))

    # --- plan ---------------------------------------------------------------------------------------

    async def preview(
        self,
        plan_id: str | None,
        video: str | None,
        source_prompt: str,
        prune: float,
        keyframes: float,
        scales: list[int],
        method: str,
        importance: str,
        side: int,
        frames: str,
        steps: float,
        injection: float,
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Plan the video with these settings, and show the plan."""
        with told():
            info = await asyncio.to_thread(self._checked, video)
            config = PlanConfig(
                prune=prune,
                keyframes=int(keyframes) or None,
                scales=tuple(sorted(scales)),
                method=method,  # type: ignore[arg-type]  # checked by PlanConfig
                importance=importance,  # type: ignore[arg-type]
                source_prompt=(source_prompt or "").strip(),
            )
            request = Request(
                str(info.path),
                config,
                EditConfig(steps=int(steps), injection_attention=injection),
                working_size(info.width, info.height, side) if side else None,
                parse_range(frames) if (frames or "").strip() else None,
            )
        held = self.studio.planned(plan_id)
        if held is not None and held.request == request:
            yield (held.id, "", "", *_unchanged(_PLAN_VIEWS))
            return
        job_id, snapshot = self.studio.plan(request), None
        async for snapshot in self._follow(job_id):
            if not snapshot.over:
                yield (gr.skip(), job_id, views.progress(snapshot), *_unchanged(_PLAN_VIEWS))
        if snapshot is None or snapshot.state != "done":
            yield (gr.skip(), "", "", *_unchanged(_PLAN_VIEWS))
            if snapshot is not None and snapshot.state == "failed":
                raise refusal(snapshot.problem.replace(request.video, Path(request.video).name))
            raise refusal("the preview was stopped", title="Stopped")
        planned = self._planned(snapshot.result)
        shown = await asyncio.to_thread(_plan_views, planned.plan, held.plan if held else None)
        yield (planned.id, "", "", *shown)
        if held is not None:
            self.studio.forget(held.id)

    @wraps(preview, assigned=())  # the same parameters, under the same names
    async def replan(self, plan_id: str | None, *controls: Any, **named: Any) -> AsyncIterator[tuple[Any, ...]]:
        """The same after a control was moved; nothing before the first preview."""
        if self.studio.planned(plan_id) is None:
            yield tuple(_unchanged(3 + _PLAN_VIEWS))
            return
        async for update in self.preview(plan_id, *controls, **named):
            yield update

    def tokens(
        self, plan_id: str | None, number: float, grid: str | None = None, show: str = views.KEPT
    ) -> tuple[Any, ...]:
        """What keyframe `number` (from 1) keeps of the others: its picture, theirs, and a sentence."""
        plan = self._plan(plan_id)
        q = min(max(int(number), 1), len(plan.layout.keyframes)) - 1
        items, sentence = views.token_items(plan, q, grid, show)
        picture = np.asarray(plan.video.frames[plan.layout.keyframes[q]])
        return gr.Image(picture, label=f"Keyframe {q + 1}"), items, views.line(sentence)

    def frame(self, plan_id: str | None, number: float) -> tuple[Any, ...]:
        """Frame `number` of the plan (from 0) with its similarity to its keyframe over it."""
        picture, sentence = views.frame_view(self._plan(plan_id), int(number))
        return picture, views.line(sentence)

    def frame_clicked(self, plan_id: str | None, event: gr.SelectData) -> int:
        """The frame under a click on the timeline or the slice."""
        axis = visualize.TimeAxis.of(self._plan(plan_id), visualize.WIDTH)
        return axis.frame_at(event.index[0])

    def _checked(self, video: str | None) -> VideoInfo:
        if not video:
            raise AdaFlowError("there is no video yet; upload one or choose an example")
        try:
            return self.limits.check(video)
        except AdaFlowError as problem:
            # An upload is known to its visitor by its name, not by where the server keeps it.
            raise AdaFlowError(str(problem).replace(video, Path(video).name)) from None

    def _planned(self, plan_id: str | None) -> Planned:
        planned = self.studio.planned(plan_id)
        if planned is None:
            raise refusal("there is no plan yet; preview the keyframes first")
        return planned

    def _plan(self, plan_id: str | None) -> Plan:
        return self._planned(plan_id).plan

    # --- edit ---------------------------------------------------------------------------------------

    def check_prompt(self, prompt: str) -> str:
        """Which words of a prompt the model does not know, and what of it is too long."""
        with told():
            return views.notice(self.studio.doubts(prompt or ""))

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
            yield (views.status(None), "", *_unchanged(_RESULT_VIEWS))
            return
        async for snapshot in self._follow(job_id):
            yield (views.status(snapshot), views.progress(snapshot), *_results(snapshot))
        if snapshot.state == "failed":
            gr.Warning(views.sentence(snapshot.problem))

    def stop(self, job_id: str) -> None:
        """Ask a job to end; it does so at its next look, within two seconds of compute."""
        if not self.studio.jobs.stop(job_id or ""):
            gr.Info("There is nothing to stop.")

    async def _follow(self, job_id: str) -> AsyncIterator[Snapshot]:
        """A job's snapshots, one at a time as it moves on, the last one when it is over."""
        seen: object = None
        while (snapshot := self.studio.jobs.snapshot(job_id)) is not None:
            step = snapshot.progress and (snapshot.progress.stage, snapshot.progress.done)
            mark = (snapshot.state, step, snapshot.stopping, snapshot.ahead, int(snapshot.elapsed))
            if mark != seen or snapshot.over:
                yield snapshot
            if snapshot.over:
                return
            seen = mark
            await asyncio.sleep(_LOOK)


def _unchanged(count: int) -> list[Any]:
    return [gr.skip() for _ in range(count)]


def _plan_views(plan: Plan, before: Plan | None) -> list[Any]:
    """Everything of a plan that is shown at once; what is selected stays where that still makes sense."""
    count, frames = len(plan.layout.keyframes), len(plan.video)
    same_keyframes = before is not None and np.array_equal(before.layout.keyframes, plan.layout.keyframes)
    same_frames = before is not None and before.video.digest == plan.video.digest
    grids = views.grid_choices(plan)
    return [
        views.facts(plan),
        gr.HTML(visible=False),
        gr.Column(visible=True),
        views.cost(plan),
        gr.skip() if same_keyframes and same_frames else gr.Gallery(views.keyframe_items(plan), selected_index=0),
        visualize.timeline(plan),
        visualize.time_slice(plan),
        gr.skip() if same_keyframes else gr.Slider(value=1, maximum=max(2, count), interactive=count > 1),
        gr.skip() if same_frames else gr.Dropdown(choices=grids, value=grids[0][1]),
        gr.skip() if same_frames else gr.Slider(value=0, maximum=max(1, frames - 1)),
    ]


def _results(snapshot: Snapshot) -> list[Any]:
    """The result's column, what it is, source, edit, files and report of a finished edit."""
    edited = snapshot.result
    if not isinstance(edited, Edited):
        return _unchanged(_RESULT_VIEWS)
    report = json.loads(edited.report.read_text(encoding="utf-8"))
    source, edit = str(edited.source), str(edited.edit)
    about = views.quote(edited.prompt)
    return [gr.Column(visible=True), about, source, edit, edit, str(edited.report), report]
