"""Steps 1 and 2 of the page: what the events of video, plan and model do, one method per event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from adaflow_core import visualize
from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.types import AdaFlowError, Plan, VideoInfo
from adaflow_core.video import parse_range, working_size
from webui import views
from webui.events import follow, load_clips, refusal, said, stop_job, told, unchanged
from webui.pictures import shown
from webui.studio import Planned, Studio
from webui.work import Request

_PLAN_VIEWS, _MODEL_VIEWS = 10, 8  # outputs that show a plan, and that a model sets


class PlanEvents:
    """Plans stay on the server; a visitor holds their ids."""

    def __init__(self, studio: Studio) -> None:
        self.studio, self.limits = studio, studio.limits
        self.clips = load_clips()

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
        model: str,
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
            self.studio.offered(model)
            request = Request(
                str(info.path),
                config,
                EditConfig(steps=int(steps), injection_attention=injection),
                working_size(info.width, info.height, side) if side else None,
                parse_range(frames) if (frames or "").strip() else None,
                model or "",
            )
        held = self.studio.planned(plan_id)
        if held is not None and held.request == request:
            yield (held.id, "", "", *unchanged(_PLAN_VIEWS))
            return
        with told():
            job_id, snapshot = self.studio.plan(request), None
        async for snapshot in follow(self.studio.jobs, job_id):
            if not snapshot.over:
                yield (gr.skip(), job_id, views.progress(snapshot), *unchanged(_PLAN_VIEWS))
        if snapshot is None or snapshot.state != "done":
            yield (gr.skip(), "", "", *unchanged(_PLAN_VIEWS))
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
            yield tuple(unchanged(3 + _PLAN_VIEWS))
            return
        async for update in self.preview(plan_id, *controls, **named):
            yield update

    def stop_preview(self, job_id: str) -> None:
        """Ask a preview to end."""
        stop_job(self.studio.jobs, job_id)

    async def choose_model(self, model: str, before: str) -> AsyncIterator[tuple[Any, ...]]:
        """Load another model and take on its own settings; one that cannot be had leaves all as it was."""
        with told():
            job_id = self.studio.load(model)
        snapshot = None
        async for snapshot in follow(self.studio.jobs, job_id):
            yield (views.progress(snapshot), gr.skip(), gr.skip(), *unchanged(_MODEL_VIEWS))
        if snapshot is None or snapshot.state != "done":
            if snapshot is not None and snapshot.problem:
                gr.Warning(said(snapshot.problem), title="The model stays as it was")
            yield ("", before, before, *unchanged(_MODEL_VIEWS))
            return
        profile = self.studio.profile(model)
        yield (
            "",
            gr.skip(),
            model,
            profile.prune,
            profile.steps,
            profile.guidance,
            profile.injection_attention,
            profile.injection_conv,
            gr.Dropdown(choices=views.sides(profile.size), value=0),
            gr.Accordion(label=views.vocabulary_title(profile.vocabulary), visible=bool(profile.vocabulary)),
            views.vocabulary(profile.vocabulary),
        )

    def tokens(
        self, plan_id: str | None, number: float, grid: str | None = None, show: str = views.KEPT
    ) -> tuple[Any, ...]:
        """What keyframe `number` (from 1) keeps of the others: its picture, theirs, and a sentence."""
        plan = self._plan(plan_id)
        q = min(max(int(number), 1), len(plan.layout.keyframes)) - 1
        items, sentence = views.token_items(plan, q, grid, show)
        picture = np.asarray(plan.video.frames[plan.layout.keyframes[q]])
        return gr.Image(shown(picture), label=f"Keyframe {q + 1}"), _gallery(items), views.line(sentence)

    def frame(self, plan_id: str | None, number: float) -> tuple[Any, ...]:
        """Frame `number` of the plan (from 0) with its similarity to its keyframe over it."""
        picture, sentence = views.frame_view(self._plan(plan_id), int(number))
        return shown(picture), views.line(sentence)

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


def _gallery(items: list[views.Item]) -> list[tuple[str, str]]:
    return [(shown(picture), caption) for picture, caption in items]


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
        gr.skip()
        if same_keyframes and same_frames
        else gr.Gallery(_gallery(views.keyframe_items(plan)), selected_index=0),
        shown(visualize.timeline(plan), "png"),
        shown(visualize.time_slice(plan), "png"),
        gr.skip() if same_keyframes else gr.Slider(value=1, maximum=max(2, count), interactive=count > 1),
        gr.skip() if same_frames else gr.Dropdown(choices=grids, value=grids[0][1]),
        gr.skip() if same_frames else gr.Slider(value=0, maximum=max(1, frames - 1)),
    ]
