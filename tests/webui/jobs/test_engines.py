"""Models of the page that are downloaded: progress, stopping, and what is said of those that cannot be."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from adaflow_core.config import EditConfig
from helpers.hub import Hub, save_repository, serve_hub
from helpers.jobs import until, wait_for
from helpers.plans import small_plan
from webui import views
from webui.jobs.engines import Engines
from webui.jobs.queue import Snapshot
from webui.jobs.tasks import Request
from webui.limits import Limits
from webui.studio import Studio

NAME = "someone/model"


@pytest.fixture
def hub(tiny_folder: Callable[[str], Path], tmp_path: Path) -> Iterator[Hub]:
    with serve_hub(tmp_path / "home") as served:
        served.add(NAME, save_repository(tiny_folder("sd1"), tmp_path / "repository"))
        yield served


def wait(studio: Studio, job: str, until: Callable[[Snapshot], bool]) -> Snapshot:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        snapshot = studio.jobs.snapshot(job)
        assert snapshot is not None
        if until(snapshot):
            return snapshot
        time.sleep(0.05)
    raise AssertionError("it takes too long")


def test_a_download_is_shown_stopped_and_gone_on_with(hub: Hub, tmp_path: Path) -> None:
    studio = Studio(NAME, "cpu", tmp_path / "results")
    hub.repositories[NAME].stalls.append(100_000)
    assert studio.prompt_problems("a red ball") == []  # starts no download
    job = studio.load()
    snapshot = wait(studio, job, lambda s: s.progress is not None and s.progress.stage == "download")
    shown = views.progress(snapshot)
    assert "Downloading the model" in shown and snapshot.share < 0.9
    began = time.monotonic()
    studio.jobs.stop(job)
    assert wait(studio, job, lambda s: s.finished).state == "stopped"
    assert time.monotonic() < began + 30  # the stall takes a minute
    assert wait(studio, studio.load(), lambda s: s.finished).state == "done"
    assert studio.profile().size == 128


def test_a_model_that_is_chosen_does_not_wait_for_edits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it refused to a visitor who has as many edits waiting as may be."""
    monkeypatch.setattr("webui.studio.visitor", lambda own: {"a tab": own})
    release = threading.Event()
    studio = Studio(
        NAME, "cpu", tmp_path, limits=Limits(own=2),
        runner=lambda task, report, stop: wait_for(release)(report, stop),
    )  # fmt: skip
    plan = small_plan()
    plan_id = studio.kept.store_plan(Request("clip.mp4", plan.config), plan)
    edits = [studio.edit(plan_id, "a blue ball", EditConfig()) for _ in range(2)]
    until(lambda: studio.jobs.counts().get("running"))
    waiting = wait(studio, studio.load(), lambda s: True)
    for job in (*edits, waiting.id):
        studio.jobs.stop(job)
    assert waiting.state == "waiting" and waiting.ahead == 1


def test_a_prompt_that_is_typed_loads_no_model(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    """It would come onto the GPU beside a job that runs; checking prompts is nobody's turn."""
    model = str(tiny_folder("sd1"))
    studio = Studio(model, "cpu", tmp_path / "results")
    long = "red " * 200
    assert studio.prompt_problems(long) == [] and studio.engines.get(model) is None
    wait(studio, studio.load(), lambda s: s.finished)
    assert "too long" in studio.prompt_problems(long)[0]


def test_a_model_that_cannot_be_fetched_is_explained(hub: Hub, tmp_path: Path) -> None:
    hub.repositories[NAME].gated = True
    studio = Studio("embedded", "cpu", tmp_path / "results", models=(NAME,))
    snapshot = wait(studio, studio.load(NAME), lambda s: s.finished)
    assert snapshot.state == "failed"
    assert snapshot.problem.startswith(f"{NAME} is gated: accept its terms at {hub.address}/{NAME}")


def test_the_oldest_model_gives_its_memory_back_before_the_next_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its modules lie in cycles of references, and what they held stays torch's until it is told to let go of it."""
    engines, emptied = Engines("cpu"), list[bool]()

    class Engine:
        def __init__(self) -> None:
            self.cycle = self

    first = Engine()
    alive, made = weakref.ref(first), [Engine(), Engine(), first]
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(alive() is None))

    def make(*asked: Any) -> Any:
        if asked[0] == "third":
            assert emptied == [True], "the first is gone, and its memory is free"
        return made.pop()

    monkeypatch.setattr(engines, "_make", make)
    del first
    gc.disable()
    try:
        for model in ("first", "second", "third"):
            engines.load(model)
    finally:
        gc.enable()
    assert engines.get("first") is None and engines.get("second") is not None
