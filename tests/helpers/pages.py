"""A page that is served for tests, and what a visitor does there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from adaflow_core.model.loading import EMBEDDED

if TYPE_CHECKING:
    from playwright.sync_api import Page

CLIPS = EMBEDDED.parent / "clips"
PATIENCE = 120_000  # milliseconds that a browser waits; other tests run beside these
IN_VIEW = """name => {
  const { top, bottom } = document.querySelector(name).getBoundingClientRect();
  return top >= 0 && bottom <= window.innerHeight;
}"""
HAS_MODEL = (EMBEDDED / "model_index.json").is_file()
with_model = pytest.mark.skipif(not HAS_MODEL, reason="no embedded model in assets/embedded-sd")
IN_BROWSER = [
    pytest.mark.browser,
    pytest.mark.slow,
    with_model,
    pytest.mark.skipif(not (CLIPS / "clips.json").is_file(), reason="no example clips in assets/clips"),
]


def half_size(folder: Path) -> Path:
    """The embedded model at half its working size: a quarter of the time, where pictures need not be good."""
    folder.mkdir(parents=True)
    for part in EMBEDDED.iterdir():
        (folder / part.name).symlink_to(part)
    profile = folder / "adaflow.json"
    settings = json.loads(profile.read_text(encoding="utf-8"))
    profile.unlink()
    profile.write_text(json.dumps(settings | {"size": settings["size"] // 2}), encoding="utf-8")
    return folder


@contextmanager
def serve_page(folder: Path, model: str = "embedded", models: tuple[str, ...] = (), **launch: Any) -> Iterator[str]:
    """Serve the page over `model` with its files in `folder`; yields the address."""
    from webui.page import build
    from webui.studio import Studio

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAFLOW_CACHE", str(folder / "cache"))
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "gradio"))
        patch.setenv("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000")  # as app.py does
        blocks = build(Studio(model, "cpu", folder / "gradio" / "results", models=models))
        _, url, _ = blocks.launch(
            server_name="127.0.0.1", quiet=True, prevent_thread_lock=True, allowed_paths=[str(folder)], **launch
        )
        yield url
        blocks.close()


def choose_example(page: Page, frames: str = "0:8", steps: int = 2, number: int = 0) -> dict[str, str]:
    """Click an example and ask for a short, quick edit of it."""
    clip = json.loads((CLIPS / "clips.json").read_text(encoding="utf-8"))[number]
    page.get_by_role("button", name=f"Thumbnail {number + 1} of").first.click()
    page.wait_for_function(
        "text => [...document.querySelectorAll('textarea, input')].some(e => e.value === text)",
        arg=clip["prompt"],
    )
    page.get_by_role("button", name="Advanced").click()
    page.get_by_label("Frame range").fill(frames)
    page.get_by_role("button", name="Settings of the edit").click()
    set_slider(page, "Steps", steps)
    return dict(clip)


def remembered(page: Page, condition: str) -> dict[str, Any]:
    """Wait until what the tab has written down, `tab`, meets the condition: a reload finds no more than that."""
    tab = "JSON.parse(sessionStorage.getItem('adaflow-tab') ?? '{}')"
    page.wait_for_function(f"(tab => {condition})({tab})")
    return dict(page.evaluate(tab))


def fact(page: Page, name: str) -> str:
    """What the cost line says under `name`."""
    return page.locator(".af-fact", has_text=name).locator("dd").first.inner_text()


def set_slider(page: Page, label: str, value: float) -> None:
    """Type a slider's number, again where the part of the page that was just opened took it back while it was made."""
    box = page.get_by_label(f"number input for {label}")
    for _ in range(5):
        box.fill(str(value))
        box.blur()
        page.wait_for_timeout(200)
        if box.input_value() == str(value):
            return
