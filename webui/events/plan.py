"""Events of steps 1 and 2 (video, model and plan), one handler per event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
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
from webui.jobs.queue import Snapshot, Watched
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
from webui.settings import ALL, FORECAST, PLAN, asked_values, named, shown_values
from webui.studio import StoredPlan, Studio


class PlanEvents:
    """Plans stay on the server; a visitor knows them by their id. `clips` are the bundled examples."""

    def __init__(self, studio: Studio, clips: list[dict[str, str]]) -> None:
        self.studio, self.clips = studio, clips
        # Reading a whole file takes long: in the event loop's own threads it would keep others' progress waiting.
        self._reading = ThreadPoolExecutor(2, thread_name_prefix="adaflow-reading")

    async def describe(self, video: str | None) -> AsyncIterator[str]:
        """One line on the video; then, when all of it was read once, what is wrong with it."""
        if not video:
            yield ""
            return
        with refuse_on_error():
            info = await asyncio.to_thread(self._check_video, video)
            unseen = "" if is_playable(info) else views.copy_line()
            line = views.line(views.video_line(info)) + unseen
            yield line + views.notice(info.notes)
            read_small = partial(decode_video, video, size=working_size(info.width, info.height, MIN_SIDE))
            read = await asyncio.get_running_loop().run_in_executor(self._reading, read_small)
            yield line + views.notice(read.notes)

    def playable(self, video: str | None) -> gr.Video:
        """A small copy of a video that browsers cannot play; nothing for one that they can."""
        if video:
            with refuse_on_error():
                info = self._check_video(video)
                if not is_playable(info):
                    return gr.Video(serve_copy(info), visible=True)
        return gr.Video(None, visible=False)

    def keep_video(self, video: str | None) -> str:
        """An id by which this browser finds the video again after a reload."""
        if not video:
            return ""
        if not Path(video).is_file():  # an address
            raise refusal("this page keeps no videos from elsewhere; upload the file itself")
        return self.studio.keep_video(video)

    def another_video(
        self, plan_job_id: str, place_job_id: str, draft_job_id: str, region_job_id: str, watched: Watched
    ) -> VideoOutputs:
        """Take away what belongs to the video before; an edit that runs goes on aside."""
        leave_video(self.studio.jobs, plan_job_id, place_job_id, draft_job_id, region_job_id)
        watched.put_aside()
        model = self.studio.jobs.snapshot(plan_job_id or "")
        loading = model is not None and model.kind == "load" and not model.finished
        return unchanged(
            VideoOutputs,
            frames="",
            keyframes_at="",
            plan_id="",
            facts=None,
            plan_job_id=gr.skip() if loading else "",
            status=gr.skip() if loading else "",
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
            takes=[],
            project_line="",
            progress="",
            retake_progress="",
            result=gr.Column(visible=False),
            job_id="",
            shown_job="",
        )

    def another_plan(
        self, plan_job_id: str, place_job_id: str, draft_job_id: str, region_job_id: str, watched: Watched
    ) -> VideoOutputs:
        """As `another_video`, but frames, keyframes, prompts and takes are those of a project that was opened."""
        kept = dict.fromkeys(_OF_PROJECT, gr.skip())
        cleared = self.another_video(plan_job_id, place_job_id, draft_job_id, region_job_id, watched)
        return cleared._replace(**kept)

    def example(
        self, plan_job_id: str, place_job_id: str, draft_job_id: str, region_job_id: str, watched: Watched,
        chosen: gr.SelectData,
    ) -> VideoOutputs:  # fmt: skip
        """As `another_video`; and a bundled clip's video, source prompt and prompt."""
        clip = self.clips[chosen.index]
        cleared = self.another_video(plan_job_id, place_job_id, draft_job_id, region_job_id, watched)
        return cleared._replace(video=clip["file"], source_prompt=clip["source_prompt"], prompt=clip["prompt"])

    def uploaded(
        self, plan_job_id: str, place_job_id: str, draft_job_id: str, region_job_id: str, watched: Watched
    ) -> VideoOutputs:
        """As `another_video`; and nothing is known of an upload."""
        cleared = self.another_video(plan_job_id, place_job_id, draft_job_id, region_job_id, watched)
        return cleared._replace(examples=gr.Gallery(selected_index=None), source_prompt="", prompt="")

    def restore(self, session: str) -> list[Any]:
        """Video, prompts, the jobs of the edit, of the edit that is shown, of drafts and place, what runs of planning,
        drafts and search, the plan's id, what was painted, the model and the settings, as this tab had them.

        The session comes from the browser: of the server's files it names only what it has ids of.
        """
        kept = json.loads(session or "{}")
        begun = {name: self.studio.jobs.snapshot(kept.get(name) or "") for name in ("planning", "drafted", "placed")}
        running = {name: job.id if job is not None and not job.finished else "" for name, job in begun.items()}
        done = {name: job for name, job in begun.items() if job is not None and job.state == "done"}
        stored = self.studio.find_plan(done["planning"].result) if "planning" in done else None
        stored = stored or self.studio.find_plan(kept.get("plan"))
        video = stored.request.video if stored else self.studio.find_video(kept.get("video"))
        opened = bool(video and kept.get("opened"))  # a project that brought the settings, with a plan or without
        settings = kept.get("settings") if stored or running["planning"] or opened else None
        prompts = [kept.get(name) or gr.skip() for name in ("source_prompt", "prompt")]
        over = self.studio.find_over(kept.get("over"))
        return [
            video or gr.skip(), *prompts, kept.get("job") or "", kept.get("shown") or "",
            *(done[name].id if name in done else "" for name in ("drafted", "placed")),
            *running.values(),
            stored.id if stored else "",
            *((over | {"shown": False}, over["id"]) if over else (gr.skip(), "")),
            *self._restored(settings or []),
        ]  # fmt: skip

    def _restored(self, settings: list[Any]) -> list[Any]:
        """What the page shows of a tab's model, and the tab's settings; those of an older page are left as they are."""
        same = [*unchanged(ModelShown), *[gr.skip()] * len(SETTINGS)]
        if len(settings) != len(SETTINGS):
            return same
        kept = dict(zip(SETTINGS, settings, strict=True))
        try:
            model = self.studio.resolve_model(str(kept["model"] or ""))
        except AdaFlowError:  # it is no longer offered
            return same
        side = side_of(self.studio.profile(model), kept["side"])
        return [*model_shown(self.studio, model), *(kept | {"side": side}).values()]

    def restore_plan(self, plan_id: str | None) -> PreviewOutputs:
        """Show the plan that a reloaded page had."""
        stored = self.studio.find_plan(plan_id)
        return _preview_outputs(stored, None) if stored else unchanged(PreviewOutputs)

    async def go_on_planning(self, plan_id: str | None, plan_job_id: str) -> AsyncIterator[PreviewOutputs]:
        """Follow the planning that a reloaded page had begun."""
        if not plan_job_id:
            yield unchanged(PreviewOutputs)
            return
        async for update in self._follow(plan_job_id, self.studio.find_plan(plan_id)):
            yield update

    @named(*PLAN, *FORECAST)
    async def preview(
        self, plan_id: str | None, video: str | None, source_prompt: str, model: str, side: int | str, frames: str,
        *shown: Any,
    ) -> AsyncIterator[PreviewOutputs]:  # fmt: skip
        """Plan the video with these settings, and show the plan."""
        with refuse_on_error():
            info = await asyncio.to_thread(self._check_video, video)
            profile = self.studio.profile(model)
            asked = asked_values(PLAN, profile, shown[: len(PLAN)], self.studio.public)
            edit = asked_values(FORECAST, profile, shown[len(PLAN) :], self.studio.public)
            request = Request(
                str(info.path),
                PlanConfig(**asked, source_prompt=(source_prompt or "").strip()),
                EditConfig(**edit),
                _size(info, side),
                parse_range(frames) if (frames or "").strip() else None,
                model or "",
            )
        previous = self.studio.find_plan(plan_id)
        if previous is not None and previous.request == request:
            yield _cost_outputs(self.studio.corrected(previous.plan), previous.id)
            return
        async for update in self._plan(request, previous):
            yield update

    @named(*PLAN, *FORECAST)
    async def replan(
        self, plan_id: str | None, video: str | None, source_prompt: str, model: str, side: int | str, frames: str,
        *shown: Any,
    ) -> AsyncIterator[PreviewOutputs]:  # fmt: skip
        """Plan again after a slider was moved; nothing before the first preview."""
        if self.studio.find_plan(plan_id) is None:
            yield unchanged(PreviewOutputs)
            return
        async for update in self.preview(plan_id, video, source_prompt, model, side, frames, *shown):
            yield update

    async def _plan(self, request: Request, previous: StoredPlan | None) -> AsyncIterator[PreviewOutputs]:
        with refuse_on_error():
            job_id = self.studio.plan(request, previous)
        async for update in self._follow(job_id, previous):
            yield update

    async def _follow(self, job_id: str, previous: StoredPlan | None) -> AsyncIterator[PreviewOutputs]:
        """The progress of a planning, then its plan in the place of `previous`."""
        made: list[str] = []

        def make(snapshot: Snapshot) -> PreviewOutputs:
            stored = self._find_plan(snapshot.result)
            made.append(stored.id)
            if previous is not None and stored.id == previous.id:
                return _cost_outputs(stored.plan, stored.id)
            return _preview_outputs(stored, previous.plan if previous else None)

        async for outputs in show_job(self.studio.jobs, job_id, "preview", ("job_id", "status"), _no_plan(), make):
            yield outputs
        if previous is not None and made != [previous.id]:
            self.studio.forget_plan(previous.id)

    def stop_preview(self, job_id: str) -> Any:
        """Stop a preview."""
        return stop_job(self.studio.jobs, job_id)

    async def choose_model(self, model: str, before: str) -> AsyncIterator[tuple[Any, ...]]:
        """Load another model and show its own settings; if it cannot be loaded, everything stays as it was."""
        same = *unchanged(ModelShown), *[gr.skip()] * len(ALL)
        try:
            job_id = self.studio.load(model)
        except AdaFlowError as problem:
            yield *unchanged(ModelOutputs, model=before), *same
            raise refusal(str(problem)) from None
        snapshot = None
        async for snapshot in follow(self.studio.jobs, job_id):
            yield *unchanged(ModelOutputs, job_id=job_id, status=views.progress(snapshot)), *same
        if snapshot is None or snapshot.state != "done":
            if snapshot is not None and snapshot.problem:
                gr.Warning(message(snapshot.problem), title="The model stays as it was")
            yield *unchanged(ModelOutputs, job_id="", status="", model=before), *same
            return
        profile = self.studio.profile(model)
        outputs = unchanged(ModelOutputs, job_id="", status="", side=side_of(profile))
        yield *outputs, *model_shown(self.studio, model), *shown_values(ALL, profile)

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
_OF_PROJECT = ("frames", "keyframes_at", "prompting", "prompts", "takes", "project_line")
# What a tab remembers of a plan.
SETTINGS = ("model", "side", "frames", "prompting", "prompts", "crossfade", "takes", "deliver", *ALL)


