"""Events of steps 1 and 2 (video, model and plan), one handler per event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from adaflow_core.config import EditConfig, ModelProfile, PlanConfig
from adaflow_core.errors import AdaFlowError
from adaflow_core.report import visualize
from adaflow_core.types import Plan
from adaflow_core.video.decode import decode_video
from adaflow_core.video.types import MIN_SIDE, VideoInfo, parse_range, parse_size, working_size
from webui import views
from webui.events.follow import follow, leave_video, show_job, stop_job
from webui.events.timeline import most_zoom
from webui.events.words import with_word
from webui.jobs.queue import Begun, Snapshot, Watched
from webui.jobs.tasks import Request
from webui.messages import message, refusal, refuse_on_error
from webui.outputs import (
    FrameOutputs,
    ModelOutputs,
    ModelShown,
    PreviewOutputs,
    TokenOutputs,
    VideoOutputs,
    unchanged,
)
from webui.served_images import is_playable, serve_copy, serve_image
from webui.settings import ALL, FIRST, FORECAST, PLAN, asked_values, named, shown_values
from webui.studio import StoredPlan, Studio


class PlanEvents:
    """Plans stay on the server; a visitor knows them by their id. `clips` are the bundled examples."""

    def __init__(self, studio: Studio, clips: list[dict[str, str]]) -> None:
        self.studio, self.clips = studio, clips
        # Reading a whole file takes long: in the event loop's own threads it would keep others' progress waiting.
        self._reading = ThreadPoolExecutor(2, thread_name_prefix="adaflow-reading")

    async def describe(self, video: str | None, described: list[str | None]) -> AsyncIterator[str]:
        """One line on the video; then, when all of it was read once, what is wrong with it.

        `described` holds the video that is shown, by which one that was shown before says nothing any more.
        """
        described[:] = [video]
        yield ""
        if not video:
            return
        with refuse_on_error():
            info = await asyncio.to_thread(self._check_video, video)
            if described != [video]:
                return
            unseen = "" if is_playable(info) else views.copy_line()
            line = views.line(views.video_line(info)) + unseen
            yield line + views.notice(info.notes)
            read_small = partial(decode_video, video, size=working_size(info.width, info.height, MIN_SIDE))
            read = await asyncio.get_running_loop().run_in_executor(self._reading, read_small)
            if described == [video]:
                yield line + views.notice(read.notes)

    def playable(self, video: str | None, described: list[str | None]) -> Any:
        """A small copy of a video that browsers cannot play; nothing for one that they can, nor for one that is no
        longer shown."""
        described[:] = [video]
        copy = None
        if video:
            with refuse_on_error():
                info = self._check_video(video)
                copy = None if is_playable(info) else serve_copy(info)
        return gr.Video(copy, visible=copy is not None) if described == [video] else gr.skip()

    def keep_video(self, video: str | None) -> str:
        """An id by which this browser finds the video again after a reload."""
        if not video:
            return ""
        if not Path(video).is_file():  # an address
            raise refusal("this page keeps no videos from elsewhere; upload the file itself")
        return self.studio.keep_video(video)

    def another_video(
        self, begun: Begun, place_job_id: str, draft_job_id: str, region_job_id: str, watched: Watched
    ) -> VideoOutputs:
        """Take away what belongs to the video before; an edit that runs goes on aside."""
        leave_video(self.studio.jobs, begun, place_job_id, draft_job_id, region_job_id)
        watched.put_aside()
        return unchanged(
            VideoOutputs,
            frames="",
            keyframes_at="",
            plan_id="",
            facts=None,
            stale="",
            status=gr.skip() if self._is_loading(begun) else "",
            placeholder=gr.HTML(visible=True),
            views=gr.Column(visible=False),
            prompt_problems="",
            place=gr.Column(visible=False),
            place_job_id="",
            place_progress="",
            placed="",
            draft=gr.Column(visible=False),
            draft_job_id="",
            draft_progress="",
            drafted="",
            region_job_id="",
            region_progress="",
            prompting=views.ONE,
            prompts=[],
            rows_of={},
            takes=[],
            project_line="",
            progress="",
            retake_progress="",
            result=gr.Column(visible=False),
            job_id="",
            shown_job="",
            retake_prompt="",
            **FIRST,
        )

    def another_plan(
        self, begun: Begun, place_job_id: str, draft_job_id: str, region_job_id: str, watched: Watched
    ) -> VideoOutputs:
        """As `another_video`, but frames, keyframes, prompts and takes are those of a project that was opened.

        So is the model: one that is being loaded is no longer wanted.
        """
        self._leave_load(begun)
        kept = dict.fromkeys(_OF_PROJECT, gr.skip())
        cleared = self.another_video(begun, place_job_id, draft_job_id, region_job_id, watched)
        return cleared._replace(**kept)

    def example(
        self, begun: Begun, place_job_id: str, draft_job_id: str, region_job_id: str, watched: Watched,
        chosen: gr.SelectData,
    ) -> VideoOutputs:  # fmt: skip
        """As `another_video`; and a bundled clip's video, source prompt and prompt."""
        clip = self.clips[chosen.index]
        cleared = self.another_video(begun, place_job_id, draft_job_id, region_job_id, watched)
        return cleared._replace(video=clip["file"], source_prompt=clip["source_prompt"], prompt=clip["prompt"])

    def uploaded(
        self, begun: Begun, place_job_id: str, draft_job_id: str, region_job_id: str, watched: Watched
    ) -> VideoOutputs:
        """As `another_video`; and nothing is known of an upload."""
        cleared = self.another_video(begun, place_job_id, draft_job_id, region_job_id, watched)
        return cleared._replace(examples=gr.Gallery(selected_index=None), source_prompt="", prompt="")

    def restore(self, session: str, begun: Begun) -> list[Any]:
        """Video, prompts, the jobs of the edit, of the edit that is shown, of drafts and place, what runs of drafts and
        search, the plan's id, what was painted, the model and the settings, as this tab had them.

        The session comes from the browser: of the server's files it names only what it has ids of.
        """
        kept = json.loads(session or "{}")
        jobs = {name: self.studio.jobs.snapshot(kept.get(name) or "") for name in ("planning", "drafted", "placed")}
        running = {name: job.id if job is not None and not job.finished else "" for name, job in jobs.items()}
        done = {name: job for name, job in jobs.items() if job is not None and job.state == "done"}
        if planning := running.pop("planning"):
            begun.plans.append(planning)
        stored = self.studio.find_plan(done["planning"].result) if "planning" in done else None
        stored = stored or self.studio.find_plan(kept.get("plan"))
        there = stored is not None and Path(stored.request.video).is_file()
        video = stored.request.video if stored and there else self.studio.find_video(kept.get("video"))
        prompts = [kept.get(name) or gr.skip() for name in ("source_prompt", "prompt")]
        over = self.studio.find_over(kept.get("over"))
        return [
            video or gr.skip(), *prompts, kept.get("job") or self._newest(kept.get("edits") or []),
            kept.get("shown") or "",
            *(done[name].id if name in done else "" for name in ("drafted", "placed")),
            *running.values(),
            stored.id if stored else "",
            *((over | {"shown": False}, over["id"]) if over else (gr.skip(), "")),
            *self._restored(kept.get("settings") or [], bool(stored or video)),
        ]  # fmt: skip

    def _newest(self, edits: list[Any]) -> str:
        """Of a browser's edits, newest first, the first that is known: of one that was stopped before it began there is
        no more than its id."""
        return next((str(job_id) for job_id in edits if self.studio.jobs.snapshot(str(job_id))), "")

    def _restored(self, settings: list[Any], of_video: bool) -> list[Any]:
        """What the page shows of a tab's model, and the tab's settings; those of its video unless that is gone.

        Those of an older page are left as they are.
        """
        same = [*unchanged(ModelShown), *[gr.skip()] * len(SETTINGS)]
        if len(settings) != len(SETTINGS):
            return same
        kept = dict(zip(SETTINGS, settings, strict=True))
        try:
            model = self.studio.resolve_model(str(kept["model"] or ""))
        except AdaFlowError:  # it is no longer offered
            return same
        shown = kept | {"side": side_of(self.studio.profile(model), kept["side"])}
        if not of_video:
            shown |= {name: gr.skip() for name in _OF_PROJECT if name in shown}
        return [*model_shown(self.studio, model), *shown.values()]

    def restore_plan(self, plan_id: str | None) -> PreviewOutputs:
        """Show the plan that a reloaded page had."""
        stored = self.studio.find_plan(plan_id)
        return _preview_outputs(stored, None) if stored else unchanged(PreviewOutputs)

    async def go_on_planning(self, plan_id: str | None, begun: Begun) -> AsyncIterator[PreviewOutputs]:
        """Follow the planning that a reloaded page had begun."""
        if not begun.plans:
            yield unchanged(PreviewOutputs)
            return
        async for update in self.show_plan(begun.plans.pop(), self.studio.find_plan(plan_id), begun):
            yield update

    @named(*PLAN, *FORECAST)
    async def preview(
        self, plan_id: str | None, video: str | None, source_prompt: str, model: str, side: int | str, frames: str,
        begun: Begun, *shown: Any,
    ) -> AsyncIterator[PreviewOutputs]:  # fmt: skip
        """Plan the video with these settings, and show the plan."""
        previous = self.studio.find_plan(plan_id)
        with refuse_on_error():
            request = await self.asked(video, source_prompt, model, side, frames, begun, shown)
            job_id = "" if previous and previous.request == request else self.studio.plan(request, previous)
        async for update in self.show_plan(job_id, previous, begun):
            yield update

    @named(*PLAN, *FORECAST)
    async def replan(
        self, plan_id: str | None, video: str | None, source_prompt: str, model: str, side: int | str, frames: str,
        begun: Begun, *shown: Any,
    ) -> AsyncIterator[PreviewOutputs]:  # fmt: skip
        """Plan again after a slider was moved; nothing before the first preview."""
        if self.studio.find_plan(plan_id) is None:
            yield unchanged(PreviewOutputs)
            return
        async for update in self.preview(plan_id, video, source_prompt, model, side, frames, begun, *shown):
            yield update

    @named(*PLAN, *FORECAST)
    async def check_shown(
        self, plan_id: str | None, video: str | None, source_prompt: str, model: str, side: int | str, frames: str,
        begun: Begun, *shown: Any,
    ) -> str:  # fmt: skip
        """A sentence where the plan that is shown is not of these settings; none of those that cannot be planned."""
        stored = self.studio.find_plan(plan_id)
        if stored is None or self._is_loading(begun):
            return ""
        before = stored.request
        try:
            # To look at the file takes a process: it is not for every letter that is typed.
            needed = str(side or "").isdecimal()
            info = await asyncio.to_thread(self._check_video, video) if needed else None
            request = self._request(before.video, source_prompt, model, _size(info, side), frames, shown)
        except AdaFlowError:
            return ""
        return views.stale(replace(before, edit=request.edit) == request) if request != before else ""

    async def asked(
        self, video: str | None, source_prompt: str, model: str, side: int | str, frames: str, begun: Begun,
        shown: Sequence[Any],
    ) -> Request:  # fmt: skip
        """What step 1 and these settings, of PLAN and FORECAST, ask for; AdaFlowError where it cannot be planned.

        Nothing can be while a model is being loaded: the settings are those of the model before.
        """
        if self._is_loading(begun):
            raise AdaFlowError("the model is still being loaded; wait until it is, or stop it")
        info = await asyncio.to_thread(self._check_video, video)
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
        """The progress of a planning, then its plan in the place of `previous`, which it is where there is no job.

        `what` is said to be stopped where that happens.
        """
        if previous is not None and not job_id:
            yield _cost_outputs(self.studio.corrected(previous.plan), previous.id)
            return
        made: list[str] = []

        def make(snapshot: Snapshot) -> PreviewOutputs:
            stored = self._find_plan(snapshot.result)
            made.append(stored.id)
            if previous is not None and stored.id == previous.id:
                return _cost_outputs(stored.plan, stored.id)
            return _preview_outputs(stored, previous.plan if previous else None)

        begun.plans.append(job_id)
        try:
            async for outputs in show_job(self.studio.jobs, job_id, what, ("status",), _no_plan(), make):
                yield outputs
        finally:
            begun.plans.remove(job_id)
        if previous is not None and made != [previous.id]:
            self.studio.forget_plan(previous.id)

    def stop_preview(self, begun: Begun) -> Any:
        """Stop a preview, also one that comes before an edit, and the load of a model."""
        return stop_job(self.studio.jobs, *begun.jobs)

    async def choose_model(self, model: str, before: str, begun: Begun) -> AsyncIterator[tuple[Any, ...]]:
        """Load another model and show its own settings; if it cannot be loaded, everything stays as it was.

        One that is still being loaded is left.
        """
        same = *unchanged(ModelShown), *[gr.skip()] * len(ALL)
        self._leave_load(begun)
        try:
            begun.load = job_id = self.studio.load(model)
        except AdaFlowError as problem:
            yield *unchanged(ModelOutputs, status="", model=before), *same
            raise refusal(str(problem)) from None
        snapshot = None
        async for snapshot in follow(self.studio.jobs, job_id):
            if not snapshot.finished:
                yield *unchanged(ModelOutputs, status=views.progress(snapshot)), *same
        if begun.load != job_id:  # another was chosen meanwhile
            return
        begun.load = ""
        if snapshot is None or snapshot.state != "done":
            said = views.line("Loading was stopped; the model stays as it was.")
            if snapshot is not None and snapshot.problem:
                said = ""
                gr.Warning(message(f"{snapshot.problem.rstrip('.')}. The model stays as it was."))
            yield *unchanged(ModelOutputs, status=said, model=before), *same
            return
        profile = self.studio.profile(model)
        outputs = unchanged(ModelOutputs, status="", side=side_of(profile))
        yield *outputs, *model_shown(self.studio, model), *shown_values(ALL, profile)

    def _is_loading(self, begun: Begun) -> bool:
        model = self.studio.jobs.snapshot(begun.load)
        return model is not None and not model.finished

    def _leave_load(self, begun: Begun) -> None:
        """Another model is wanted: one that is being loaded is not."""
        self.studio.jobs.leave(begun.load)
        begun.load = ""

    def word(self, prompt: str, model: str, word: str | None, kind: str) -> tuple[Any, Any]:
        """The prompt with a word of a kind in it, and the kind's words with none of them chosen."""
        if not word:
            return gr.skip(), gr.skip()
        return with_word(prompt or "", kind, word, dict(self.studio.profile(model).words)), gr.Radio(value=None)

    def larger_model(self) -> str:
        """A model for real footage that this machine can run."""
        return self.studio.larger_model() or self.studio.model

    def own_settings(self, model: str) -> list[Any]:
        """The model's own values of a plan's settings."""
        return shown_values(PLAN, self.studio.profile(model))

    def tokens(
        self, plan_id: str | None, number: float, grid: str | None = None, show: str = views.KEPT
    ) -> TokenOutputs:
        """What keyframe `number` (from 1) keeps of the others: its picture, theirs, and a sentence."""
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
        """Frame `number` of the plan (from 0) with its similarity to its keyframe over it."""
        picture, sentence = views.frame_view(self._find_plan(plan_id).plan, int(number))
        return FrameOutputs(frame_picture=serve_image(picture), frame_sentence=views.line(sentence))

    def _check_video(self, video: str | None) -> VideoInfo:
        if not video:
            raise AdaFlowError("there is no video yet; upload one or choose an example")
        if not Path(video).is_file():
            raise AdaFlowError(
                f"{Path(video).name} is no longer here, as uploads are deleted {self.studio.limits.kept} after their "
                "last use; upload it again"
            )
        try:
            return self.studio.limits.check(video)
        except AdaFlowError as problem:
            # A visitor knows an upload by its name, not by the server's path.
            raise AdaFlowError(str(problem).replace(video, Path(video).name)) from None

    def _find_plan(self, plan_id: str | None) -> StoredPlan:
        stored = self.studio.find_plan(plan_id)
        if stored is None:
            raise refusal("there is no plan yet; preview the keyframes first")
        return stored


