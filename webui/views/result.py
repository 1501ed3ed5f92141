"""A finished edit: what it was made of, its scores, and its row among all edits."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np

from adaflow_core.errors import percent
from adaflow_core.report.edges import rim_picture
from adaflow_core.report.scores import Scores
from webui.jobs.finished import FinishedEdit
from webui.views.pictures import image
from webui.views.text import cards, line

_RIMS_SHOWN = 0.05  # share of the edge from which a picture shows the rims


def how(finished: FinishedEdit) -> str:
    """Sentences on how an edit was made, each after a space: frames carried, work reused; "" if neither."""
    T = len(finished.after)
    carried = f" {finished.edited} of {T} frames were edited, the others carried along the motion."
    return (carried if finished.edited < T else "") + (" Plan and inversion were reused." if finished.reused else "")


def scores(values: Scores) -> str:
    """The scores of an edit, each with an explanation; those that say nothing of this edit are left out."""
    shown = []
    if values.agreement is not None:
        more = "of the way from the source to what the model itself would draw for your prompt, where the two differ"
        shown.append(("Prompt agreement", percent(values.agreement), more))
    if values.untouched is not None:
        more = "of the pixels have the source's colour; more is better where the edit should not reach"
        shown.append(("Left as it was", percent(values.untouched), more))
    if values.rims is not None and values.edge_error is not None:
        more = (
            "of the edge of what changed has colours that belong to neither side, such as an outline of what was there"
        )
        shown.append(("Rims", percent(values.rims), f"{more}; edge error {values.edge_error:.0f} of 255 levels"))
    if values.flicker is not None:
        more = (
            "of 255, by which the picture changes along the source's motion from frame to frame, and the source does "
            "not: a mean over all of it"
        )
        shown.append(("Flicker", f"{values.flicker:.1f} levels", more))
    if values.liveliness is not None:
        more = "the source's is 1; well below, the edit lost motion, well above, frames break up"
        shown.append(("Change from frame to frame", f"{values.liveliness:.2f}", more))
    return cards(shown)


def rims(finished: FinishedEdit) -> str:
    """The frame with the most rims, which are outlined; "" if their share is below `_RIMS_SHOWN`."""
    values = finished.scores
    if values.rims is None or values.rim_frame is None or values.rims < _RIMS_SHOWN:
        return ""
    frame = values.rim_frame
    words = f"Where rims are most: frame {frame}, outlined."
    picture = rim_picture(np.asarray(finished.after[frame]), np.asarray(finished.before[frame]))
    return image(picture, words) + line(words)


def edit_name(finished: FinishedEdit, number: int) -> str:
    return f"{number}: {finished.video}, {finished.prompt}"


def history(edits: Mapping[int, FinishedEdit]) -> str:
    """A row for each edit, under its number: source, prompt, settings and scores."""
    heads = ("No.", "Source", "Prompt", "Settings", "Prompt agreement", "Left as it was", "Rims", "Flicker")
    rows = "".join(
        f"<tr><td>{number}</td>" + "".join(f"<td>{escape(cell)}</td>" for cell in _history_cells(edit)) + "</tr>"
        for number, edit in edits.items()
    )
    return (
        '<div class="af-history" tabindex="0" role="region" aria-label="Edits so far"><table><thead><tr>'
        + "".join(f'<th scope="col">{head}</th>' for head in heads)
        + f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _history_cells(edit: FinishedEdit) -> tuple[str, ...]:
    values = edit.scores
    return (
        edit.video, edit.prompt, edit.settings or "default", _percent(values.agreement), _percent(values.untouched),
        _percent(values.rims), "none" if values.flicker is None else f"{values.flicker:.1f}",
    )  # fmt: skip


def _percent(share: float | None) -> str:
    return "none" if share is None else percent(share)