def _size(info: VideoInfo, side: int | str) -> tuple[int, int] | None:
    """The working size that `side` asks for; None: the model's own."""
    if not side:
        return None
    wanted = str(side)
    return working_size(info.width, info.height, int(wanted)) if wanted.isdecimal() else parse_size(wanted)


def _serve_items(items: list[views.Item]) -> list[tuple[str, str]]:
    return [(serve_image(picture), caption) for picture, caption in items]


def _no_plan() -> PreviewOutputs:
    """Take away a plan that has come after another video."""
    hidden = {"placeholder": gr.HTML(visible=True), "views": gr.Column(visible=False)}
    return unchanged(PreviewOutputs, plan_id="", job_id="", status="", facts=None, **hidden)


def _cost_outputs(plan: Plan, plan_id: str) -> PreviewOutputs:
    """Of a plan that is shown already: what its edit takes, which may have changed."""
    facts = views.facts(plan, plan_id)
    return unchanged(PreviewOutputs, plan_id=plan_id, job_id="", status="", facts=facts, cost=views.cost(plan))


def _preview_outputs(stored: StoredPlan, previous: Plan | None) -> PreviewOutputs:
    """Show a plan; the selected keyframe, grid and frame stay selected if the new plan has the same ones."""
    plan = stored.plan
    count, frames = len(plan.layout.keyframes), len(plan.video)
    same_keyframes = previous is not None and np.array_equal(previous.layout.keyframes, plan.layout.keyframes)
    same_frames = previous is not None and previous.video.digest == plan.video.digest
    outputs = unchanged(
        PreviewOutputs,
        plan_id=stored.id,
        job_id="",
        status="",
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
