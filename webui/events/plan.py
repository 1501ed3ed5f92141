"""Events of step 2: make a plan and look at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr
import numpy as np

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.errors import AdaFlowError
from adaflow_core.report import plots
from adaflow_core.types import Plan
from adaflow_core.video.types import VideoInfo, parse_range, parse_size, working_size
from webui import views
from webui.events.common.follow import is_over, show_job, stop_job
from webui.events.common.outputs import (
    FrameOutputs,
    PreviewOutputs,
    TokenOutputs,
    unchanged,
)
from webui.events.model import is_loading
from webui.events.timeline import most_zoom
from webui.events.video import check_video
from webui.jobs.queue import Begun, Snapshot
from webui.jobs.tasks import Request
from webui.kept import StoredPlan
from webui.messages import refusal, refuse_on_error
from webui.served_images import serve_image
from webui.settings import FORECAST, PLAN, asked_values, named
from webui.studio import Studio
from webui.views import labels


class PlanEvents:
    """Makes and shows plans, which stay on the server; a visitor refers to a plan by its id."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def restore_plan(self, plan_id: str | None) -> PreviewOutputs:
        """Show the plan that a reloaded page had."""
        stored = self.studio.kept.find_plan(plan_id)
        return _preview_outputs(stored, None) if stored else unchanged(PreviewOutputs)

    async def go_on_planning(self, plan_id: str | None, begun: Begun) -> AsyncIterator[PreviewOutputs]:
        """Follow the planning that a reloaded page had begun."""
        if not begun.plans:
            yield unchanged(PreviewOutputs)
            return
        async for update in self.show_plan(begun.plans.pop(), self.studio.kept.find_plan(plan_id), begun):
            yield update

    @named(*PLAN, *FORECAST)
    async def preview(
        self, plan_id: str | None, video: str | None, source_prompt: str, model: str, side: int | str, frames: str,
        begun: Begun, *shown: Any,
    ) -> AsyncIterator[PreviewOutputs]:  # fmt: skip
        """Plan the video with these settings, and show the plan."""
        previous = self.studio.kept.find_plan(plan_id)
        with refuse_on_error():
            request = await self.asked(video, source_prompt, model, side, frames, begun, shown)
            job_id = "" if previous and previous.answers(request) else self.studio.plan(request, previous)
        async for update in self.show_plan(job_id, previous, begun):
            yield update

    @named(*PLAN, *FORECAST)
    async def begin_planning(
        self, planning: str, plan_id: str | None, video: str | None, source_prompt: str, model: str, side: int | str,
        frames: str, begun: Begun, *shown: Any,
    ) -> str:  # fmt: skip
        """Begin the planning that another action needs first, and stop `planning`, the job of the previous request.

        Returns the new job's id, for `follow_planning`; "" if the plan already has these settings.
        """
        previous = self.studio.kept.find_plan(plan_id)
        with refuse_on_error():
            request = await self.asked(video, source_prompt, model, side, frames, begun, shown)
            planned = "" if previous and previous.answers(request) else self.start(request, previous, begun)
            self.studio.jobs.leave(planning, replaced=True)  # last: if this request is refused, the old job goes on
            return planned

    def start(
        self, request: Request, previous: StoredPlan | None, begun: Begun, then: Callable[[str], str] | None = None
    ) -> str:
        """Queue a planning job that the tab can stop, and return its id; `then` as in `Studio.plan`."""
        job_id = self.studio.plan(request, previous, then)
        begun.plans.append(job_id)
        return job_id

    async def follow_planning(self, planning: str, plan_id: str | None, begun: Begun) -> AsyncIterator[PreviewOutputs]:
        """Follow the planning that `begin_planning` began, and show its plan."""
        async for update in self.show_plan(planning, self.studio.kept.find_plan(plan_id), begun):
            yield update

    @named(*PLAN, *FORECAST)
    async def replan(
        self, plan_id: str | None, video: str | None, source_prompt: str, model: str, side: int | str, frames: str,
        begun: Begun, *shown: Any,
    ) -> AsyncIterator[PreviewOutputs]:  # fmt: skip
        """Plan again after a slider was moved, even if the old plan has expired; do nothing before the first plan."""
        if not plan_id:
            yield unchanged(PreviewOutputs)
            return
        async for update in self.preview(plan_id, video, source_prompt, model, side, frames, begun, *shown):
            yield update

    @named(*PLAN, *FORECAST)
    async def check_shown(
        self, plan_id: str | None, video: str | None, source_prompt: str, model: str, side: int | str, frames: str,
        begun: Begun, *shown: Any,
    ) -> str:  # fmt: skip
        """Say whether the plan shown is out of date: made with another video or other settings, or expired.

        Returns "" if it is up to date, if these settings cannot be planned, or while a model is being loaded.
        """
        stored = self.studio.kept.find_plan(plan_id)
        if not plan_id or is_loading(self.studio.jobs, begun):
            return ""
        if stored is None:
            return views.notice(["This preview is not kept any more; preview again."])
        before = stored.request
        try:
            # Probing the file starts a process, which is too slow to repeat for every letter typed.
            needed = str(side or "").isdecimal()
            info = await asyncio.to_thread(check_video, self.studio, video) if needed else None
            request = self._request(video or "", source_prompt, model, _size(info, side), frames, shown)
        except AdaFlowError:
            return ""
        return views.stale(replace(before, edit=request.edit) == request) if request != before else ""

    async def asked(
        self, video: str | None, source_prompt: str, model: str, side: int | str, frames: str, begun: Begun,
        shown: Sequence[Any],
    ) -> Request:  # fmt: skip
        """Build the request from step 1 and `shown`, the values of PLAN and FORECAST.

        Raises AdaFlowError if it cannot be planned. While a model is being loaded nothing can be planned, because the
        settings on the page are still the previous model's.
        """
        if is_loading(self.studio.jobs, begun):
            raise AdaFlowError("the model is still being loaded; wait until it is, or stop it")
        info = await asyncio.to_thread(check_video, self.studio, video)
        return self._request(str(info.path), source_prompt, model, _size(info, side), frames, shown)

    def _request(
        self, path: str, source_prompt: str, model: str, size: tuple[int, int] | None, frames: str, shown: Sequence[Any]
    ) -> Request:
        profile = self.studio.profile(model)
        plan = asked_values(PLAN, profile, shown[: len(PLAN)], self.studio.public)
        edit = asked_values(FORECAST, profile, shown[len(PLAN) :], self.studio.public)
        return Request(
            path,
            PlanConfig(**plan, source_prompt=(source_prompt or "").strip()),
            EditConfig(**edit),
            size,
            parse_range(frames) if (frames or "").strip() else None,
            model or "",
        )

    async def show_plan(
        self, job_id: str, previous: StoredPlan | None, begun: Begun, what: str = "preview"
    ) -> AsyncIterator[PreviewOutputs]:
        """Show the progress of a planning job, then its plan in place of `previous`.

        Without a job `previous` stays. `what` names the job in the message that it was stopped.
        """
        if not job_id:
            stays = previous and _cost_outputs(self.studio.corrected(previous.plan), previous.id)
            yield stays or unchanged(PreviewOutputs)
            return
        made: list[str] = []

        def make(snapshot: Snapshot) -> PreviewOutputs:
            stored = self._find_plan(snapshot.result)
            made.append(stored.id)
            if previous is not None and stored.id == previous.id:
                return _cost_outputs(stored.plan, stored.id)
            return _preview_outputs(stored, previous.plan if previous else None)

        if job_id not in begun.plans:
            begun.plans.append(job_id)
        try:
            async for outputs in show_job(self.studio.jobs, job_id, what, "status", _no_plan(), make):
                yield outputs
        finally:
            if is_over(self.studio.jobs, job_id) and job_id in begun.plans:
                begun.plans.remove(job_id)
        if previous is not None and made != [previous.id]:
            self.studio.kept.forget_plan(previous.id)

    def stop_preview(self, begun: Begun) -> Any:
        """Stop all plannings of this tab, including one that precedes an edit, and the loading of a model."""
        return stop_job(self.studio.jobs, *begun.jobs)

    def tokens(
        self, plan_id: str | None, number: float, grid: str | None = None, show: str = labels.KEPT
    ) -> TokenOutputs:
        """Show which tokens keyframe `number` (from 1) keeps of the other keyframes.

        Returns its picture, the pictures of the other keyframes, and a sentence.
        """
        plan = self._find_plan(plan_id).plan
        q = min(max(int(number), 1), len(plan.layout.keyframes)) - 1
        items, sentence = views.token_items(plan, q, grid, show)
        picture = np.asarray(plan.video.frames[plan.layout.keyframes[q]])
        return TokenOutputs(
            selected=gr.Image(serve_image(picture), label=f"Keyframe {q + 1}"),
            tokens=_serve_items(items),
            sentence=views.line(sentence),
        )

    def frame(self, plan_id: str | None, number: float) -> FrameOutputs:
        """Show frame `number` of the plan (from 0) overlaid with its similarity to its keyframe."""
        picture, sentence = views.frame_view(self._find_plan(plan_id).plan, int(number))
        return FrameOutputs(frame_picture=serve_image(picture), frame_sentence=views.line(sentence))

    def _find_plan(self, plan_id: str | None) -> StoredPlan:
        stored = self.studio.kept.find_plan(plan_id)
        if stored is None:
            raise refusal("there is no plan yet; preview the keyframes first")
        return stored


