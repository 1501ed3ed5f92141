"""The page in a real browser: an edit over time, from drafts to a project that is opened again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.film.project import Project
from adaflow_core.picture.region import Region
from helpers.pages import CLIPS, IN_BROWSER, IN_VIEW, choose_example, remembered, set_slider

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = IN_BROWSER


@pytest.mark.thorough
@pytest.mark.parametrize("width", [1280, 390])
def test_an_edit_over_time(page: Page, width: int, tmp_path: Path) -> None:
    """A draft, prompts of ranges, a retake, and the project of all of it opened again."""
    page.set_viewport_size({"width": width, "height": 900})
    clip = choose_example(page, frames="0:6", steps=1)
    page.get_by_label("Drafts side by side").click()
    page.get_by_role("option", name="four scales of guidance").click()
    page.get_by_role("button", name="Try on keyframes").click()
    page.get_by_text("Choose one, and the edit goes on from it.").wait_for()
    drafts = page.locator(".af-drafts .thumbnail-item")
    assert [text.strip() for text in drafts.all_inner_texts()] == [f"guidance {k}" for k in (1, 3, 6, 10)]
    drafts.nth(1).click()
    page.wait_for_function(
        "[...document.querySelectorAll('input')].some(e => e.ariaLabel?.includes('Guidance') && e.value == 3)"
    )

    page.get_by_label("A prompt for each shot").click()
    page.get_by_label("Split row 1 at frame").fill("4")
    page.get_by_role("button", name="Split").click()
    page.get_by_label("Split row 2 at frame").wait_for()
    rows = page.locator(".af-row textarea")
    assert rows.count() == 2
    assert [row.input_value() for row in rows.all()] == [clip["prompt"]] * 2, "what was typed before"
    rows.nth(1).fill("")
    page.get_by_label("Frames 0 to 3").fill("a green ball")
    # Rows fill the window: the button and what it began stay in it.
    size = page.viewport_size
    assert size is not None
    page.set_viewport_size({"width": size["width"], "height": 500})
    rows.nth(0).scroll_into_view_if_needed()
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("Edit ready", exact=True).wait_for()
    assert page.evaluate(IN_VIEW, ".af-job")
    page.set_viewport_size(size)
    page.get_by_text("“a green ball”").wait_for()

    page.get_by_role("button", name="Make a stretch again").click()
    set_slider(page, "First frame of the stretch", 1)
    set_slider(page, "Its end, not included", 3)
    page.get_by_role("button", name="Retake", exact=True).click()
    page.locator(".af-retake .af-job").wait_for()  # beside the button that began it
    page.get_by_text("Edit: a green ball").wait_for()  # the take before, beside the new one
    page.get_by_role("button", name="Edits so far").click()
    page.locator(".af-history tr", has_text="frames 1 to 2 again, seed 1").wait_for()
    # The same stretch can be made again at once.
    assert page.get_by_label("number input for First frame of the stretch").input_value() == "1"
    assert page.get_by_label("number input for Its end, not included").input_value() == "3"
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the project").click()
    file = tmp_path / "project.json"
    download.value.save_as(file)
    project = json.loads(file.read_text())
    assert project["prompts"] == [{"frames": [0, 4], "prompt": "a green ball"}]
    assert [take["frames"] for take in project["takes"]] == [[1, 3]]
    assert project["settings"]["edit"]["guidance"] == 3 and project["video"]["path"] == Path(clip["file"]).name
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the video").click()
    film = Path(download.value.path()).read_bytes()

    # Opened by another visitor, the project gives the same film.
    page.evaluate("sessionStorage.clear(); localStorage.clear()")
    page.reload()
    page.get_by_role("button", name="Preview keyframes").wait_for()
    page.locator("input[type=file][accept='.json']").set_input_files(file)
    page.get_by_text("1 range with a prompt, 1 take").wait_for()
    page.get_by_label("Split row 2 at frame").wait_for()
    page.get_by_role("button", name="Settings of the edit").click()
    assert page.get_by_label("number input for Guidance").input_value() == "3"
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("Edit ready", exact=True).wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the video").click()
    assert Path(download.value.path()).read_bytes() == film
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing hangs over the side"


@pytest.mark.thorough
def test_a_project_that_was_opened_and_not_planned_comes_back_with_a_reload(page: Page, tmp_path: Path) -> None:
    """Its video, prompts, settings and region, until another video is chosen."""
    clip = json.loads((CLIPS / "clips.json").read_text(encoding="utf-8"))[0]
    video, ranges = CLIPS / Path(clip["file"]).name, [(0, 4, "a green ball"), (4, 6, "a pink ball")]
    prompts = tuple({"frames": [start, end], "prompt": prompt} for start, end, prompt in ranges)
    region = Region(words="ball", feather=5).as_json(tmp_path)
    asked = PlanConfig(source_prompt=clip["source_prompt"], prune=0.3), EditConfig(steps=1, guidance=3.0)
    file = tmp_path / "project.json"
    Project(video, *asked, prompts, frames="0:6", region=region, crossfade=4).save(file)
    page.locator("input[type=file][accept='.json']").set_input_files(file)
    page.get_by_text("2 ranges with a prompt").wait_for()
    remembered(page, "tab.settings?.includes('0:6') && tab.over && tab.video")

    page.reload()
    page.get_by_text("frames per second").wait_for()
    assert page.get_by_label("What is in the video").input_value() == clip["source_prompt"]
    page.get_by_label("Split row 2 at frame").wait_for()
    assert [row.input_value() for row in page.locator(".af-row textarea").all()] == [prompt for *_, prompt in ranges]
    page.get_by_role("button", name="Advanced").click()
    assert page.get_by_label("Frame range").input_value() == "0:6"
    assert page.get_by_label("number input for Pruning ratio").input_value() == "0.3"
    assert page.get_by_label("Crossfade, in frames").input_value() == "4"
    page.get_by_role("button", name="Settings of the edit").click()
    assert page.get_by_label("number input for Guidance").input_value() == "3"
    page.get_by_role("button", name="Preview keyframes").click()
    page.get_by_role("tab", name="Timeline").wait_for()
    page.get_by_role("button", name="Only a part of the picture").click()
    page.get_by_text("Only this part is edited; “ball”.").wait_for()

    page.get_by_role("button", name="Thumbnail 2 of").first.click()
    remembered(page, "tab.settings && !tab.settings.includes('0:6')")
