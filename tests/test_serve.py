"""A page that many use: limits, what is deleted when, its log and health, what is written into an edit."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
import torch

from adaflow_core.cache import Cache
from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.safety import load_safety_checker
from adaflow_core.types import AdaFlowError, Monitor, Plan, Progress, Stopped
from pipelines import save_checker
from webui import logs
from webui.jobs import Jobs, Report, Stop
from webui.limits import PUBLIC, Limits, limits_of
from webui.studio import Studio
from webui.upkeep import Upkeep
from webui.work import EditWork, Engines, PlanWork, Request


def until_stopped(report: Report, stop: Stop) -> None:
    while not stop():
        time.sleep(0.005)
    raise Stopped


# --- limits -----------------------------------------------------------------------------------------


def test_a_full_queue_says_so() -> None:
    jobs = Jobs(waiting=2)
    ids = [jobs.submit("edit", until_stopped)]
    while jobs.snapshot(ids[0]).state != "running":
        time.sleep(0.005)
    ids += [jobs.submit("edit", until_stopped) for _ in range(2)]
    with pytest.raises(AdaFlowError, match="queue is full, 2 jobs wait already; try again"):
        jobs.submit("plan", until_stopped, urgent=True)
    jobs.stop(ids[1])
    ids.append(jobs.submit("edit", until_stopped))  # there is a place again
    for job in ids:
        jobs.stop(job)


def test_a_job_that_takes_too_long_ends_with_a_sentence() -> None:
    jobs = Jobs(seconds=0.1)
    over = jobs.wait(jobs.submit("edit", until_stopped), 5)
    assert over.state == "failed" and "longer than a job here may" in over.problem
    with pytest.raises(AdaFlowError, match="fewer frames or steps"):
        jobs.submit("edit", until_stopped, forecast={"invert": 0.05, "edit": 0.06})
    assert jobs.wait(jobs.submit("edit", lambda report, stop: 1), 5).state == "done"


def test_strangers_get_less() -> None:
    assert limits_of(True) == PUBLIC and limits_of(False, seconds=None) == Limits()
    changed = limits_of(True, seconds=5.0)
    assert changed.seconds == 5 and changed.megabytes == PUBLIC.megabytes
    assert PUBLIC.keep_seconds < Limits().keep_seconds and PUBLIC.job_seconds < Limits().job_seconds


def test_a_space_is_public_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    import app

    for name in ("SPACE_ID", "ADAFLOW_PUBLIC", "ADAFLOW_MODEL"):
        monkeypatch.delenv(name, raising=False)
    assert not app.parse([]).public and app.parse(["--public"]).public
    monkeypatch.setenv("SPACE_ID", "somebody/adaflow")
    monkeypatch.setenv("ADAFLOW_MODEL", "somebody/model")
    assert app.parse([]).public and not app.parse(["--no-public"]).public and app.parse([]).model == "somebody/model"
    monkeypatch.setenv("ADAFLOW_PUBLIC", "0")
    assert not app.parse([]).public
    assert (
        app.parse([]).offer is None
        and app.parse(["--offer"]).offer == []
        and app.parse(["--offer", "a"]).offer == ["a"]
    )


# --- what is deleted when ---------------------------------------------------------------------------


def test_what_is_over_its_time_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    studio = Studio("embedded", "cpu", tmp_path / "results", limits=Limits(keep_seconds=0.3), public=True)
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
    waits = studio.jobs.submit("edit", until_stopped, holds=[uploads / "cd" / "needed.mp4", needed])
    assert upkeep.round() == 0, "everything is new"
    time.sleep(0.4)
    fresh = uploads / "ef" / "fresh.mp4"
    fresh.parent.mkdir()
    fresh.write_bytes(b"x")
    assert upkeep.round() == 3
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
    studio.jobs.wait(waits, 5)
    time.sleep(0.4)
    assert upkeep.round() == 4 and not (uploads / "cd").exists(), "and the job is forgotten"
    assert studio.jobs.snapshot(waits) is None


def test_over_the_limit_the_oldest_uploads_go(tmp_path: Path) -> None:
    studio = Studio("embedded", "cpu", tmp_path / "results", limits=Limits(keep_bytes=25))
    upkeep = Upkeep(studio, tmp_path)
    for name in ("first", "second", "third"):
        (tmp_path / name).write_bytes(b"x" * 10)
        time.sleep(0.02)
    assert upkeep.round() == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["second", "third"]


# --- log and health ---------------------------------------------------------------------------------


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logs.set_up(stream)
    yield stream
    logging.getLogger().removeHandler(handler)


def test_the_log_is_json_with_jobs_that_can_be_told_apart_but_not_taken(log: io.StringIO) -> None:
    def fails(report: Report, stop: Stop) -> None:
        logging.getLogger("adaflow_core.engine").info("at %s", "work")
        raise RuntimeError("of the inside,\nin two lines")

    jobs = Jobs()
    job = jobs.submit("edit", fails)
    jobs.wait(job, 5)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["message"] for line in lines] == ["job waits", "at work", "job failed", "job is over"]
    assert {line["job"] for line in lines} == {job[:8]} and job not in log.getvalue()
    assert "in two lines" in lines[2]["exception"] and lines[2]["level"] == "error"
    assert lines[3]["state"] == "failed" and lines[3]["seconds"] >= 0 and lines[0]["kind"] == "edit"
    assert all(line["time"].endswith("+00:00") for line in lines)
    logging.getLogger("httpx").info("not ours")
    logging.getLogger("webui.upkeep").info("no job")
    last = json.loads(log.getvalue().splitlines()[-1])
    assert last["message"] == "no job" and "job" not in last


def test_what_a_visitor_is_told_names_no_folders_but_the_log_does(log: io.StringIO) -> None:
    def fails(report: Report, stop: Stop) -> None:
        raise AdaFlowError("the cache folder /srv/data/cache cannot be written")

    jobs = Jobs()
    told = jobs.wait(jobs.submit("plan", fails), 5).problem
    assert told == "the cache folder cache cannot be written" and "/srv/data/cache" in log.getvalue()


def test_health_tells_how_many_jobs_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from webui.serve import serve

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    studio = Studio("embedded", "cpu", tmp_path / "results", public=True)
    server = serve(studio, tmp_path / "uploads")
    try:
        jobs = [studio.jobs.submit("edit", until_stopped) for _ in range(3)]
        while studio.jobs.snapshot(jobs[0]).state != "running":
            time.sleep(0.005)
        answer = httpx.get(f"{server.address}/healthz")
        assert answer.status_code == 200
        assert answer.json()["status"] == "ok" and answer.json()["jobs"] == {"waiting": 2, "running": 1}
        for job in jobs:
            studio.jobs.stop(job)
        studio.jobs.wait(jobs[0], 5)
        monkeypatch.setattr(studio.jobs, "works", lambda: False)
        assert httpx.get(f"{server.address}/healthz").status_code == 503
    finally:
        server.close()


def test_asked_to_stop_the_page_ends_and_leaves_nothing(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    app = subprocess.Popen(
        [sys.executable, "app.py", "--public", "--device", "cpu", "--port", str(port)],
        cwd=Path(__file__).parent.parent,
        env={name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"}
        | {"TMPDIR": str(tmp_path)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert app.stdout is not None and app.stdout.readline().startswith("AdaFlow is at")
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
        assert [path.name for path in tmp_path.glob("adaflow-*/*")] == ["uploads"]
        app.terminate()
        assert app.wait(60) == 0
        assert list(tmp_path.glob("adaflow-*")) == []
    finally:
        app.kill()


# --- an edit for strangers --------------------------------------------------------------------------


def test_the_safety_checker_agrees_with_its_own_on_single_frames(tiny_folder: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("sd1"), tmp_path / "checked")
    assert load_safety_checker(str(folder), "cpu") is None and load_safety_checker("embedded", "cpu") is None
    frames = np.random.default_rng(0).integers(0, 256, (19, 24, 32, 3), dtype=np.uint8)
    frames[::2] //= 9
    before = frames.copy()
    save_checker(folder, threshold=0.0)
    checker = load_safety_checker(str(folder), "cpu")
    assert checker is not None
    # A threshold between the scores of the frames, so that some are held back.
    with torch.inference_mode():
        pixels = [checker.processor(images=[frame], return_tensors="pt").pixel_values for frame in frames]
        looks = [checker.model.visual_projection(checker.model.vision_model(pixel)[1]) for pixel in pixels]
        scores = torch.cat([torch.cosine_similarity(look, checker.model.concept_embeds).amax()[None] for look in looks])
    save_checker(folder, threshold=float(scores.median()))
    checker = load_safety_checker(str(folder), "cpu")
    expected = [bool(checker.model(clip_input=pixel, images=[np.zeros(1)])[1][0]) for pixel in pixels]
    found = checker.unsafe(frames, Monitor())
    assert found.tolist() == expected and 0 < found.sum() < len(found)
    np.testing.assert_array_equal(frames, before)
    with pytest.raises(Stopped):
        checker.unsafe(frames, Monitor(stop=lambda: True))


def test_a_safety_checker_that_cannot_be_loaded_is_not_passed_over(tiny_folder: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("sd1"), tmp_path / "checked")
    save_checker(folder, threshold=0.0)
    weights = folder / "safety_checker" / "model.safetensors"
    torch.save({}, weights.with_name("pytorch_model.bin"))
    for spoil in (lambda: weights.write_bytes(b"nothing"), weights.unlink):
        spoil()
        with pytest.raises(AdaFlowError, match="safety checker"):
            load_safety_checker(str(folder), "cpu")


@pytest.mark.parametrize("threshold", [-2.0, 2.0])  # of a cosine: holds everything back, nothing
def test_an_edit_for_strangers_is_checked_and_marked(
    threshold: float,
    tiny_folder: Callable[[str], Path],
    drawn_clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ADAFLOW_CACHE", str(tmp_path / "cache"))
    folder = shutil.copytree(tiny_folder("sd1"), tmp_path / "checked")
    save_checker(folder, threshold)
    engines = Engines("cpu", public=True)
    request = Request(str(drawn_clip), PlanConfig(keyframes=2), size=(64, 64), frames=slice(0, 4))
    plan = PlanWork(str(folder), request)(engines, lambda progress: None, lambda: False)
    assert isinstance(plan, Plan)
    reports: list[Progress] = []
    work = EditWork(str(folder), "a name", request, plan, "a blue ball", EditConfig(steps=1), tmp_path / "made")
    edited = work(engines, reports.append, lambda: False)
    black = threshold < 0
    assert (edited.after == 0).all() == black and ("4 of 4 frames" in " ".join(edited.warnings)) == black
    assert "check" in {report.stage for report in reports}
    assert all(report.preview is None for report in reports), "nothing of it is shown before it is checked"
    report = json.loads(edited.report.read_text(encoding="utf-8"))
    assert report["model"] == "a name" and str(tmp_path) not in edited.report.read_text(encoding="utf-8")
    assert "--model='a name'" in edited.command or "'--model=a name'" in edited.command
    with av.open(str(edited.edit)) as container:
        assert "Edited by AI" in container.metadata["comment"]
    with av.open(str(edited.source)) as container:
        assert "comment" not in container.metadata, "the source was not"
    if shutil.which("ffprobe"):
        shown = subprocess.run(
            ["ffprobe", "-v", "error", "-show_entries", "format_tags=comment", "-of", "default=nw=1:nk=1", edited.edit],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert shown.stdout.startswith("Edited by AI (AdaFlow)")


def test_at_home_an_edit_is_neither_checked_nor_marked(tiny_folder: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("sd1"), tmp_path / "checked")
    save_checker(folder, -2.0)
    assert Engines("cpu").load(str(folder))[1] is None and Engines("cpu", public=True).load(str(folder))[1] is not None
