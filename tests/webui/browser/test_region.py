"""The page in a real browser: a region that is painted and corrected, a keyframe given back, the delivered size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from helpers.pages import IN_BROWSER, choose_example, remembered, set_slider

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = IN_BROWSER
PAINTED = "Only this part is edited; painted on frame 0, 4."


def paint(page: Page, frame: int, x: float, y: float) -> None:
    """A stroke around a place of a frame, in parts of its width and height."""
    page.get_by_label("Frame to paint on").fill(str(frame))
    page.get_by_role("button", name="Load the frame").click()
    canvas = page.locator(".af-canvas canvas").first
    canvas.wait_for()
    page.wait_for_timeout(1500)  # the frame is drawn by the graphics library, of which the page shows nothing
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    side = 0.8 * min(box["width"], box["height"])
    left, top = box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2
    page.mouse.move(left + x * side, top + y * side)
    page.mouse.down()
    page.mouse.move(left + (x + 0.15) * side, top + (y + 0.05) * side, steps=6)
    page.mouse.up()
    page.get_by_role("button", name="Use what is painted").click()


@pytest.mark.thorough
@pytest.mark.parametrize("opened", [False, True])
def test_a_region_a_keyframe_by_hand_and_the_delivered_size(page: Page, opened: bool, tmp_path: Path) -> None:
    """And, where it is `opened`, the project of all of it."""
    choose_example(page, frames="0:6", steps=1)
    page.get_by_role("button", name="Preview keyframes").click()
    page.get_by_role("tab", name="Timeline").wait_for()
    page.get_by_role("button", name="Only a part of the picture").click()
    words = page.get_by_label("Words of the source prompt")
    words.fill("zebra")
    words.press("Enter")
    page.get_by_text("is not in the source prompt").wait_for()
    words.fill("ball")
    page.get_by_role("button", name="Find it").click()
    page.get_by_text("Only this part is edited; “ball”.").wait_for()
    set_slider(page, "Feather (pixels)", 4)
    paint(page, 0, 0.4, 0.4)
    page.get_by_text("Only this part is edited; painted on frame 0.").wait_for()
    paint(page, 4, 0.6, 0.6)
    page.get_by_text(PAINTED).wait_for()

    page.get_by_role("button", name="Keyframes edited by hand").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the keyframe").click()
    keyframe = np.asarray(Image.open(download.value.path()).convert("RGB")).copy()
    height, width = keyframe.shape[:2]
    keyframe[height // 3 : height // 2, width // 3 : width // 2] = (0, 0, 255)
    changed = tmp_path / "changed.png"
    Image.fromarray(keyframe).save(changed)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Give it back").click()
    chooser.value.set_files(changed)
    page.get_by_text("1 keyframe by hand.").wait_for()

    # A reload loses nothing of it.
    remembered(page, "tab.over && tab.plan")
    page.reload()
    page.get_by_role("button", name="Keyframes edited by hand").click()
    page.get_by_text("1 keyframe by hand.").wait_for()
    page.get_by_role("button", name="Only a part of the picture").click()
    page.get_by_text(PAINTED).wait_for()

    page.get_by_role("radio", name="working").check()
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("Edit ready", exact=True).wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the report").click()
    report = json.loads(Path(download.value.path()).read_text())
    assert [row["frame"] for row in report["region"]["painted"]] == [0, 4] and report["region"]["feather"] == 4
    assert len(report["by_hand"]) == 1
    assert report["command"].endswith("-project.json --deliver=working")
    if not opened:
        return
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the video").click()
    film = Path(download.value.path()).read_bytes()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the project").click()
    project = tmp_path / "project.json"
    download.value.save_as(project)

    # The project alone, opened by another visitor, gives the same film.
    page.evaluate("sessionStorage.clear(); localStorage.clear()")
    page.reload()
    page.get_by_role("button", name="Preview keyframes").wait_for()
    page.locator("input[type=file][accept='.json']").set_input_files(project)
    page.get_by_text("What was painted or given back (frame 0, 4, ").wait_for()
    page.get_by_role("radio", name="working").check()
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("Edit ready", exact=True).wait_for()
    page.get_by_role("button", name="Only a part of the picture").click()
    page.get_by_text(PAINTED).wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the video").click()
    assert Path(download.value.path()).read_bytes() == film


@pytest.mark.thorough
def test_a_region_is_given_as_a_box_by_keyboard_alone(page: Page) -> None:
    """The left half of frame 2, less its upper half."""
    choose_example(page, frames="0:4", steps=1)
    page.get_by_role("button", name="Preview keyframes").press("Enter")
    page.get_by_role("tab", name="Timeline").wait_for()
    page.get_by_role("button", name="Only a part of the picture").press("Enter")
    set_slider(page, "Feather (pixels)", 0)
    page.get_by_label("Frame to paint on").fill("2")
    page.get_by_label("Left (%)").focus()
    for number in ("0", "0", "50", "0"):
        page.keyboard.press("Control+A")
        page.keyboard.type(number)
        page.keyboard.press("Tab")
    focused = "document.activeElement.textContent.trim()"
    assert page.evaluate(focused) == "Use the box", "it comes next"
    page.keyboard.press("Enter")
    page.get_by_text("The box is empty; Left must be less than Right, and Top less than Bottom").wait_for()
    page.get_by_label("Bottom (%)").fill("100")
    page.get_by_label("Bottom (%)").press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("Only this part is edited; painted on frame 2.").wait_for()
    assert page.locator(".caption-label", has_text="frame 2").last.inner_text().startswith("50%")

    page.get_by_label("Take away from it").press("Space")
    page.get_by_label("Bottom (%)").fill("50")
    page.get_by_role("button", name="Use the box").press("Enter")
    page.locator(".caption-label", has_text="25% · ").first.wait_for()
