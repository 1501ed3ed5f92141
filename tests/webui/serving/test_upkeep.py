"""Deletion of old files."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.storage.cache import Cache
from helpers.jobs import finish, until, work_until_stopped
from helpers.plans import small_plan
from webui.jobs.finished import FinishedEdit
from webui.jobs.tasks import Request
from webui.kept import OverState, RegionState, _in_memory
from webui.limits import Limits
from webui.serving.upkeep import Upkeep
from webui.studio import Studio

# What an edit has beside its folder and prompt.
OTHERS: dict[str, Any] = dict.fromkeys({field.name for field in fields(FinishedEdit)} - {"folder", "prompt"})
HOUR = 3600.0


class Clock:
    """What jobs, plans and upkeep go by: `at` stands still, in seconds since the epoch. Files have their own times."""

    def __init__(self) -> None:
        self.at = time.time()

    def time(self) -> float:
        return self.at


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("webui.jobs.queue", "webui.kept", "webui.serving.upkeep"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(time=clock.time, monotonic=clock.time))
    return clock


def test_what_is_over_its_time_is_deleted_and_nothing_else(tmp_path: Path, clock: Clock) -> None:
    studio = Studio("embedded", "cpu", tmp_path / "results", limits=Limits(keep_seconds=HOUR), public=True)
    uploads, cache = tmp_path / "uploads", Cache(tmp_path / "cache")
    (uploads / "own").mkdir(parents=True)
    (uploads / "own" / "poster.png").write_bytes(b"the page's")
    upkeep = Upkeep(studio, uploads, cache)
    for name in ("ab/film.mp4", "cd/needed.mp4", "deep/links/state.json"):
        (uploads / name).parent.mkdir(parents=True, exist_ok=True)
        (uploads / name).write_bytes(b"x")
        os.utime(uploads / name, (0, 0))  # a copy with the time of what it was copied from
    for kind in ("frames", "calibration"):
        cache.get(kind, "key", lambda folder: {})
    needed = cache.get("frames", "needed", lambda folder: {})[0] / "frames.npy"
    waits = studio.jobs.submit("edit", work_until_stopped, files=[uploads / "cd" / "needed.mp4", needed])
    assert upkeep.clean() == 0, "everything is new"
    time.sleep(0.05)
    between = time.time()
    time.sleep(0.05)
    fresh = uploads / "ef" / "fresh.mp4"
    fresh.parent.mkdir()
    fresh.write_bytes(b"x")
    clock.at = between + HOUR
    assert upkeep.clean() == 3
    kept = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file())
    assert kept == [
        "cache/calibration/key/meta.json",
        "cache/frames/needed/meta.json",
        "uploads/cd/needed.mp4",
        "uploads/ef/fresh.mp4",
        "uploads/own/poster.png",
    ]
    assert not (uploads / "ab").exists() and not (uploads / "deep").exists(), "their folders go too"
    studio.jobs.stop(waits)
    finish(studio.jobs, waits)
    clock.at += 2 * HOUR
    assert upkeep.clean() == 4 and not (uploads / "cd").exists(), "and the job is forgotten"
    assert studio.jobs.snapshot(waits) is None


@pytest.mark.skipif(sys.platform == "win32", reason="builds are not locked there")
def test_unfinished_work_is_deleted_as_entries_are(tmp_path: Path) -> None:
    """Latents after a step, inversions and features: all of them can become pictures again."""
    studio = Studio("embedded", "cpu", tmp_path / "results", limits=Limits(keep_seconds=60), public=True)
    cache = Cache(tmp_path / "cache")
    upkeep = Upkeep(studio, tmp_path / "uploads", cache)

    def begin(kind: str, key: str) -> Path:
        with cache.part(kind, key) as folder:
            (folder / "latents.npy").write_bytes(b"x")
        return folder

    for key in ("old", "new"):
        cache.state("edits", key).parent.mkdir(parents=True, exist_ok=True)
        cache.state("edits", key).write_bytes(b"x")
    parts = {name: begin("inversion", name) for name in ("old", "new", "read")}
    parts["measured"] = begin("calibration", "key")
    waits = studio.jobs.submit("edit", work_until_stopped, files=[parts["read"] / "latents.npy"])
    hour_ago = time.time() - 3600
    with cache.part("features", "now") as building:
        for path in (cache.state("edits", "old"), building, *(parts[name] for name in ("old", "read", "measured"))):
            os.utime(path, (hour_ago, hour_ago))
        assert upkeep.clean() == 2
        kept = {*(parts[name] for name in ("new", "read", "measured")), building, cache.state("edits", "new")}
        assert set(cache.root.glob("*/*")) == kept
    studio.jobs.stop(waits)
    finish(studio.jobs, waits)


def test_over_the_limit_the_oldest_uploads_go(tmp_path: Path) -> None:
    studio = Studio("embedded", "cpu", tmp_path / "results", limits=Limits(keep_bytes=25))
    upkeep = Upkeep(studio, tmp_path)
    for name in ("first", "second", "third"):
        (tmp_path / name).write_bytes(b"x" * 10)
        time.sleep(0.02)
    assert upkeep.clean() == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["second", "third"]


def test_an_upload_is_kept_while_it_is_used(tmp_path: Path, clock: Clock) -> None:
    """By its plan or by its own id, as these are; over the limit what was used longest ago goes."""
    studio = Studio("embedded", "cpu", tmp_path / "results", limits=Limits(keep_seconds=HOUR, keep_bytes=25))
    uploads, cache = tmp_path / "uploads", Cache(tmp_path / "cache")
    upkeep, plan = Upkeep(studio, uploads, cache), small_plan()
    uploads.mkdir()
    planned, shown, left = (uploads / name for name in ("planned.mp4", "shown.mp4", "left.mp4"))
    for file in (planned, shown, left):
        file.write_bytes(b"x" * 9)
    clock.at = time.time() + 1
    folder = cache.get("frames", "key", lambda folder: np.save(folder / "frames.npy", plan.video.frames) or {})[0]
    frames = np.load(folder / "frames.npy", mmap_mode="r")
    request = Request(str(planned), plan.config)
    plan_id = studio.kept.store_plan(request, replace(plan, video=replace(plan.video, frames=frames)))
    video_id = studio.kept.keep_video(str(shown))
    assert upkeep.clean() == 1 and not left.exists(), "the last of more than there is room for, which nobody uses"
    for _ in range(3):
        clock.at += 0.6 * HOUR
        assert studio.kept.find_plan(plan_id) is not None and studio.kept.find_video(video_id) == str(shown)
        assert upkeep.clean() == 0
    assert planned.exists() and shown.exists() and folder.exists()
    clock.at += 1.2 * HOUR
    assert upkeep.clean() == 5, "plan, id, both files and the frames"


def test_results_count_towards_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, and are forgotten over half of it, so that there is room for uploads, beside which they lie."""
    results = tmp_path / "uploads" / "results"
    studio = Studio("embedded", "cpu", results, limits=Limits(keep_bytes=40))
    monkeypatch.setattr(FinishedEdit, "held_bytes", lambda edit: len(edit.prompt))
    upkeep = Upkeep(studio, tmp_path / "uploads")

    def edit(prompt: str) -> str:
        folder = results / prompt
        folder.mkdir(parents=True)
        (folder / "edit.mp4").write_bytes(b"x" * len(prompt))
        job = studio.jobs.submit("edit", lambda report, stop: FinishedEdit(folder, prompt=prompt, **OTHERS))
        finish(studio.jobs, job)
        return job

    ids = [edit(letter * 9) for letter in "abc"]
    until(lambda: len(list(results.iterdir())) == 2)
    assert studio.finished(ids[0]) is None and studio.finished(ids[1]) is not None
    for name in ("first", "second", "third"):
        (tmp_path / "uploads" / name).write_bytes(b"x" * 10)
        time.sleep(0.02)
    assert upkeep.clean() == 1 and not (tmp_path / "uploads" / "first").exists()
    assert len(list(results.rglob("edit.mp4"))) == 2


