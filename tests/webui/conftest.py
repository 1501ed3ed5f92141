"""Where pages and their clients keep files; and the page of one server in a real browser.

The browser is a new one for each file: while it runs, no other loop can.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from helpers.pages import PATIENCE, half_size, serve_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

# What the console says when Gradio ends a session's stream with its last event though the next has just joined, whose
# stream is then broken off. The page opens another.
_STREAM_ENDED = "Unexpected error 404: Not Found", "ERR_INCOMPLETE_CHUNKED_ENCODING", "network error"


@pytest.fixture(scope="session", autouse=True)
def files_of_pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Pages that are only built keep files too, and Gradio's client leaves a folder for each file that it fetches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.getbasetemp()))
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
        yield


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from webui.theme import CSS, HEAD, THEME

    folder = tmp_path_factory.mktemp("browser")
    model = str(half_size(folder / "embedded"))
    with serve_page(folder, model, theme=THEME, css=CSS, head=HEAD) as url:
        yield url


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """Its cache holds the page's scripts, which are some megabytes. Nothing plays by itself: that takes a core."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, address: str) -> Iterator[Page]:
    """A visitor whom the page does not know; fails the test on any error in the console."""
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)

    def forget_the_page_that_was_left(_: Page) -> None:
        errors[:] = [error for error in errors if "AbortError" not in error and "errored out" not in error]

    page.on("load", forget_the_page_that_was_left)  # its connections end with it
    page.goto(address)
    page.get_by_role("button", name="Preview keyframes").wait_for()
    yield page
    page.evaluate("localStorage.clear()")  # what a tab remembers ends with it
    page.close()
    assert [error for error in errors if not any(sign in error for sign in _STREAM_ENDED)] == []
