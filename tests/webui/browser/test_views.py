"""The page in a real browser: how a plan and a result are looked into."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers.films import make
from helpers.pages import IN_BROWSER, choose_example, set_slider

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = IN_BROWSER
SOURCE, EDITED = (f"document.querySelector('.af-{name} video')" for name in ("source", "edited"))


def check_the_film_of_the_head(page: Page) -> None:
    """It stands for who wants less motion, and plays for others while it can be seen and they have not stopped it."""
    film = "document.querySelector('.af-film video')"
    playing, standing = f"!{film}.paused && {film}.currentTime > 0", f"{film}.paused"
    page.wait_for_function(f"{film}?.readyState > 1")
    page.wait_for_timeout(500)
    assert page.evaluate(f"{film}.paused && {film}.currentTime === 0"), "its first picture"
    page.emulate_media(reduced_motion="no-preference")
    page.wait_for_function(playing)
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_function(standing)
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_function(playing)
    hide = "Object.defineProperty(document, 'hidden', {get: () => %s, configurable: true});"
    hide += "document.dispatchEvent(new Event('visibilitychange'))"
    page.evaluate(hide % "true")
    page.wait_for_function(standing)
    page.evaluate(hide % "false")
    page.wait_for_function(playing)
    page.evaluate(f"{film}.pause()")
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_timeout(300)
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(300)
    assert page.evaluate(standing), "stopped by the visitor"
    page.emulate_media(reduced_motion="reduce")


@pytest.mark.thorough
def test_a_plan_is_looked_into_and_changed_by_hand(page: Page) -> None:
    """A point's matches, keyframes set by hand, the plan's file, words that are clicked; one button stands out."""
    check_the_film_of_the_head(page)
    page.get_by_text("a toy that knows 8 drawn things").wait_for()
    colour = "name => getComputedStyle(document.querySelector(name)).backgroundColor"
    first, then = page.evaluate(colour, ".af-first"), page.evaluate(colour, ".af-then")
    choose_example(page)
    set_slider(page, "Keyframes (0 = automatic)", 2)
    page.get_by_role("button", name="Preview keyframes").click()
    page.locator(".af-facts").wait_for()
    assert first != then
    for name, expected in ((".af-first", then), (".af-then", first)):  # buttons go over to another colour
        page.wait_for_function(f"([name, colour]) => ({colour})(name) === colour", arg=[name, expected])

    page.get_by_role("tab", name="Timeline").click()
    picture = page.locator("button[aria-label='Similarity to its keyframe'] img")
    picture.wait_for()
    picture.click()
    page.get_by_text("this frame takes what the edit changes").wait_for()
    assert page.locator(".thumbnail-item", has_text="from keyframe 1").count() == 1

    # What is drawn with a plan is of the sliders that came with it.
    shown = "document.querySelector('.af-slice img').src"
    first = page.evaluate(shown)
    column = int(page.get_by_label("number input for Pixel column").input_value())
    assert column > 0
    for place, same in ((1, "!=="), (column, "===")):
        set_slider(page, "Pixel column", place)
        page.wait_for_function(f"first => {shown} {same} first", arg=first)

    page.get_by_role("button", name="Keyframe here", exact=True).click()
    page.wait_for_function("document.querySelector('.af-fact dd').innerText === '3'")
    page.get_by_role("button", name="Keyframe here", exact=True).click()
    page.get_by_text("is a keyframe already").first.wait_for()
    page.get_by_role("button", name="No keyframe here").click()
    page.wait_for_function("document.querySelector('.af-fact dd').innerText === '2'")

    with page.expect_download() as saved:
        page.get_by_role("button", name="Save the plan (JSON)").click()
    assert saved.value.suggested_filename == "ball-plan.json"

    page.get_by_role("button", name="words that this model knows").click()
    for word, prompt in (("orange", "an orange ball in a meadow"), ("at night", "an orange ball at night")):
        page.get_by_label(word, exact=True).click()
        page.wait_for_function(
            "text => [...document.querySelectorAll('textarea, input')].some(e => e.value === text)", arg=prompt
        )


@pytest.mark.thorough
def test_the_place_of_an_edit_is_shown_before_it(page: Page) -> None:
    choose_example(page)
    set_slider(page, "Keyframes (0 = automatic)", 2)
    set_slider(page, "Focus", 1)
    page.get_by_role("button", name="Show where it changes").click()
    page.get_by_text("of the picture; shape is kept.").wait_for()
    assert page.locator(".thumbnail-item", has_text="% · ").count() == 2
    structure = page.get_by_label("Structure", exact=True)
    assert structure.input_value() == "automatic"
    structure.fill("0.3")
    structure.press("Enter")
    page.get_by_role("button", name="Show where it changes").click()
    page.get_by_text("shape is kept for 30% of the steps").wait_for()
    page.get_by_label("Prompt", exact=True).fill(" ")
    page.get_by_role("button", name="Show where it changes").click()
    page.get_by_text("The prompt is empty").first.wait_for()


@pytest.mark.thorough
def test_the_result_can_be_compared_scored_and_repeated(page: Page) -> None:
    clip = choose_example(page, frames="0:4")
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("Edit ready", exact=True).wait_for()
    for name in ("Prompt agreement", "Left as it was", "Flicker", "Change from frame to frame"):
        page.locator(".af-fact", has_text=name).wait_for()

    page.get_by_role("button", name="Compare frame by frame").click()
    page.get_by_text("frame 2: the source to the left").wait_for()  # the middle one, until another is chosen
    slider = page.get_by_label("range slider for Frame to compare")
    slider.focus()
    slider.press("End")
    page.get_by_text("frame 3: the source to the left").wait_for()
    assert page.locator(".af-compare img").count() == 2
    assert all(
        "of the divider" in str(picture.get_attribute("alt")) for picture in page.locator(".af-compare img").all()
    )
    divider = page.get_by_role("slider", name="Divider between the two pictures")
    divider.focus()
    for key, place in (("Home", "0"), ("End", "100"), ("PageDown", "90")):
        divider.press(key)
        page.wait_for_function("([e, at]) => e.ariaValueNow === at", arg=[divider.element_handle(), place])
    shown = page.locator(".af-compare img").nth(1).evaluate("e => parseFloat(e.style.clipPath.split(' ').at(-1))")
    assert shown > 60, "of the right picture little is left"

    # The players are as high as their videos, and what they are made of says which video it belongs to.
    for name, label in (("source", "Source, as it was edited"), ("edited", "Edit")):
        video = page.locator(f".af-{name} video")
        assert video.get_attribute("aria-label") == label
        width, height, shape = video.evaluate("e => [e.offsetWidth, e.offsetHeight, e.videoWidth / e.videoHeight]")
        assert height == pytest.approx(min(420, width / shape), abs=2)
        for part in ("Play or pause", "Full screen"):
            assert page.locator(f'.af-{name} [aria-label="{part}: {label}"]').count() == 1
        assert page.locator(f".af-{name} .download-link").get_attribute("aria-label") == f"Download: {label}"

    page.get_by_role("button", name="Reproduce this").click()
    command = page.locator(".cm-content").first.inner_text()
    assert clip["prompt"] in command and "--steps=2" in command and "--frames=0:4" in command


@pytest.mark.thorough
def test_both_videos_play_and_stand_as_one(page: Page) -> None:
    """Whichever of them is touched."""
    choose_example(page)
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("Edit ready", exact=True).wait_for()
    page.wait_for_function(f"{SOURCE}?.readyState > 2 && {EDITED}?.readyState > 2")
    page.evaluate(f"{SOURCE}.pause()")
    page.wait_for_function(f"{EDITED}.paused && Math.abs({EDITED}.currentTime - {SOURCE}.currentTime) < 0.011")
    page.evaluate(f"{SOURCE}.currentTime = 0.4")
    page.wait_for_function(f"Math.abs({EDITED}.currentTime - 0.4) < 0.011")
    page.evaluate(f"{EDITED}.currentTime = 0.2")
    page.wait_for_function(f"Math.abs({SOURCE}.currentTime - 0.2) < 0.011")
    # Standing still the end of the loop is not next to its beginning: another picture is seen there.
    page.evaluate(f"{EDITED}.currentTime = 0.002")
    page.wait_for_function(f"!{SOURCE}.seeking && Math.abs({SOURCE}.currentTime - 0.002) < 0.011")
    page.evaluate(f"{SOURCE}.currentTime = {SOURCE}.duration - 0.005")
    page.wait_for_function(f"Math.abs({EDITED}.currentTime - {SOURCE}.currentTime) < 0.011")
    page.evaluate(f"{SOURCE}.currentTime = 0.2")
    page.wait_for_function(f"Math.abs({EDITED}.currentTime - 0.2) < 0.011")
    page.evaluate(f"{EDITED}.play()")
    page.wait_for_function(f"!{SOURCE}.paused && {SOURCE}.currentTime > 0.25")
    # Also where the pause falls into a jump, as one at the end of the loop.
    page.evaluate(f"{SOURCE}.currentTime = 0.1; {SOURCE}.pause()")
    page.wait_for_function(f"{EDITED}.paused && {SOURCE}.paused")

    # A source that lags catches up.
    page.evaluate(f"{EDITED}.play()")
    page.wait_for_function(f"!{SOURCE}.paused && !{EDITED}.paused && {SOURCE}.readyState > 2")
    # Kept back without any event that a listener could answer.
    page.evaluate(f"setTimeout(() => {{ {SOURCE}.playbackRate = 0.1; }}, 0)")
    page.wait_for_function(
        f"""() => {{
          const apart = Math.abs({EDITED}.currentTime - {SOURCE}.currentTime);
          const near = Math.min(apart, Math.abs({EDITED}.duration - apart)) < 0.1;
          window.together = near ? (window.together || 0) + 1 : 0;
          return window.together > 10;
        }}""",
        polling=50,
    )


@pytest.mark.thorough
def test_what_a_browser_does_not_play_is_shown_by_a_copy(page: Page, tmp_path: Path) -> None:
    """A GIF, which Gradio takes for no video; of a file that the browser plays there is no copy."""
    gif, mov = make(tmp_path / "drawn.gif", 8, "gif", pixels="rgb8"), make(tmp_path / "drawn.mov", 10, "libx264")
    copy, said = page.locator(".af-copy video"), page.get_by_text("Your browser may not show this kind of file")
    page.locator("input[type=file]").first.set_input_files(gif)
    page.get_by_text("8 frames, ").wait_for()
    copy.wait_for()
    page.wait_for_function("document.querySelector('.af-copy video').readyState > 1")
    assert said.is_visible() and page.locator(".toast-body").count() == 0
    page.get_by_label("Clear", exact=True).or_(page.get_by_label("Remove")).first.click()

    # The same dropped onto the page.
    page.get_by_text("Drop Video Here").wait_for()
    page.evaluate(
        """data => {
          const files = new DataTransfer();
          const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
          files.items.add(new File([bytes], "dropped.gif", { type: "image/gif" }));
          const place = document.querySelector(".af-video button");
          place.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: files }));
        }""",
        base64.b64encode(gif.read_bytes()).decode(),
    )
    page.get_by_text("8 frames, ").wait_for()
    page.get_by_label("Clear", exact=True).or_(page.get_by_label("Remove")).first.click()

    page.get_by_text("Drop Video Here").wait_for()
    page.locator("input[type=file]").first.set_input_files(mov)
    page.get_by_text("10 frames, ").wait_for()
    page.wait_for_function("document.querySelector('.af-video.af-plays')")
    said.wait_for(state="hidden")
    assert not copy.is_visible()
