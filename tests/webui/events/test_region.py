"""The search for a region: what is asked for while it runs stays, and what is no longer asked for is not shown."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest

from adaflow_core.config import PlanConfig
from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.picture.region import RegionMask
from helpers.plans import small_plan
from webui.events.common.outputs import OverOutputs
from webui.events.common.over import asked_over, region_of
from webui.events.region import RegionEvents
from webui.jobs.tasks import Request
from webui.kept import OverState
from webui.studio import Studio
from webui.views import labels

PAINTED: Any = {"layers": [np.pad(np.full((8, 8, 4), 255, np.uint8), ((4, 36), (4, 52), (0, 0)))]}  # of 48 x 64 pixels
BOX = 50, 50, 75, 75


class Page:
    """A tab: its events, one plan, and what is painted and shown there by now. Searches wait until they are told."""

    def __init__(self, folder: Path, found: Callable[[Any], RegionMask] | None = None) -> None:
        self.go_on, self.found = threading.Event(), found or whole
        self.studio = Studio("embedded", "cpu", folder, runner=self.find)
        self.region = RegionEvents(self.studio)
        self.plan_id = self.studio.kept.store_plan(Request("a.mp4", PlanConfig()), small_plan())
        self.over = OverState()
        self.over_id = ""
        self.loaded: tuple[int, str] | None = None
        self.shown: dict[str, Any] = {}

    def find(self, task: Any, report: Any, stop: Any) -> RegionMask:
        while not self.go_on.wait(0.005):
            if stop():
                raise Stopped
        return self.found(task)

    def take(self, outputs: OverOutputs) -> None:
        """As the page takes outputs."""
        self.shown |= {name: value for name, value in outputs._asdict().items() if value != gr.skip()}
        self.over, self.over_id = self.shown.get("over", self.over), self.shown.get("over_id", self.over_id)

    async def begin(self, event: AsyncIterator[OverOutputs]) -> AsyncIterator[OverOutputs]:
        """An event up to where its search runs."""
        self.take(await anext(event))
        return event

    async def end(self, *events: AsyncIterator[OverOutputs]) -> None:
        self.go_on.set()
        for event in events:
            async for outputs in event:
                self.take(outputs)

    def load(self, frame: int) -> None:
        _, self.loaded = self.region.load_frame(self.plan_id, self.over, "", frame)

    def paint(self, frame: int | None = 0) -> AsyncIterator[OverOutputs]:
        """On a frame that is loaded for it; None: on the one that is."""
        if frame is not None:
            self.load(frame)
        return self.region.use_strokes(self.plan_id, self.over, "", self.loaded, PAINTED, labels.PAINT_IN, 8)

    def box(self, frame: int = 0) -> AsyncIterator[OverOutputs]:
        return self.region.use_box(self.plan_id, self.over, self.over_id, frame, *BOX, labels.PAINT_IN, 8)

    def words(self, words: str = "ball") -> AsyncIterator[OverOutputs]:
        return self.region.find_words(self.plan_id, self.over, "", words, 8)


def whole(task: Any, doubt: str = "") -> RegionMask:
    weights = np.full(task.plan.video.frames.shape[:3], 255, np.uint8)
    return RegionMask(weights, "digest", task.region.as_json(), doubt=doubt)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    return Page(tmp_path / "results")


def run(what: Any) -> None:
    asyncio.run(asyncio.wait_for(what, 60))


def test_a_region_that_may_be_another_thing_is_said(page: Page) -> None:
    page.found = lambda task: whole(task, "'ball' hardly stands out <here>")
    run(page.end(page.words()))
    said = page.shown["region_line"]
    assert "Only this part is edited; “ball”" in said and "hardly stands out &lt;here&gt;" in said
    assert page.shown["region_job_id"] == page.shown["region_progress"] == "" and page.over.region.search.before is None
    assert page.studio.kept.find_over(page.over.id) == page.over, "a reload finds it"


def test_the_whole_picture_stays_what_is_asked_for(page: Page) -> None:
    async def visit() -> None:
        searching = await page.begin(page.words())
        assert page.over.region.words == "ball", "an edit that is begun now is of it"
        job = page.over.region.search.job
        page.take(page.region.no_region(page.over, ""))
        assert page.studio.jobs.snapshot(job).left
        await page.end(searching)

    run(visit())
    assert region_of(page.over.region) is None and page.shown["region_line"] == page.shown["region_job_id"] == ""
    assert region_of(page.studio.kept.find_over(page.over.id).region) is None


def test_what_was_found_just_before_the_whole_picture_was_asked_for_is_not_shown(page: Page) -> None:
    async def visit() -> None:
        searching = await page.begin(page.words())
        page.go_on.set()
        while not page.studio.jobs.snapshot(page.over.region.search.job).finished:
            await asyncio.sleep(0.01)
        page.take(page.region.no_region(page.over, ""))
        await page.end(searching)

    run(visit())
    assert region_of(page.over.region) is None and page.shown["region_line"] == ""


def test_a_keyframe_given_back_meanwhile_stays(page: Page, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 48), "red").save(tmp_path / "changed.png")

    async def visit() -> None:
        searching = await page.begin(page.words())
        page.take(page.region.give_back(page.plan_id, page.over, "", 3, str(tmp_path / "changed.png")))
        await page.end(searching)

    run(visit())
    assert list(page.over.pictures) == [3] and page.over.region.words == "ball"
    assert "Only this part is edited" in page.shown["region_line"] and "1 keyframe by hand" in page.shown["hand_line"]


def test_a_box_is_added_to_what_is_being_carried(page: Page) -> None:
    async def visit() -> None:
        first = await page.begin(page.paint())
        second = await page.begin(page.box())
        await page.end(first, second)

    run(visit())
    mask = page.over.region.masks[0]
    assert mask[4:12, 4:12].all() and mask[24:36, 32:48].all() and mask.sum() == 64 + 192
    assert page.shown["region_job_id"] == "" and page.over.region.search.before is None


def test_strokes_are_of_the_frame_that_was_painted_on(page: Page) -> None:
    """Whatever number is typed by now; those on another video's frame, or on one of other frames, are refused."""
    page.load(4)
    run(page.end(page.paint(None)))
    assert list(page.over.region.masks) == [4]
    plan = small_plan()
    other = replace(plan, video=replace(plan.video, digest="of other frames"))
    page.plan_id = page.studio.kept.store_plan(Request("b.mp4", PlanConfig()), other)
    with pytest.raises(gr.Error, match="not on a frame of this range and size; load a frame"):
        run(page.end(page.paint(None)))


