"""The page in a real browser: what a visitor sees and does. Skipped where there is no Chromium."""

from __future__ import annotations

import base64
import re
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from adaflow_core.video.decode import probe
from helpers.films import make
from helpers.pages import IN_BROWSER, IN_VIEW, PATIENCE, choose_example, fact, remembered, set_slider

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = IN_BROWSER
SOURCE, EDITED = (f"document.querySelector('.af-{name} video')" for name in ("source", "edited"))


def test_from_an_example_to_the_edited_video(page: Page, tmp_path: Path) -> None:
    clip = choose_example(page)
    page.get_by_text("frames per second").wait_for()
    set_slider(page, "Keyframes (0 = automatic)", 3)
    page.wait_for_timeout(1500)
    assert page.get_by_text("There is no plan yet").count() == 0, "a slider may be moved before there is one"
    page.get_by_role("button", name="Preview keyframes").click()
    page.locator(".af-facts").wait_for()
    assert fact(page, "Keyframes") == "3"
    gallery = page.locator(".af-gallery:not(.af-examples):not(.af-tokens) .thumbnail-item")
    assert gallery.count() == 3
    captions = [gallery.nth(k).inner_text() for k in range(3)]
    frames = [int(re.search(r"frame (\d+)", caption).group(1)) for caption in captions]  # type: ignore[union-attr]
    assert frames == sorted(frames) and all("segment of" in caption for caption in captions)

    # A click on a keyframe opens its tokens.
    gallery.nth(2).click()
    page.get_by_text("Keyframe 3 on the").wait_for()
    tokens = page.locator(".af-tokens .thumbnail-item")
    assert [f"frame {frame}" in tokens.nth(k).inner_text() for k, frame in enumerate(frames[:2])] == [True] * 2
    assert "% kept" in tokens.nth(0).inner_text()

    # A slider that moves after the preview changes what is kept.
    kept = fact(page, "Tokens per keyframe")
    set_slider(page, "Pruning ratio", 0.3)
    page.wait_for_function(
        "kept => ![...document.querySelectorAll('.af-fact dd')].some(e => e.innerText === kept)", arg=kept
    )
    assert int(fact(page, "Tokens per keyframe").replace(",", "")) > int(kept.replace(",", ""))
    slider = page.get_by_label("range slider for Keyframes (0 = automatic)")
    slider.focus()
    slider.press("ArrowRight")  # the keyboard releases it too
    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px", "its place is seen"
    page.wait_for_function("[...document.querySelectorAll('.af-fact dd')].some(e => e.innerText === '4')")

    page.get_by_role("tab", name="Timeline").click()
    page.get_by_text("Its keyframe is at").or_(page.get_by_text("It is a keyframe")).wait_for()
    plot = "document.querySelector('.af-plot img').src"
    before = page.evaluate(plot)

    # What runs and what is ready is seen from where it was begun.
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator(".af-running").wait_for()
    assert page.evaluate(IN_VIEW, ".af-job")
    page.get_by_text("Edit ready").wait_for()
    page.get_by_role("link", name="See it").click()
    page.wait_for_function(IN_VIEW, arg=".af-result .af-quote")
    page.get_by_text(f"“{clip['prompt']}”").wait_for()
    page.wait_for_function(f"before => {plot} !== before", arg=before)  # now with the residual of the edit
    videos = page.locator("video")
    page.wait_for_function("document.querySelectorAll('video').length >= 3")
    sources = [str(videos.nth(k).get_attribute("src")) for k in range(videos.count())]
    files = []
    for name in ("/ball-source.mp4", "/ball-a-blue-ball-in-a-meadow.mp4"):
        url = next(source for source in sources if source.endswith(name))
        files.append(tmp_path / name[1:])
        urllib.request.urlretrieve(url, files[-1])
    assert [probe(file).frames for file in files] == [8, 8]
    assert files[0].read_bytes() != files[1].read_bytes()

    # A reload finds the result again.
    remembered(page, "tab.job")
    page.reload()
    page.get_by_text("Edit ready").wait_for()
    page.get_by_text(f"“{clip['prompt']}”").wait_for()


_SLOW = """() => {
  const { fetch } = window, wait = () => new Promise((done) => setTimeout(done, 1500));
  window.fetch = async (url, how) => { if (how?.method === "POST") await wait(); return fetch(url, how); };
}"""


