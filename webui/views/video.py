"""Lines of text about a video."""

from __future__ import annotations

from adaflow_core.errors import counted
from adaflow_core.video.types import VideoInfo
from webui.views.text import duration


def video_line(info: VideoInfo) -> str:
    """Length, rate, size and sound of a video."""
    sound = "with sound" if info.has_audio else "no sound"
    return (
        f"{counted(info.frames, 'frame')}, {duration(info.seconds)}, {float(info.fps):.4g} frames per second, "
        f"{info.width}x{info.height} pixels, {sound}"
    )


def copy_line() -> str:
    """The line for a video that browsers may not play; the page's script removes it if the browser plays it."""
    return '<p class="af-line af-copy">Your browser may not show this kind of file; editing works.</p>'
