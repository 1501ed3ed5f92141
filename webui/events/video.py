"""Events of step 1's video: choose an example, upload, trim, describe, and clear what belonged to the old video."""

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

# Outputs that an opened project sets itself, so they are not cleared when its video replaces the old one.
OF_PROJECT = ("frames", "keyframes_at", "prompting", "prompts", "rows_of", "takes", "project_line")


class VideoEvents:
    """Handles the choice of a video; `clips` are the bundled examples."""

    def __init__(self, studio: Studio, clips: list[dict[str, str]]) -> None:
        self.studio, self.clips = studio, clips
        # Reading a whole file is slow; in the event loop's own threads it would delay other visitors' progress.
        self._reading = ThreadPoolExecutor(2, thread_name_prefix="adaflow-reading")

    async def describe(self, video: str | None, described: list[str | None]) -> AsyncIterator[str]:
        """Describe the video in one line; then, once the whole file has been read, add what is wrong with it.

        `described` holds the video that is shown now, so that the description of an earlier one is dropped.
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
        """Show a small copy of a video that browsers cannot play, and hide the copy otherwise.

        Nothing changes if `video` is no longer the one shown (`described`).
        """
        described[:] = [video]
        copy = None
        if video:
            with refuse_on_error():
                info = check_video(self.studio, video)
                copy = None if is_playable(info) else serve_copy(info)
        return gr.Video(copy, visible=copy is not None) if described == [video] else gr.skip()

    def keep_video(self, video: str | None) -> str:
        """Return an id by which this browser finds the video again after a reload; "" if there is no video."""
        if not video:
            return ""
        if not Path(video).is_file():  # an address
            raise refusal("this page keeps no videos from elsewhere; upload the file itself")
        return self.studio.kept.keep_video(video)

    def another_video(self, begun: Begun, region_job_id: str, watched: Watched) -> VideoOutputs:
        """Clear what belongs to the previous video; a running edit goes on in the background (aside)."""
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
        """Do the same as `another_video`, but keep the frames, keyframes, prompts and takes of an opened project.

        The project has set the model too, so a model that is still being loaded is no longer wanted.
        """
        leave_load(self.studio.jobs, begun)
        kept = dict.fromkeys(OF_PROJECT, gr.skip())
        cleared = self.another_video(begun, region_job_id, watched)
        return cleared._replace(**kept)

    def example(
        self, expected: list[str], begun: Begun, region_job_id: str, watched: Watched,
        chosen: gr.SelectData,
    ) -> VideoOutputs:  # fmt: skip
        """Do the same as `another_video`, and set the chosen clip's video, source prompt and prompt."""
        clip = self.clips[chosen.index]
        expected.append(clip["file"])
        cleared = self.another_video(begun, region_job_id, watched)
        return cleared._replace(video=clip["file"], source_prompt=clip["source_prompt"], prompt=clip["prompt"])

    def uploaded(
        self, video: str | None, expected: list[str], begun: Begun, region_job_id: str, watched: Watched,
        source_prompt: str, prompt: str,
    ) -> VideoOutputs:  # fmt: skip
        """Do the same as `another_video` for an uploaded video, or for None if the video was removed.

        Removing the video clears its prompts. An upload keeps them, because they may have been typed during the
        upload, or restored by a reload; only those of an example are cleared.
        """
        if video and not Path(video).is_file():
            raise refusal("the video is not there any more; choose it again")
        expected += filter(None, [video])
        cleared = self.another_video(begun, region_job_id, watched)
        cleared = cleared._replace(examples=gr.Gallery(selected_index=None))
        of_example = any((clip["source_prompt"], clip["prompt"]) == (source_prompt, prompt) for clip in self.clips)
        if video and not of_example:
            return cleared._replace(prompt_problems=gr.skip())
        return cleared._replace(source_prompt="", prompt="")

    def check_trimmed(self, video: str | None, expected: list[str]) -> None:
        """Refuse a video change that was not made by trimming in the player.

        Changes that the page made itself are listed in `expected`; the one found is removed from the list. A missing
        video is refused too.
        """
        own = next((path for path in expected if is_same_video(path, video)), None)
        if own is not None:
            expected.remove(own)
        if own is not None or not video or not Path(video).is_file():
            raise refusal("the video was not trimmed", visible=False)

    def trimmed(self, begun: Begun, region_job_id: str, watched: Watched) -> VideoOutputs:
        """Do the same as `another_video` for a trimmed video, whose prompts stay valid."""
        cleared = self.another_video(begun, region_job_id, watched)
        return cleared._replace(examples=gr.Gallery(selected_index=None), prompt_problems=gr.skip())


def is_same_video(one: str, other: str | None) -> bool:
    """Whether two paths are the same video; Gradio shows a file that is no upload as a copy with the same name."""
    if one == other or not other:
        return one == other
    path, copy = Path(one), Path(other)
    same = path.name == copy.name and path.is_file() and copy.is_file() and path.stat().st_size == copy.stat().st_size
    return same and content_digest(path) == content_digest(copy)


def check_video(studio: Studio, video: str | None) -> VideoInfo:
    """Probe a visitor's video; AdaFlowError if it is missing, has been deleted, or may not be edited here."""
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