def test_what_is_pressed_before_an_example_has_come_is_of_it(page: Page) -> None:
    """It was refused, as of no video, or was of the video before."""
    page.evaluate(_SLOW)
    page.get_by_role("button", name="Thumbnail 1 of").first.click()
    page.get_by_role("button", name="Preview keyframes").click()
    assert page.get_by_label("What is in the video").input_value() != ""
    page.locator(".af-job").wait_for()
    page.get_by_role("button", name="Stop").first.click()
    page.locator(".af-job").wait_for(state="detached")
    toasts = page.locator(".toast-body")
    toasts.filter(has_text="was stopped").wait_for()
    assert toasts.count() == 1


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


# The contrast of two colours as a page computes them, "rgb(…)", by WCAG 2.
CONTRAST = """(a, b) => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((x) => x / 255)
      .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}"""


@pytest.mark.thorough
def test_what_is_on_the_page_has_a_name_and_a_key(page: Page) -> None:
    clip = choose_example(page)
    chosen, other = (page.get_by_role("button", name=f"(Thumbnail {number} of") for number in (1, 2))
    assert str(chosen.get_attribute("aria-label")).startswith(clip["title"])
    page.wait_for_function("e => e.ariaPressed === 'true'", arg=chosen.element_handle())
    assert other.get_attribute("aria-pressed") == "false"
    opened = page.get_by_role("button", name="Advanced")
    assert opened.get_attribute("aria-expanded") == "true"
    opened.click()
    page.wait_for_function("e => e.ariaExpanded === 'false'", arg=opened.element_handle())

    page.get_by_role("button", name="Preview keyframes").click()
    page.locator(".af-facts").wait_for()
    tab = page.get_by_role("tab", name="Keyframes")
    tab.focus()
    for key, reached in (
        ("ArrowRight", "Tokens"),
        ("End", "Timeline"),
        ("ArrowRight", "Keyframes"),
        ("End", "Timeline"),
    ):
        page.keyboard.press(key)
        page.wait_for_function("name => document.activeElement.innerText === name", arg=reached)
        assert page.evaluate("document.activeElement.ariaSelected") == "true"

    # The arrow keys choose a frame on a plot, which marks it, and a point of it.
    plot = page.get_by_role("button", name="Similarity of every frame to its keyframe")
    slice = page.get_by_role("button", name="One pixel column over time", exact=True)
    slice.wait_for()
    plot.focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    page.get_by_text(", frame 2: ").wait_for()
    marked = "getComputedStyle(document.documentElement).getPropertyValue('--af-frame-at')"
    page.wait_for_function(f"at => Math.abs({marked} - at) < 0.001", arg=(46 + 2.5 / 8 * 900) / 960)
    page.get_by_role("button", name="Similarity to its keyframe", exact=True).focus()
    for key in ("ArrowLeft", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    page.get_by_text("this frame takes what the edit changes").wait_for()

    resets = [str(button.get_attribute("aria-label")) for button in page.locator(".reset-button").all()]
    assert len(resets) > 5 and len({*resets}) == len(resets), "each says of what"
    for name in ("Stop the preview", "Stop the edit"):
        page.get_by_role("button", name=name, exact=True).wait_for()
    links = [str(link.get_attribute("aria-label")) for link in page.locator(".af-plot .download-link").all()]
    assert len(links) == 2 and all(re.match("Download: .+", link) for link in links)

    for scheme in ("light", "dark"):
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", scheme == "dark")
        page.wait_for_timeout(400)  # colours go over to others
        faint, edge = page.evaluate(
            f"""() => {{
              const contrast = {CONTRAST}, style = getComputedStyle;
              const text = document.querySelector("textarea:placeholder-shown"), box = document.querySelector(
                "input[type=checkbox]:not(:checked)");
              return [contrast(style(text, "::placeholder").color, style(text).backgroundColor),
                      contrast(style(box).borderTopColor, style(box.closest(".block")).backgroundColor)];
            }}"""
        )
        assert faint >= 4.5 and edge >= 3, (scheme, faint, edge)


@pytest.mark.thorough
def test_the_result_can_be_compared_scored_and_repeated(page: Page) -> None:
    clip = choose_example(page, frames="0:4")
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("Edit ready").wait_for()
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
def test_edits_are_kept_and_another_video_begins_anew(page: Page, drawn_clip: Path) -> None:
    clip = choose_example(page, frames="0:4")
    set_slider(page, "Keyframes (0 = automatic)", 2)
    page.get_by_role("button", name="Stop").last.click()
    page.get_by_text("Nothing is running that could be stopped.").wait_for()
    prompt = page.get_by_label("Prompt", exact=True)
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("Edit ready").wait_for()
    page.get_by_text(f"“{clip['prompt']}”").wait_for()
    first = remembered(page, "tab.job && tab.video")
    prompt.fill("a green ball")
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("“a green ball”").wait_for()

    # Enter in a slider's number takes it.
    kept = fact(page, "Tokens per keyframe")
    box = page.get_by_label("number input for Pruning ratio")
    box.fill("0.9")
    box.press("Enter")
    page.wait_for_function(
        "kept => ![...document.querySelectorAll('.af-fact dd')].some(e => e.innerText === kept)", arg=kept
    )

    # Two edits side by side.
    page.get_by_role("button", name="Edits so far").click()
    rows = page.locator(".af-history tbody tr")
    assert [row.split("\t")[:3] for row in rows.all_inner_texts()] == [
        ["2", "ball.mp4", "a green ball"],
        ["1", "ball.mp4", clip["prompt"]],
    ]
    assert "--steps=2" in rows.first.inner_text() and "%" in rows.first.inner_text()
    page.get_by_label("Beside it").click()
    page.get_by_role("option", name=f"1: ball.mp4, {clip['prompt']}").click()
    page.get_by_text(f"Edit: {clip['prompt']}").wait_for()
    page.get_by_label("Edit shown").click()
    page.get_by_role("option", name=f"1: ball.mp4, {clip['prompt']}").click()
    page.get_by_text(f"“{clip['prompt']}”").wait_for()

    # A reload loses nothing.
    remembered(page, f"tab.job !== '{first['job']}' && tab.prompt === 'a green ball' && tab.settings?.includes(0.9)")
    page.reload()
    page.get_by_text("“a green ball”").wait_for()
    page.locator(".af-facts").first.wait_for()
    assert prompt.input_value() == "a green ball"
    assert page.get_by_label("What is in the video").input_value() == clip["source_prompt"]
    assert page.get_by_label("number input for Keyframes").input_value() == "2"
    page.get_by_text("frames per second").wait_for()

    # Another video: nothing of the first is left.
    page.get_by_label("Clear", exact=True).or_(page.get_by_label("Remove")).first.click()
    page.locator("input[type=file]").first.set_input_files(drawn_clip)
    page.get_by_text("12 frames, 1.0 s").wait_for()
    page.get_by_text("Keyframes, tokens and timeline will be here.").wait_for()
    assert prompt.input_value() == "" and page.get_by_label("What is in the video").input_value() == ""
    assert not page.get_by_text("“a green ball”").is_visible()
    assert page.locator(".af-examples .thumbnail-item.selected").count() == 0
    remembered(page, f"tab.video && tab.video !== '{first['video']}' && !tab.job && !tab.plan && !tab.prompt")
    page.reload()
    page.get_by_text("12 frames, 1.0 s").wait_for()
    assert page.locator(".af-facts").count() == 0 and not page.get_by_text("“a green ball”").is_visible()


@pytest.mark.thorough
def test_another_example_takes_away_what_was_of_the_first(page: Page) -> None:
    """A planning ends with what would follow it; an edit goes on aside, and is shown when it is asked for."""
    first = choose_example(page, frames="1:41")  # which no other test plans, so that it takes its time
    second = page.get_by_role("button", name=re.compile("Thumbnail 2 of")).first
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator(".af-job").wait_for()
    second.click()
    prompt = page.get_by_label("Prompt", exact=True)
    page.wait_for_function("text => ![...document.querySelectorAll('textarea, input')].some(e => e.value === text)",
                           arg=first["prompt"])  # fmt: skip
    page.locator(".af-job").wait_for(state="detached")
    page.wait_for_timeout(3000)
    assert page.locator(".af-job, .toast-body").count() == 0 and not page.locator(".af-facts").first.is_visible()

    # Drafts say that they are ready, and a reload finds them.
    page.get_by_label("Frame range").fill("0:4")
    page.get_by_role("button", name="Try on keyframes").click()
    remembered(page, "tab.drafted")
    assert page.get_by_text("Draft ready").count() == 0, "it is remembered while it is made"
    page.reload()
    page.get_by_text("Draft ready").wait_for()
    page.get_by_role("link", name="See it").click()
    page.wait_for_function(IN_VIEW, arg=".af-draft .af-quote")
    remembered(page, "tab.drafted && tab.plan && tab.video")
    page.reload()
    page.get_by_text("The edit goes on from it.").wait_for()

    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator(".af-job", has_text=re.compile("Inverting the source|Editing")).wait_for()
    mine = prompt.input_value()
    page.get_by_role("button", name=re.compile("Thumbnail 1 of")).first.click()
    page.get_by_text("It is among the edits so far").wait_for()
    assert page.get_by_text(f"“{mine}”").first.is_visible(), "it says which edit it is"
    assert not page.locator("#result").is_visible() and prompt.input_value() == first["prompt"]
    assert not page.locator(".af-draft").is_visible()
    page.get_by_role("button", name="Edits so far").click()
    page.get_by_label("Edit shown").click()
    page.get_by_role("option", name=mine).click()
    page.locator("#result .af-quote", has_text=mine).wait_for()


@pytest.mark.thorough
def test_both_videos_play_and_stand_as_one(page: Page) -> None:
    """Whichever of them is touched."""
    choose_example(page)
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("Edit ready").wait_for()
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
def test_a_reload_finds_the_running_job_and_stop_ends_it(page: Page) -> None:
    choose_example(page, frames="0:12", steps=100)
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("Inverting the source").wait_for()
    remembered(page, "tab.job")
    page.reload()
    page.get_by_text("left, ").first.wait_for()
    page.get_by_role("button", name="Stop").last.click()
    page.get_by_text("Edit stopped").wait_for()


@pytest.mark.thorough
def test_two_visitors_get_their_own_results(browser: Browser, address: str, tmp_path: Path) -> None:
    """Started together, one after the other on the device; each sees its own clip edited."""
    contexts = [browser.new_context(reduced_motion="reduce") for _ in range(2)]
    pages = [context.new_page() for context in contexts]
    clips = []
    for number, page in enumerate(pages):
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        page.get_by_role("button", name="Preview keyframes").wait_for()
        clips.append(choose_example(page, frames=f"0:{6 + 2 * number}", number=number))
    for page in pages:
        page.get_by_role("button", name="Edit", exact=True).click()
    lengths = []
    for page, clip in zip(pages, clips, strict=True):
        page.get_by_text("Edit ready").wait_for()
        page.get_by_text(f"“{clip['prompt']}”").wait_for()
        url = page.locator(".af-edited video").get_attribute("src")
        file = tmp_path / f"{len(lengths)}.mp4"
        urllib.request.urlretrieve(str(url), file)
        lengths.append(probe(file).frames)
    for context in contexts:
        context.close()
    assert lengths == [6, 8]


@pytest.mark.thorough
def test_no_serious_accessibility_violations(page: Page) -> None:
    """By axe-core, with a plan, drafts, a result and all that opens on the page; wide and narrow, light and dark."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")

    def check(where: str) -> None:
        page.wait_for_timeout(400)
        found = axe.Axe().run(page).response["violations"]
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        assert not serious, (where, [(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in serious])

    choose_example(page, frames="0:6", steps=1)
    page.get_by_role("button", name="Try on keyframes").focus()
    page.keyboard.press("Tab")
    page.wait_for_timeout(500)
    assert page.get_by_label("Drafts side by side").evaluate("e => e === document.activeElement")
    assert page.locator("[role=option]").count() == 0, "a list that is passed by stays closed"
    page.keyboard.press("ArrowDown")
    page.locator("[role=option]", has_text="four seeds").wait_for()
    page.keyboard.press("Tab")
    page.wait_for_function("!document.querySelector('[role=option]')")  # a list that is left does not cover the page
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("Edit ready").wait_for()
    page.get_by_role("button", name="Show where it changes").click()
    page.get_by_text("Changes here").wait_for()
    page.get_by_role("button", name="Try on keyframes").click()
    page.get_by_text("The edit goes on from it.").wait_for()
    page.get_by_role("button", name="Enlarge").click()
    large = page.locator("dialog img")
    assert large.evaluate("e => e.width === 2 * e.naturalWidth"), "twice as large as it was drawn"
    page.keyboard.press("Escape")
    page.wait_for_function("!document.querySelector('dialog')")
    assert page.locator(".af-drafts .thumbnail-item").get_attribute("aria-pressed") == "false", "it chooses none"
    for part in ("Only a part of the picture", "Keyframes edited by hand", "Make a stretch again", "Compare frame",
                 "Reproduce this", "words that this model knows"):  # fmt: skip
        page.get_by_role("button", name=part).click()
    empty = "getComputedStyle(document.querySelector('.af-canvas .empty'), '::after').content"
    assert "Load the frame first" in page.evaluate(empty)
    page.get_by_role("button", name="Load the frame").click()
    page.locator(".af-canvas canvas").first.wait_for()
    page.get_by_label("A prompt for each shot").click()
    page.locator(".af-row textarea").first.wait_for()
    looks = (1280, "light", "Keyframes"), (390, "light", "Tokens"), (390, "dark", "Timeline"), (1280, "dark", "Tokens")
    for width, scheme, tab in looks:
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", scheme == "dark")
        page.get_by_role("tab", name=tab).click()
        check(f"{width} {scheme} {tab}")
    page.set_viewport_size({"width": 1280, "height": 900})


@pytest.mark.thorough
def test_a_file_that_is_no_video_is_refused_in_a_sentence(page: Page, tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("no video")
    page.locator("input[type=file]").first.set_input_files(text)
    page.get_by_text("is not a video that can be read").first.wait_for()
    assert "Traceback" not in page.content()
    assert page.get_by_text("Video not playable").count() == 0, "Gradio's own words, of which the page says more"


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


def test_html_that_a_visitor_types_is_text(page: Page) -> None:
    attack = '<img src=x onerror="window.attacked = 1"><script>window.attacked = 1</script>'
    page.get_by_label("Prompt", exact=True).fill(f"a red {attack} xylophone")
    page.get_by_label("Prompt", exact=True).blur()
    page.get_by_text("“xylophone”").wait_for()
    choose_example(page, frames=attack)
    page.get_by_role("button", name="Preview keyframes").click()
    message = page.get_by_text("Frame range is").first
    message.wait_for()
    assert "<img src=x onerror=" in message.inner_text(), "it is shown as it was typed"
    page.wait_for_timeout(500)
    assert page.evaluate("window.attacked === undefined")


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
def test_a_phone_needs_no_sideways_scrolling(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    choose_example(page)
    # The plan appears above the button that asked for it; the button stays where it was pressed, in all browsers.
    page.add_style_tag(content="* { overflow-anchor: none }")
    button = page.get_by_role("button", name="Show where it changes")
    button.scroll_into_view_if_needed()
    before = button.bounding_box()
    button.click()
    page.locator(".af-facts").wait_for()
    page.get_by_text("Changes here").wait_for()
    # The page follows with the next frame that is drawn; a frame may come late where other tests run beside.
    assert before
    page.wait_for_function(
        "([button, top]) => Math.abs(button.getBoundingClientRect().top - top) < 2",
        arg=[button.element_handle(), before["y"]],
        timeout=10_000,
    )
    for tab in ("Keyframes", "Tokens", "Timeline"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), tab
    # Their buttons cover nothing of them, also where they are scrolled, and nothing scrolls up and down in them.
    for scheme, scrolled in (("light", 0), ("light", 9999), ("dark", 0)):
        page.evaluate("dark => document.body.classList.toggle('dark', dark)", scheme == "dark")
        page.evaluate("x => document.querySelectorAll('.af-plot .image-container').forEach(e => { e.scrollLeft = x })",
                      scrolled)  # fmt: skip
        for plot in page.locator(".af-plot").all():
            buttons, picture = plot.locator(".icon-button-wrapper").bounding_box(), plot.locator("img").bounding_box()
            assert buttons and picture and buttons["y"] + buttons["height"] <= picture["y"], scheme
            assert buttons["x"] >= 0 and buttons["x"] + buttons["width"] <= 390, scrolled
            frame = plot.locator(".image-container")
            assert frame.evaluate("e => getComputedStyle(e).overflowY === 'hidden' && e.offsetWidth === e.clientWidth")
    # The plots keep the size at which they can be read, and scroll in their frame.
    assert page.locator(".af-plot img").first.bounding_box()["width"] == 960  # type: ignore[index]
    # They show the same time, and what a tap on them shows comes into view.
    left = "[...document.querySelectorAll('.af-plot .image-container')].map(e => e.scrollLeft)"
    page.evaluate("document.querySelector('.af-slice .image-container').scrollLeft = 120")
    page.wait_for_function(f"{left}.join() === '120,120'")
    page.locator(".af-plot img").first.click(position={"x": 300, "y": 100})
    page.wait_for_function(IN_VIEW, arg=".af-frame-picture img")
    assert page.evaluate(IN_VIEW, ".af-frame")

    # All examples are seen: nothing scrolls in its frame.
    assert page.locator(".af-examples .grid-wrap").evaluate("e => e.scrollHeight <= e.clientHeight")
    touch = page.context.new_cdp_session(page)
    touch.send("Emulation.setTouchEmulationEnabled", {"enabled": True})
    small = page.evaluate(
        """() => [...document.querySelectorAll(
          "input[type=number], input[type=range], .reset-button, .label-wrap, .icon-button, .controls .icon")]
          .filter((e) => e.offsetParent && Math.min(e.offsetWidth ?? 40, e.offsetHeight ?? 40) < 24)
          .map((e) => `${e.className} ${e.ariaLabel} ${e.offsetWidth}x${e.offsetHeight}`)"""
    )
    touch.send("Emulation.setTouchEmulationEnabled", {"enabled": False})
    assert small == []