def test_of_a_frame_that_is_not_reached_yet_nothing_is_added_or_taken_away(page: Page) -> None:
    async def visit() -> None:
        searching = await page.begin(page.paint())
        with pytest.raises(gr.Error, match="still being found in frame 4; wait for it"):
            await anext(page.box(4))
        await page.end(searching)
        await page.end(page.box(4))

    run(visit())
    assert sorted(page.over.region.masks) == [0, 4] and page.over.region.masks[4].all(), "with what was carried there"


def test_a_search_that_finds_nothing_leaves_the_region_before(page: Page) -> None:
    def find(task: Any) -> RegionMask:
        if task.region.words == "zebra":
            raise AdaFlowError("'zebra' is not in the source prompt")
        return whole(task)

    async def visit() -> None:
        await page.end(page.words())
        before = page.over
        page.go_on.clear()
        first = await page.begin(page.words("cube"))
        second = await page.begin(page.words("zebra"))
        with pytest.raises(gr.Error, match="is not in the source prompt"):
            await page.end(first, second)
        assert page.over == before and "“ball”" in page.shown["region_line"]

    page.found = find
    run(visit())


def test_strokes_are_added_to_masks_that_gradio_forgot(page: Page) -> None:
    """They are found by the id that the browser has; where they are not kept any more nothing takes their place."""
    run(page.end(page.paint()))
    page.over = OverState()
    run(page.end(page.box()))
    assert page.over.region.masks[0].sum() == 64 + 192
    page.over = OverState()
    page.take(page.region.no_region(page.over, page.over_id))
    assert region_of(page.over.region) is None and page.over.id == page.over_id
    page.over, page.over_id = OverState(), "what is not kept any more"
    with pytest.raises(gr.Error, match="not kept any more; reload"):
        run(page.end(page.box()))


