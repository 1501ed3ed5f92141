"""Photographs every view of the page with a real plan and result: `python scripts/screens.py FOLDER [--readme]`.

Starts the app, takes the first example from click to edited video, and prints how long each step took. Desktop, dark
and phone width. `--readme` makes one visit instead, and renews the README's pictures of the page and `page.digest`, by
which a test knows that they are of this page. Needs the packages of requirements-dev.txt and a Chromium.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from pictured import DIGEST, page_digest
from PIL import Image
from playwright.sync_api import Browser, Error, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
PORT = 7863
ADDRESS = f"http://127.0.0.1:{PORT}"
README_VIEWS = {  # view -> name, the part that is shown, and how many pixels of it from its top
    "readme-tokens": ("page-tokens", ".af-views", 728),
    "readme-drafts": ("page-drafts", ".af-draft", 462),
    "readme-edited": ("page-result", ".af-result", 680),
    "readme-dark": ("page-timeline", ".af-views", 780),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--readme", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    chromium = next(path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name)))
    with tempfile.TemporaryDirectory() as cache, sync_playwright() as playwright:
        began = time.perf_counter()
        app = subprocess.Popen(
            [sys.executable, str(ROOT / "app.py"), "--port", str(PORT)],
            env={**os.environ, "ADAFLOW_CACHE": cache, "GRADIO_TEMP_DIR": cache},
        )
        try:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            kinds = [("desktop", 1280, "light"), ("dark", 1280, "dark"), ("phone", 390, "light")]
            for name, width, scheme in [("readme", 1280, "light")] if arguments.readme else kinds:
                visit(
                    browser, arguments.out, name, width, scheme, began if width == 1280 and scheme == "light" else None
                )
        finally:
            app.terminate()
            app.wait()
    if arguments.readme:
        for view, (name, _, height) in README_VIEWS.items():
            # WebP in full colour: a palette has too few colours for a page of pictures.
            picture = Image.open(arguments.out / f"{view}-part.png").convert("RGB")
            picture = picture.crop((0, 0, picture.width, min(height, picture.height)))
            picture.save(PICTURES / f"{name}.webp", quality=90, method=6)
        DIGEST.write_text(f"{page_digest()}\n", encoding="utf-8")


# Seconds between the frames that the two videos show, 40 times during two seconds of play; a loop's end counts as
# next to its beginning.
APART = """async () => {
  const videos = [".af-source video", ".af-edited video"].map((place) => document.querySelector(place));
  const shown = [0, 0], seen = [];
  while (videos.some((video) => video.readyState < 2)) await new Promise((done) => setTimeout(done, 50));
  videos.forEach((video, i) => {
    const note = (_, frame) => { shown[i] = frame.mediaTime; video.requestVideoFrameCallback(note); };
    video.requestVideoFrameCallback(note);
  });
  await new Promise((done) => setTimeout(done, 1000));
  for (let i = 0; i < 40; i++) {
    await new Promise((done) => setTimeout(done, 50));
    const apart = Math.abs(shown[0] - shown[1]);
    seen.push(Math.min(apart, Math.abs(videos[0].duration - apart)));
  }
  return seen.sort((a, b) => a - b);
}"""


@dataclass(frozen=True)
class Visit:
    """One visitor, from the first look to the result, on a page of one width and colour scheme."""

    page: Page
    out: Path
    name: str

    def photograph(self, view: str) -> None:
        self.page.wait_for_timeout(700)
        view = f"{self.name}-{view}"
        self.page.screenshot(path=self.out / f"{view}.png", full_page=True)
        if view in README_VIEWS:
            self.page.locator(README_VIEWS[view][1]).first.screenshot(path=self.out / f"{view}-part.png")

    def plan(self) -> None:
        """Choose the first example, preview it, look at each tab and move a slider."""
        page = self.page
        page.get_by_role("button", name="Thumbnail 1 of").first.click()
        page.get_by_text("frames per second").wait_for()
        self.photograph("start")
        began = time.perf_counter()
        page.get_by_role("button", name="Preview keyframes").click()
        page.locator(".af-facts").first.wait_for()
        print(f"{self.name}: preview {time.perf_counter() - began:.1f} s", flush=True)
        self.photograph("keyframes")
        page.locator(".af-gallery:not(.af-examples):not(.af-tokens) .thumbnail-item").nth(1).click()
        for tab in ("Tokens", "Timeline"):
            page.get_by_role("tab", name=tab).click()
            self.photograph(tab.lower())
        began = time.perf_counter()
        before = page.locator(".af-fact dd").all_inner_texts()
        slider = page.get_by_label("range slider for Pruning ratio")
        slider.focus()
        slider.press("ArrowLeft")
        page.wait_for_function(
            "old => [...document.querySelectorAll('.af-facts')][0].innerText.includes(old) === false", arg=before[2]
        )
        print(f"{self.name}: slider to answer {time.perf_counter() - began:.2f} s", flush=True)

    def draft(self) -> None:
        """Try four seeds on the keyframes, and go back to the model's own settings."""
        page = self.page
        page.get_by_label("Drafts side by side").click()
        page.get_by_role("option", name="four seeds").click()
        began = time.perf_counter()
        page.get_by_role("button", name="Try on keyframes").click()
        page.get_by_text("Choose one, and the edit goes on").wait_for()
        print(f"{self.name}: click to four drafts {time.perf_counter() - began:.1f} s", flush=True)
        page.wait_for_timeout(1000)
        self.photograph("drafts")

    def edit(self) -> None:
        """Edit, and look at the result."""
        page = self.page
        began = time.perf_counter()
        page.get_by_role("button", name="Edit", exact=True).click()
        page.locator(".af-live").wait_for()
        self.photograph("editing")
        page.get_by_text("Edit ready", exact=True).wait_for(timeout=1_800_000)  # a busy CPU takes minutes
        print(f"{self.name}: click to result {time.perf_counter() - began:.1f} s", flush=True)
        apart = page.evaluate(APART)
        print(f"{self.name}: source and edit apart by {apart[20]:.3f} s (median), {apart[36]:.3f} s (90 %)", flush=True)
        page.evaluate("document.querySelector('.af-edited video').pause()")
        page.wait_for_timeout(1000)
        self.photograph("edited")
        page.get_by_role("button", name="Compare frame by frame").click()
        page.get_by_role("button", name="Reproduce this").click()
        self.photograph("result")

    def darken(self) -> None:
        """The same tab in the dark: the timeline, with the edit's residual."""
        page = self.page
        page.goto(f"{ADDRESS}/?__theme=dark")
        page.get_by_text("Edit ready", exact=True).wait_for()
        page.locator(".af-facts").first.wait_for()
        page.get_by_role("tab", name="Timeline").click()
        page.wait_for_timeout(2000)
        self.photograph("dark")

    def stop(self) -> None:
        """Start another edit and stop it."""
        page = self.page
        page.get_by_label("Prompt", exact=True).fill("a golden ball in a meadow at night")
        page.get_by_role("button", name="Edit", exact=True).click()
        page.get_by_text("Reading frames").or_(page.locator(".af-live")).first.wait_for()
        began = time.perf_counter()
        page.get_by_role("button", name="Stop").last.click()
        page.get_by_text("Edit stopped", exact=True).wait_for()
        print(f"{self.name}: stop to stopped {time.perf_counter() - began:.1f} s", flush=True)
        self.photograph("stopped")


def visit(browser: Browser, out: Path, name: str, width: int, scheme: str, began: float | None) -> None:
    """Photograph every view. `began`: when the app was started, to print how long it took."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore
    page = context.new_page()
    page.set_default_timeout(180_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    open_page(page, f"{ADDRESS}/?__theme={scheme}")
    if began is not None:
        print(f"page usable {time.perf_counter() - began:.1f} s after the start", flush=True)
    one = Visit(page, out, name)
    one.plan()
    one.draft()
    one.edit()
    if name == "readme":
        one.darken()
    else:
        one.stop()
    print(f"{name}: console errors: {problems or 'none'}", flush=True)
    context.close()


def open_page(page: Page, address: str) -> None:
    """Open the page when the server has started, and wait until it can be used."""
    for _ in range(200):
        try:
            page.goto(address)
            break
        except Error:
            time.sleep(0.2)
    page.get_by_role("button", name="Preview keyframes").wait_for()


if __name__ == "__main__":
    main()