def test_of_plans_and_what_is_painted_those_over_their_memory_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not so many of all visitors together, nor what lies in files; of videos it is known where they are, each once."""
    plan, mask = small_plan(), np.zeros((48, 64), bool)
    slimming = plan.layout.slimming or {}
    arrays = [*plan.layout.correspondence.index.values(), *(grid.scores for grid in slimming.values())]
    assert sum(array.nbytes for array in arrays) < _in_memory(plan) < plan.video.frames.nbytes * 2
    monkeypatch.setattr("webui.kept._KEEP_OVERS", 50 * mask.nbytes)
    studio = Studio("embedded", "cpu", tmp_path)
    overs = [studio.kept.keep_over(OverState(region=RegionState({0: mask}))).id for _ in range(60)]
    assert studio.kept.find_over(overs[0]) is None and studio.kept.find_over(overs[20]) is not None
    plans = [studio.kept.store_plan(Request("a.mp4", plan.config), plan) for _ in range(60)]
    assert studio.kept.find_plan(plans[0]) is not None
    videos = [tmp_path / f"{number}.mp4" for number in range(60)]
    for video in videos:
        video.touch()
    ids = [studio.kept.keep_video(str(video)) for video in videos]
    assert studio.kept.find_video(ids[0]) == str(videos[0]) and studio.kept.keep_video(str(videos[0])) == ids[0]
    file = tmp_path / "frames.npy"
    np.save(file, plan.video.frames)
    assert _in_memory({"frames": [np.load(file, mmap_mode="r")]}) == 0


def test_plans_of_finished_edits_are_kept_as_other_plans_are(
    tiny_folder: Callable[[str], Path], drawn_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by their edits, beside the limit: a plan that had to make room is made again for a retake."""
    monkeypatch.setenv("ADAFLOW_CACHE", str(tmp_path / "cache"))
    studio = Studio(str(tiny_folder("sd1")), "cpu", tmp_path / "results")
    request = Request(str(drawn_clip), PlanConfig(keyframes=2), size=(64, 64), frames=slice(0, 4))
    looked_at, edited = (finish(studio.jobs, studio.plan(request)).result for _ in range(2))
    edit = studio.edit(edited, "a blue ball", EditConfig(steps=1))
    finished, stored = finish(studio.jobs, edit).result, studio.kept.find_plan(edited)
    assert stored is not None and _in_memory(finished) < _in_memory(stored.plan)
    for plan_id in (looked_at, edited):  # other previews have replaced them
        studio.kept.forget_plan(plan_id)
    assert studio.kept.find_plan(looked_at) is None and studio.kept.find_plan(edited) is not None
    monkeypatch.setattr(studio.kept._plans, "most", 1)
    studio.kept.store_plan(request, stored.plan)
    assert studio.kept.find_plan(edited) is None
    retake = finish(studio.jobs, studio.retake(edit, (1, 3), "a red ball", EditConfig(steps=1)))
    assert retake.state == "done" and retake.result.parent == edit, retake.problem
    again = studio.kept.find_plan(edited)
    assert again is not None and np.array_equal(again.plan.segments.keyframes, stored.plan.segments.keyframes)


def test_what_visitors_painted_is_forgotten_with_their_plans(tmp_path: Path, clock: Clock) -> None:
    studio = Studio("embedded", "cpu", tmp_path / "results")
    video = tmp_path / "film.mp4"
    video.write_bytes(b"x")
    kept, over = studio.kept.keep_video(str(video)), studio.kept.keep_over(OverState()).id
    clock.at += 2
    assert studio.kept.find_over(over) == OverState(id=over), "which is a use of it"
    assert studio.forget_older_than(1) == 1
    assert studio.kept.find_video(kept) is None and studio.kept.find_over(over) is not None
    clock.at += 2
    assert studio.forget_older_than(1) == 1 and studio.kept.find_over(over) is None
