"""What is said of a video that was just uploaded."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from adaflow_core.config import PlanConfig
from helpers.jobs import finish, until, wait_for
from helpers.plans import small_plan
from helpers.tabs import restored
from webui.events import video
from webui.events.common.outputs import VideoOutputs
from webui.events.session import SessionEvents
from webui.events.video import VideoEvents
from webui.jobs.queue import Begun, Watched
from webui.jobs.tasks import Request
from webui.studio import Studio


def test_uploads_that_are_read_keep_nobody_waiting(
    drawn_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than the event loop has threads, which the progress of jobs needs as well."""
    release, reading, decode = threading.Event(), [], video.decode_video

    def decode_slowly(*given: Any, **named: Any) -> Any:
        reading.append(threading.current_thread().name)
        assert release.wait(60)
        return decode(*given, **named)

    monkeypatch.setattr(video, "decode_video", decode_slowly)
    events = VideoEvents(Studio("embedded", "cpu", tmp_path), [])

    async def said() -> list[str]:
        return [line async for line in events.describe(str(drawn_clip), [])]

    async def visit() -> list[list[str]]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(3))
        visitors = [asyncio.create_task(said()) for _ in range(4)]
        try:
            # Whoever asks while two uploads are read and two wait is answered at once.
            await asyncio.wait_for(asyncio.to_thread(until, lambda: len(reading) == 2), 60)
            await asyncio.sleep(0.2)
            await asyncio.wait_for(asyncio.gather(*(asyncio.to_thread(int) for _ in range(3))), 10)
            assert len(reading) == 2
        finally:
            release.set()
        return await asyncio.gather(*visitors)

    for lines in asyncio.run(visit()):
        assert len(lines) == 3 and lines[0] == "" and "12 frames" in lines[-1]


def test_a_video_that_is_no_longer_shown_is_not_described(
    drawn_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a copy of it shown; the next one waits for neither."""
    events, other = VideoEvents(Studio("embedded", "cpu", tmp_path), []), tmp_path / "b.mp4"
    described: list[str | None] = []
    other.write_bytes(drawn_clip.read_bytes())
    monkeypatch.setattr(video, "is_playable", lambda info: False)
    monkeypatch.setattr(video, "serve_copy", lambda info: next_one() or str(info.path))

    def next_one() -> None:
        described[:] = [str(other)]

    async def visit() -> list[str]:
        lines = []
        async for line in events.describe(str(drawn_clip), described):
            lines.append(line)
            if line:
                next_one()
        return lines

    assert len(asyncio.run(visit())) == 2, "not what was found in all of it"
    assert events.playable(str(drawn_clip), described) == gr.skip()
    shown = events.playable(str(other), described)
    assert shown.visible


def test_what_the_scissors_make_is_another_video_with_the_same_prompts(drawn_clip: Path, tmp_path: Path) -> None:
    """Which the page does not show by itself: an example, an upload, a project or what a reload brings back."""
    here, begun, watched, expected = Studio("embedded", "cpu", tmp_path), Begun(), Watched(), list[str]()
    clip = {"file": str(drawn_clip), "source_prompt": "a ball", "prompt": "a cube"}
    events, shown, trimmed = VideoEvents(here, [clip]), tmp_path / "shown" / drawn_clip.name, tmp_path / "video.mp4"
    shown.parent.mkdir()
    shown.write_bytes(drawn_clip.read_bytes())  # as Gradio copies it
    trimmed.write_bytes(drawn_clip.read_bytes())

    def change(video: Path | None) -> VideoOutputs:
        events.check_trimmed(str(video) if video else None, expected)
        return events.trimmed(begun, "", watched)

    events.example(expected, begun, "", watched, SimpleNamespace(index=0))  # type: ignore[arg-type]
    with pytest.raises(gr.Error) as refused:
        change(shown)
    assert not refused.value.visible and expected == []
    begun.plans, watched.here = [here.jobs.submit("plan", wait_for(threading.Event()))], ["an edit"]
    cleared = change(trimmed)
    assert cleared.plan_id == cleared.frames == cleared.keyframes_at == "" and cleared.prompts == cleared.takes == []
    assert cleared.video == cleared.source_prompt == cleared.prompt == cleared.prompt_problems == gr.skip()
    assert finish(here.jobs, begun.plans[0]).state == "stopped" and watched.aside == ["an edit"]
    events.uploaded(str(shown), expected, begun, "", watched, "", "")
    session = {"video": here.kept.keep_video(str(trimmed))}
    SessionEvents(here).restore(json.dumps(session), expected, begun)
    for own in (None, shown, trimmed):
        with pytest.raises(gr.Error):
            change(own)
    assert expected == []


def test_prompts_stay_with_an_upload_and_go_with_the_video(drawn_clip: Path, tmp_path: Path) -> None:
    """They may have been typed while it was on its way, or be what a reload brought back."""
    clip = {"file": "ball.mp4", "source_prompt": "a ball", "prompt": "a cube"}
    events = VideoEvents(Studio("embedded", "cpu", tmp_path), [clip])
    for path, source_prompt, prompt, stay in (
        (str(drawn_clip), "a star", "a cube", True),
        (str(drawn_clip), "a ball", "a cube", False),  # of an example that was chosen while it was on its way
        (None, "a star", "a cube", False),
    ):
        came = events.uploaded(path, [], Begun(), "", Watched(), source_prompt, prompt)
        assert came.source_prompt == came.prompt == came.prompt_problems == (gr.skip() if stay else "")


def test_a_reload_shows_what_the_scissors_have_made(drawn_clip: Path, tmp_path: Path) -> None:
    """It showed the video of the plan before."""
    here, trimmed = Studio("embedded", "cpu", tmp_path), tmp_path / "video.mp4"
    trimmed.write_bytes(drawn_clip.read_bytes())
    plan = here.kept.store_plan(Request(str(drawn_clip), PlanConfig()), small_plan())
    for clip, shown in ((drawn_clip, plan), (trimmed, "")):
        had, *_ = restored(here, {"plan": plan, "video": here.kept.keep_video(str(clip))})
        assert (had.video, had.plan_id) == (str(clip), shown)


def test_an_upload_that_was_deleted_is_said_to_be_gone(drawn_clip: Path, tmp_path: Path) -> None:
    """And a reload does not show a player of it."""
    studio, upload = Studio("embedded", "cpu", tmp_path), tmp_path / "ball.mp4"
    upload.write_bytes(drawn_clip.read_bytes())
    session = {"plan": studio.kept.store_plan(Request(str(upload), PlanConfig()), small_plan())}
    assert restored(studio, session)[0].video == str(upload)
    upload.unlink()
    assert restored(studio, session)[0].video == gr.skip()
    with pytest.raises(gr.Error, match=r"ball\.mp4 is no longer here, as uploads are deleted .*; upload it again"):
        VideoEvents(studio, []).playable(str(upload), [])