def another_plan(page: Page) -> str:
    """Of other frames of the video, or of another size."""
    plan = small_plan()
    other = replace(plan, video=replace(plan.video, digest="of other frames"))
    return page.studio.kept.store_plan(Request("a.mp4", PlanConfig()), other)


def test_a_region_of_other_frames_than_those_of_the_plan_is_not_shown(page: Page) -> None:
    """There is another plan by the time that it is found: with another size, or another range of frames."""
    another = another_plan(page)

    async def show(plan_id: str) -> None:
        await page.end(page.region.show_over(plan_id, page.over, ""))

    async def visit() -> None:
        searching = await page.begin(page.box())
        async for outputs in page.region.show_over(page.plan_id, page.over, ""):
            page.take(outputs)
        assert region_of(page.over.region) is not None, "of this plan it goes on"
        await show(another)
        await page.end(searching)

    run(visit())
    assert region_of(page.over.region) is None and "it is not used" in page.shown["region_line"]
    assert page.shown["region_job_id"] == ""


def test_what_was_painted_comes_back_with_its_frames(page: Page) -> None:
    """And a region of words goes with all of them; what is taken away meanwhile does not come back."""
    another, mine = another_plan(page), page.plan_id

    async def show(plan_id: str) -> None:
        await page.end(page.region.show_over(plan_id, page.over, ""))

    run(page.end(page.box()))
    painted = page.over.region.masks
    run(show(another))
    assert "comes back" in page.shown["region_line"] and page.studio.kept.find_over(page.over.id) == page.over
    region, _ = asked_over(page.studio.kept.find_plan(mine), page.over)
    assert region is not None and region.painted == painted, "also for an edit before the page shows it"
    run(show(mine))
    assert page.over.region.masks == painted and "painted on frame 0" in page.shown["region_line"]
    run(show(another))
    page.take(page.region.no_region(page.over, ""))
    assert not page.over.aside, "nor the pictures of it"
    run(show(mine))
    assert region_of(page.over.region) is None
    run(page.end(page.words()))
    run(show(another))
    assert page.over.region.words == "ball" and "“ball”" in page.shown["region_line"]


@pytest.mark.parametrize("painted", [False, True])
def test_a_region_stays_shown_while_it_is_asked_for(painted: bool, page: Page) -> None:
    """Also where its search in other frames is stopped, or what found it is forgotten: an edit is of it."""
    another, mine = another_plan(page), page.plan_id

    async def stop_search(plan_id: str) -> None:
        page.go_on.clear()
        async for outputs in page.region.show_over(plan_id, page.over, ""):
            page.take(outputs)
            page.studio.jobs.stop(page.shown["region_job_id"])

    run(page.end(page.box() if painted else page.words("<ball>")))
    if painted:
        run(page.end(page.region.show_over(another, page.over, "")))
        page.studio.jobs.forget_older_than(0)
    with pytest.raises(gr.Error) as stopped:
        run(stop_search(mine if painted else another))
    assert not stopped.value.visible and page.shown["region_job_id"] == ""
    region, _ = asked_over(page.studio.kept.find_plan(mine if painted else another), page.over)
    assert region is not None and page.over.region.search.before is None and "stopped" in page.shown["region_progress"]
    said = (
        "what was painted on frame 0 is to be" if painted else "“&lt;ball&gt;” is to be edited; it was not found here"
    )
    assert said in page.shown["region_line"] and page.shown["region_words"] == ("" if painted else "<ball>")
