"""The page in a real browser: names, keys, contrasts, and a screen as wide as a phone's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from helpers.pages import IN_BROWSER, IN_VIEW, choose_example

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = IN_BROWSER
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

# From here on, what is spoken of jobs.
SPOKEN = """() => {
  window.spoken = [];
  new MutationObserver(() => spoken.push(document.querySelector(".af-spoken").textContent))
    .observe(document.querySelector(".af-spoken"), { childList: true });
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

    page.evaluate(SPOKEN)
    page.get_by_role("button", name="Preview keyframes").click()
    page.locator(".af-facts").wait_for()
    page.wait_for_function("spoken.at(-1)?.startsWith('Preview ready: ')")
    spoken = page.evaluate("spoken")
    assert 2 <= len(spoken) <= 16 and not any(" s " in words for words in spoken), (
        "each stage once, without its seconds"
    )
    assert page.locator(".af-spoken[role=status]").count() == 1
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
    page.get_by_text("Edit ready", exact=True).wait_for()
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
