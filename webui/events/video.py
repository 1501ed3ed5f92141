"""Events of step 1's video: an example, an upload, what is said of it, and what goes with the one before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from adaflow_core.errors import AdaFlowError
from adaflow_core.storage.digests import content_digest
from adaflow_core.video.decode import decode_video
from adaflow_core.video.types import MIN_SIDE, VideoInfo, working_size
from webui import views
from webui.events.common.follow import leave_video
from webui.events.common.outputs import VideoOutputs, unchanged
from webui.events.model import is_loading, leave_load
from webui.jobs.queue import Begun, Watched
from webui.messages import refusal, refuse_on_error
from webui.served_images import is_playable, serve_copy
from webui.settings import FIRST
from webui.studio import Studio
from webui.views import labels

# What a project brings with its video.
OF_PROJECT = ("frames", "keyframes_at", "prompting", "prompts", "rows_of", "takes", "project_line")


class VideoEvents:
    """`clips` are the bundled examples."""

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
            info = await asyncio.to_thread(check_video, self.studio, video)
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
                info = check_video(self.studio, video)
                copy = None if is_playable(info) else serve_copy(info)
        return gr.Video(copy, visible=copy is not None) if described == [video] else gr.skip()

    def keep_video(self, video: str | None) -> str:
        """An id by which this browser finds the video again after a reload."""
        if not video:
            return ""
        if not Path(video).is_file():  # an address
            raise refusal("this page keeps no videos from elsewhere; upload the file itself")
        return self.studio.kept.keep_video(video)

    def another_video(self, begun: Begun, region_job_id: str, watched: Watched) -> VideoOutputs:
        """Take away what belongs to the video before; an edit that runs goes on aside."""
        leave_video(self.studio.jobs, begun, region_job_id)
        watched.put_aside()
        return unchanged(
            VideoOutputs,
            frames="",
            keyframes_at="",
            plan_id="",
            facts=None,
            stale="",
            status=gr.skip() if is_loading(self.studio.jobs, begun) else "",
            placeholder=gr.HTML(visible=True),
            views=gr.Column(visible=False),
            prompt_problems="",
            place=gr.Column(visible=False),
            place_progress="",
            placed="",
            draft=gr.Column(visible=False),
            draft_progress="",
            drafted="",
            region_job_id="",
            region_progress="",
            prompting=labels.ONE,
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

    def another_plan(self, begun: Begun, region_job_id: str, watched: Watched) -> VideoOutputs:
        """As `another_video`, but frames, keyframes, prompts and takes are those of a project that was opened.

        So is the model: one that is being loaded is no longer wanted.
        """
        leave_load(self.studio.jobs, begun)
        kept = dict.fromkeys(OF_PROJECT, gr.skip())
        cleared = self.another_video(begun, region_job_id, watched)
        return cleared._replace(**kept)

    def example(
        self, expected: list[str], begun: Begun, region_job_id: str, watched: Watched,
        chosen: gr.SelectData,
    ) -> VideoOutputs:  # fmt: skip
        """As `another_video`; and a bundled clip's video, source prompt and prompt."""
        clip = self.clips[chosen.index]
        expected.append(clip["file"])
        cleared = self.another_video(begun, region_job_id, watched)
        return cleared._replace(video=clip["file"], source_prompt=clip["source_prompt"], prompt=clip["prompt"])

    def uploaded(
        self, video: str | None, expected: list[str], begun: Begun, region_job_id: str, watched: Watched
    ) -> VideoOutputs:
        """As `another_video`, for an upload, or None where the video was taken away, with which its prompts go.

        With an upload they stay: they may have been typed while it was on its way, or come back with a reload.
        """
        if video and not Path(video).is_file():
            raise refusal("the video is not there any more; choose it again")
        expected += filter(None, [video])
        cleared = self.another_video(begun, region_job_id, watched)
        prompts = {} if video else {"source_prompt": "", "prompt": ""}
        return cleared._replace(examples=gr.Gallery(selected_index=None), **prompts)

    def check_trimmed(self, video: str | None, expected: list[str]) -> None:
        """Refuses a video that the player's scissors have not made: one that the page itself shows (`expected`, of
        which it is taken out), or none."""
        own = next((path for path in expected if is_same_video(path, video)), None)
        if own is not None:
            expected.remove(own)
        if own is not None or not video or not Path(video).is_file():
            raise refusal("the video was not trimmed", visible=False)

    def trimmed(self, begun: Begun, region_job_id: str, watched: Watched) -> VideoOutputs:
        """As `another_video`, for what the player's scissors have made of one: the prompts are of that too."""
        cleared = self.another_video(begun, region_job_id, watched)
        return cleared._replace(examples=gr.Gallery(selected_index=None), prompt_problems=gr.skip())


def is_same_video(one: str, other: str | None) -> bool:
    """Whether two files are the same video: Gradio shows a copy of one that is no upload, under the same name."""
    if one == other or not other:
        return one == other
    path, copy = Path(one), Path(other)
    same = path.name == copy.name and path.is_file() and copy.is_file() and path.stat().st_size == copy.stat().st_size
    return same and content_digest(path) == content_digest(copy)


def check_video(studio: Studio, video: str | None) -> VideoInfo:
    """What is in a video that a visitor has given; AdaFlowError where it is gone, or may not be edited here."""
    if not video:
        raise AdaFlowError("there is no video yet; upload one or choose an example")
    if not Path(video).is_file():
        raise AdaFlowError(
            f"{Path(video).name} is no longer here, as uploads are deleted {studio.limits.kept} after their "
            "last use; upload it again"
        )
    try:
        return studio.limits.check(video)
    except AdaFlowError as problem:
        # A visitor knows an upload by its name, not by the server's path.
        raise AdaFlowError(str(problem).replace(video, Path(video).name)) from None
