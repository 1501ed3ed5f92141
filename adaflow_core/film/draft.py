"""A draft: the keyframes of an edit before the long run.

In a step keyframes depend on each other and on no other frame, so that the loop over them alone leaves them with the
same bits (on a GPU up to rounding), but for what frames agree on between steps. What takes time is the rest: other
frames' inversion, propagation, decoding. A draft is the edit of a film that holds nothing but the keyframes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adaflow_core.errors import AdaFlowError
from adaflow_core.film.stretch import only_frames
from adaflow_core.report.canvas import INK, MUTED, Canvas, Picture
from adaflow_core.types import EditResult, Plan

MOST = 4  # drafts side by side


@dataclass(frozen=True)
class Draft:
    """Edited keyframes, before frames are brought to agree and flicker is smoothed away, which need all frames."""

    keyframes: np.ndarray  # [K] their numbers in the video
    frames: np.ndarray  # [K, H, W, 3] uint8
    report: dict[str, Any]  # as an edit's
    warnings: tuple[str, ...] = ()


def check_drafts(plan: Plan) -> None:
    """AdaFlowError for a plan without keyframes of its own."""
    if plan.config.resample:
        raise AdaFlowError(
            "this plan draws its keyframes anew at every step, so that there are none to draft; plan without resample, "
            "and with another method than tokenflow"
        )


def keyframes_alone(plan: Plan) -> Plan:
    """The plan of a film that holds the keyframes of `plan` only; they see of each other what they see there."""
    check_drafts(plan)
    return only_frames(plan, plan.layout.keyframes)


def told_of_draft(plan: Plan, result: EditResult) -> dict[str, Any]:
    """The report of an edit of the keyframes of `plan` alone, as of the whole video."""
    keyframes, T = plan.layout.keyframes.tolist(), len(plan.video)  # where the film of keyframes counts from 0
    prompts = [row | {"frames": [0, T]} for row in result.report["prompts"]]
    of_all = {"keyframes": keyframes, "edited": keyframes, "frames": T, "source_digest": plan.video.digest}
    return {"report": result.report | of_all | {"prompts": prompts}}


def contact_sheet(plan: Plan, drafts: Sequence[tuple[str, Draft]], height: int = 128, columns: int = 8) -> Picture:
    """The source's keyframes above those of each draft, with its label; `columns` of them, then the next rows."""
    keyframes = plan.layout.keyframes
    rows = [("source", plan.video.frames[keyframes]), *((label, draft.frames) for label, draft in drafts)]
    width, gap, line = max(104, round(height * plan.video.size[0] / plan.video.size[1])), 8, 18
    columns = min(columns, len(keyframes))
    # Of a range of a video a stamp says the file's seconds and frames too, and is wider than a picture.
    stamps = [stamp.split(", ") if plan.video.start else [stamp] for stamp in map(plan.video.stamp, keyframes.tolist())]
    head = line * max(map(len, stamps))
    block = head + len(rows) * (line + height + gap)
    canvas = Canvas(max(columns * (width + gap) + gap, 320), -(-len(keyframes) // columns) * block + gap)
    for k, words in enumerate(stamps):
        x, y = gap + k % columns * (width + gap), gap + k // columns * block
        for number, each in enumerate(words):
            canvas.text(x, y + number * line, each, INK, 11)
        for number, (label, frames) in enumerate(rows):
            top = y + head + number * (line + height + gap)
            if k % columns == 0:
                canvas.text(x, top, label, MUTED, 11)
            canvas.fit(np.asarray(frames[k]), x, top + line, width, height)
    return canvas.picture()
