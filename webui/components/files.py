"""What Gradio does with files by itself, and this page does not."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from gradio import processing_utils

from webui.messages import refusal


def leave_files_as_they_are() -> None:
    """Let Gradio fetch no file from an address, and convert no video, in this process.

    Any component would fetch what a visitor sends as an address, all of it into memory. A video that is shown would be
    read by the system's ffmpeg and become another file where its format is not one of a short list.
    """
    # Replaced in the module that all components call: after an update a visitor's component is a new object, without
    # what was replaced on the old one, and for a subclass of a component Gradio writes a .pyi file beside its own.
    processing_utils.async_ssrf_protected_get = _refuse_address
    processing_utils.async_ssrf_protected_download = _refuse_address
    processing_utils.video_is_playable = _is_left_as_it_is


async def _refuse_address(url: str, cache_dir: str = "") -> NoReturn:
    raise refusal("this page fetches nothing from elsewhere; upload the file itself")


def _is_left_as_it_is(video_filepath: str | Path) -> bool:
    """The page shows a small copy of what browsers do not play (`served_images.serve_copy`)."""
    return True
