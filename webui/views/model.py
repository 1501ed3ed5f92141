"""Text about a model, and the working sizes to choose from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from adaflow_core.config import ModelProfile
from webui.limits import LARGEST_SIDE
from webui.views.text import line


def toy(profile: ModelProfile) -> str:
    """A line on the limits of a model with a closed vocabulary; "" for other models."""
    things = len(dict(profile.words).get("things", ()))
    if not profile.vocabulary:
        return ""
    known = f"{things} drawn things" if things else f"{len(profile.vocabulary)} words"
    return line(
        f"The model here is a toy that knows {known}: what you upload comes out in its drawn world. Real footage wants "
        "Stable Diffusion and a GPU."
    )


def working_sizes(usual: int) -> list[tuple[str, int]]:
    """Working sizes to choose from, in pixels of the shorter side; 0 is the model's own."""
    sides = (192, 256, 320, 384, 512, LARGEST_SIDE)
    return [(f"the model's own ({usual})", 0), *((str(side), side) for side in sides)]


def vocabulary_title(words: Sequence[str]) -> str:
    return f"The {len(words)} words that this model knows"


def vocabulary(words: Iterable[str]) -> str:
    return '<p class="af-words">All of them: ' + escape(", ".join(sorted(words))) + "</p>"
