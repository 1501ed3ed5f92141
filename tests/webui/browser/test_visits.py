"""The page in a real browser: what a visitor does and sees, from an example to the edited video."""

from __future__ import annotations

import re
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from adaflow_core.progress import Report, Stop
from adaflow_core.video.decode import probe
from helpers.jobs import wait_for
from helpers.pages import IN_BROWSER, IN_VIEW, PATIENCE, choose_example, fact, remembered, set_slider
from webui.jobs.engines import Engines
from webui.jobs.tasks import EditTask, PlanTask

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = IN_BROWSER


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
    page.get_by_text("Edit ready", exact=True).wait_for()
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

    # A reload finds the result again, and what was set since.
    page.get_by_label("Negative prompt").fill("rain")
    remembered(page, "tab.job && tab.settings?.includes('rain')")
    page.reload()
    page.get_by_text("Edit ready", exact=True).wait_for()
    page.get_by_text(f"“{clip['prompt']}”").wait_for()
    page.get_by_role("button", name="Settings of the edit").click()
    assert page.get_by_label("Negative prompt").input_value() == "rain"


_SLOW = """() => {
  const { fetch } = window, wait = () => new Promise((done) => setTimeout(done, 1500));
  window.fetch = async (url, how) => { if (how?.method === "POST") await wait(); return fetch(url, how); };
}"""


@pytest.mark.thorough
def test_what_is_pressed_before_an_example_has_come_is_of_it(page: Page) -> None:
    """It was refused, as of no video, or was of the video before."""
    page.evaluate(_SLOW)
    page.get_by_role("button", name="Thumbnail 1 of").first.click()
    page.get_by_role("button", name="Preview keyframes").click()
    assert page.get_by_label("What is in the video").input_value() != ""
    page.locator(".af-job").wait_for()
    assert page.locator(".toast-body").all_inner_texts() == []
    page.get_by_role("button", name="Stop").first.click()
    page.locator(".af-job").wait_for(state="detached")  # stopped, or made by then


@pytest.mark.thorough
def test_html_that_a_visitor_types_is_text(page: Page) -> None:
    attack = '<img src=x onerror="window.attacked = 1"><script>window.attacked = 1</script>'
    choose_example(page, frames="0:4")
    page.get_by_role("button", name="Preview keyframes").click()
    page.locator(".af-facts").first.wait_for()  # the model is loaded: its words are not known before
    page.get_by_label("Prompt", exact=True).fill(f"a red {attack} xylophone")
    page.get_by_label("Prompt", exact=True).blur()
    page.get_by_text("“xylophone”").first.wait_for()
    page.get_by_label("Frame range").fill(attack)
    page.get_by_role("button", name="Preview keyframes").click()
    message = page.get_by_text("Frame range is").first
    message.wait_for()
    assert "<img src=x onerror=" in message.inner_text(), "it is shown as it was typed"
    page.wait_for_timeout(500)
    assert page.evaluate("window.attacked === undefined")


@pytest.mark.thorough
def test_edits_are_kept_and_another_video_begins_anew(page: Page, drawn_clip: Path) -> None:
    clip = choose_example(page, frames="0:4")
    set_slider(page, "Keyframes (0 = automatic)", 2)
    page.get_by_role("button", name="Stop").last.click()
    page.get_by_text("Nothing is running that could be stopped.").first.wait_for()
    prompt = page.get_by_label("Prompt", exact=True)
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("Edit ready", exact=True).wait_for()
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

    # A reload loses nothing, and shows the edit that was chosen.
    remembered(page, f"tab.job === '{first['job']}' && tab.prompt === 'a green ball' && tab.settings?.includes(0.9)")
    page.reload()
    page.get_by_text(f"“{clip['prompt']}”").wait_for()
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


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[type[PlanTask | EditTask]], threading.Event]]:
    """Tasks of a kind wait, until what is returned is set or they are stopped."""
    held: list[threading.Event] = []

    def hold(task: type[PlanTask | EditTask]) -> threading.Event:
        release, run = threading.Event(), task.run

        def wait(self: Any, engines: Engines, report: Report, stop: Stop) -> object:
            wait_for(release)(report, stop)
            return run(self, engines, report, stop)

        monkeypatch.setattr(task, "run", wait)
        held.append(release)
        return release

    yield hold
    for release in held:  # they would keep the next test's from running
        release.set()