def _size(info: VideoInfo | None, side: int | str) -> tuple[int, int] | None:
    """Return the working size (width, height) that `side` asks for; None for 0, which means the model's own size.

    `side` is a number of pixels for the video's shorter side, or "WIDTHxHEIGHT".
    """
    if str(side or 0) == "0":
        return None
    wanted = str(side)
    if not wanted.isdecimal():
        return parse_size(wanted)
    assert info is not None
    return working_size(info.width, info.height, int(wanted))


def _serve_items(items: list[views.Item]) -> list[tuple[str, str]]:
    return [(serve_image(picture), caption) for picture, caption in items]


def _no_plan() -> PreviewOutputs:
    """Hide a plan whose job finished after the visitor had changed the video."""
    hidden = {"placeholder": gr.HTML(visible=True), "views": gr.Column(visible=False)}
    return unchanged(PreviewOutputs, plan_id="", status="", stale="", facts=None, **hidden)


def _cost_outputs(plan: Plan, plan_id: str) -> PreviewOutputs:
    """Update only the cost of the edit, for a plan that is shown already."""
    facts = views.facts(plan, plan_id)
    return unchanged(PreviewOutputs, plan_id=plan_id, status="", stale="", facts=facts, cost=views.cost(plan))


def _preview_outputs(stored: StoredPlan, previous: Plan | None) -> PreviewOutputs:
    """Show a plan; the selected keyframe, grid and frame stay selected if the new plan has the same ones."""
    plan = stored.plan
    count, frames = len(plan.layout.keyframes), len(plan.video)
    same_keyframes = previous is not None and np.array_equal(previous.layout.keyframes, plan.layout.keyframes)
    same_frames = previous is not None and previous.video.digest == plan.video.digest
    outputs = unchanged(
        PreviewOutputs,
        plan_id=stored.id,
        status="",
        stale="",
        facts=views.facts(plan, stored.id),
        placeholder=gr.HTML(visible=False),
        views=gr.Column(visible=True),
        cost=views.cost(plan),
        timeline=serve_image(plots.plot_timeline(plan), "png"),
        time_slice=serve_image(plots.time_slice(plan), "png"),
        window=None,
        matches=gr.Gallery(visible=False),
        match_sentence="",
    )
    if not (same_keyframes and same_frames):
        outputs = outputs._replace(gallery=gr.Gallery(_serve_items(views.keyframe_items(plan)), selected_index=0))
    if not same_keyframes:
        outputs = outputs._replace(number=gr.Slider(value=1, maximum=max(2, count), interactive=count > 1))
    if not same_frames:
        grids = views.grid_choices(plan)
        outputs = outputs._replace(
            grid=gr.Dropdown(choices=grids, value=grids[0][1]),
            frame=gr.Slider(value=0, maximum=max(1, frames - 1)),
            zoom=gr.Slider(value=1, maximum=most_zoom(frames)),
            column=gr.Slider(value=plan.video.size[0] // 2, maximum=plan.video.size[0] - 1),
        )
    return outputs