def side_of(profile: ModelProfile, side: int | str = 0) -> gr.Dropdown:
    """A working size, among those of a model."""
    return gr.Dropdown(choices=views.working_sizes(profile.size), value=side, allow_custom_value=True)


def model_shown(studio: Studio, model: str) -> ModelShown:
    """What the page shows of a model, beside its settings."""
    profile = studio.profile(model)
    words, known = profile.vocabulary, dict(profile.words)
    return ModelShown(
        model_before=model,
        vocabulary=gr.Accordion(label=views.vocabulary_title(words), visible=bool(words)),
        vocabulary_words=views.vocabulary(words),
        toy=views.toy(profile),
        larger=gr.Button(visible=bool(words and studio.larger_model())),
        **{kind: gr.Radio(choices=list(known.get(kind, ())), visible=kind in known) for kind in views.KINDS},
    )


# What a project brings with its video.
_OF_PROJECT = ("frames", "keyframes_at", "prompting", "prompts", "rows_of", "takes", "project_line")
# What a tab remembers of a plan.
SETTINGS = ("model", "side", "frames", "prompting", "prompts", "rows_of", "crossfade", "takes", "deliver", *ALL)


def _size(info: VideoInfo | None, side: int | str) -> tuple[int, int] | None:
    """The working size that `side` asks for, of the video where that is one number; None: the model's own."""
    if not side:
        return None
    wanted = str(side)
    if not wanted.isdecimal():
        return parse_size(wanted)
    assert info is not None
    return working_size(info.width, info.height, int(wanted))


def _serve_items(items: list[views.Item]) -> list[tuple[str, str]]:
    return [(serve_image(picture), caption) for picture, caption in items]


def _no_plan() -> PreviewOutputs:
    """Take away a plan that has come after another video."""
    hidden = {"placeholder": gr.HTML(visible=True), "views": gr.Column(visible=False)}
    return unchanged(PreviewOutputs, plan_id="", status="", stale="", facts=None, **hidden)


def _cost_outputs(plan: Plan, plan_id: str) -> PreviewOutputs:
    """Of a plan that is shown already: what its edit takes, which may have changed."""
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
        timeline=serve_image(visualize.timeline(plan), "png"),
        time_slice=serve_image(visualize.time_slice(plan), "png"),
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