@pytest.mark.thorough
def test_another_example_takes_away_what_was_of_the_first(
    page: Page, hold: Callable[[type[PlanTask | EditTask]], threading.Event]
) -> None:
    """A planning ends with what would follow it; an edit goes on aside, and is shown when it is asked for."""
    plans, edits = hold(PlanTask), hold(EditTask)
    first = choose_example(page)
    second = page.get_by_role("button", name=re.compile("Thumbnail 2 of")).first
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator(".af-job").wait_for()
    second.click()
    prompt = page.get_by_label("Prompt", exact=True)
    page.wait_for_function("text => ![...document.querySelectorAll('textarea, input')].some(e => e.value === text)",
                           arg=first["prompt"])  # fmt: skip
    page.locator(".af-job").wait_for(state="detached")
    plans.set()
    page.wait_for_timeout(1500)
    assert page.locator(".af-job, .toast-body").count() == 0 and not page.locator(".af-facts").first.is_visible()

    # Drafts say that they are ready, and a reload finds them.
    page.get_by_label("Frame range").fill("0:4")
    page.get_by_role("button", name="Try on keyframes").click()
    remembered(page, "tab.drafting")  # as soon as their progress is shown
    page.reload()
    page.locator(".af-job", has_text="Draft ready").wait_for()
    page.get_by_role("link", name="See it").click()
    page.wait_for_function(IN_VIEW, arg=".af-draft .af-quote")
    remembered(page, "tab.drafted && tab.plan && tab.video")
    page.reload()
    page.get_by_text("The edit goes on from it.").wait_for()

    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator('.af-job[data-job^="edit"]').wait_for()
    mine = prompt.input_value()
    page.get_by_role("button", name=re.compile("Thumbnail 1 of")).first.click()
    page.locator(".af-job", has_text=mine).wait_for()
    edits.set()
    page.get_by_text("It is among the edits so far").wait_for()
    assert page.get_by_text(f"“{mine}”").first.is_visible(), "it says which edit it is"
    assert not page.locator("#result").is_visible() and prompt.input_value() == first["prompt"]
    assert not page.locator(".af-draft").is_visible()
    page.get_by_role("button", name="Edits so far").click()
    page.get_by_label("Edit shown").click()
    page.get_by_role("option", name=mine).click()
    page.locator("#result .af-quote", has_text=mine).wait_for()


@pytest.mark.thorough
def test_another_press_of_edit_is_not_left_out(
    page: Page, hold: Callable[[type[PlanTask | EditTask]], threading.Event]
) -> None:
    """While the first one plans: the edit came with the prompt before. Pressed twice at once it is one edit."""
    plans, edits = hold(PlanTask), hold(EditTask)
    clip = choose_example(page, frames="0:4")
    edit = page.get_by_role("button", name="Edit", exact=True)
    edit.dblclick()
    page.locator('.af-job[data-job^="plan"]').wait_for()
    first = remembered(page, "tab.job && tab.planning")
    page.get_by_label("Prompt", exact=True).fill("a green ball")
    edit.click()
    remembered(page, f"tab.job !== '{first['job']}' && tab.planning !== '{first['planning']}'")
    plans.set()
    page.locator('.af-job[data-job^="edit"]').wait_for()
    edits.set()
    page.get_by_text("“a green ball”").wait_for()
    assert page.get_by_text(f"“{clip['prompt']}”").count() == 0
    assert page.locator(".toast-body").count() == 0


@pytest.mark.thorough
def test_what_the_scissors_make_is_another_video(page: Page) -> None:
    """Its prompts stay; what was planned goes. A reload shows it."""
    clip = choose_example(page, frames="0:4")
    page.get_by_role("button", name="Preview keyframes").click()
    page.locator(".af-facts").wait_for()
    before = remembered(page, "tab.plan && tab.video")
    page.get_by_label("Trim video to selection").click()
    handle = page.get_by_label("end drag handle")
    handle.wait_for()
    box = handle.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] - 150, box["y"] + 8, steps=8)
    page.mouse.up()
    page.get_by_role("button", name="Trim", exact=True).click()
    remembered(page, f"!tab.plan && tab.video && tab.video !== '{before['video']}'")
    assert not page.locator(".af-facts").is_visible()
    assert page.get_by_label("Prompt", exact=True).input_value() == clip["prompt"]
    assert page.get_by_label("Frame range").input_value() == ""
    line = page.get_by_text("frames per second").inner_text()
    page.reload()
    page.get_by_text("frames per second").wait_for()
    assert page.get_by_text("frames per second").inner_text() == line


@pytest.mark.thorough
def test_a_reload_finds_the_running_job_and_stop_ends_it(page: Page) -> None:
    choose_example(page, frames="0:12", steps=100)
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("Inverting the source").first.wait_for()
    remembered(page, "tab.job")
    page.reload()
    page.get_by_text("left, ").first.wait_for()
    page.get_by_role("button", name="Stop").last.click()
    page.get_by_text("Edit stopped").first.wait_for()


@pytest.mark.thorough
def test_a_page_begins_anew_with_its_server(page: Page) -> None:
    """With what the tab remembers; Preview and Edit ended with "Error", as the video lay in the folder of before."""
    page.get_by_label("Prompt", exact=True).fill("a green ball")
    remembered(page, "tab.prompt === 'a green ball'")
    page.wait_for_timeout(5500)  # it was asked as the field was reached, and is not for each key
    page.route("**/app_id", lambda route: route.fulfill(json={"app_id": 1}), times=1)
    with page.expect_event("load"):
        page.get_by_role("button", name="Preview keyframes").dispatch_event("pointerdown")
    page.wait_for_function(
        "[...document.querySelectorAll('textarea')].some(e => e.value === 'a green ball')", timeout=PATIENCE
    )


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
        page.get_by_text("Edit ready", exact=True).wait_for()
        page.get_by_text(f"“{clip['prompt']}”").wait_for()
        url = page.locator(".af-edited video").get_attribute("src")
        file = tmp_path / f"{len(lengths)}.mp4"
        urllib.request.urlretrieve(str(url), file)
        lengths.append(probe(file).frames)
    for context in contexts:
        context.close()
    assert lengths == [6, 8]


@pytest.mark.thorough
def test_a_file_that_is_no_video_is_refused_in_a_sentence(page: Page, tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("no video")
    page.locator("input[type=file]").first.set_input_files(text)
    page.get_by_text("is not a video that can be read").first.wait_for()
    assert "Traceback" not in page.content()
    assert page.get_by_text("Video not playable").count() == 0, "Gradio's own words, of which the page says more"
