"""Drafts: the edited keyframes alone, to look at before the long edit of all frames.

In a denoising step keyframes depend on each other and on no other frame. So editing them alone gives the same bits (on
a GPU up to rounding), except for what frames agree on between steps. Most of an edit's time goes into the other frames:
their inversion, propagation and decoding. A draft is the edit of a film that holds nothing but the keyframes.
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
    """Edited keyframes, without the agreement between frames and the smoothing of flicker, which need all frames."""

    keyframes: np.ndarray  # [K] their frame numbers in the video
    frames: np.ndarray  # [K, H, W, 3] uint8
    report: dict[str, Any]  # like that of an edit
    warnings: tuple[str, ...] = ()


def check_drafts(plan: Plan) -> None:
    """Raise AdaFlowError if the plan has no keyframes of its own."""
    if plan.config.resample:
        raise AdaFlowError(
            "this plan draws its keyframes anew at every step, so that there are none to draft; plan without resample, "
            "and with another method than tokenflow"
        )


def keyframes_alone(plan: Plan) -> Plan:
    """Return the plan of a film of `plan`'s keyframes only; they attend to each other as in `plan`."""
    check_drafts(plan)
    return only_frames(plan, plan.layout.keyframes)


def told_of_draft(plan: Plan, result: EditResult) -> dict[str, Any]:
    """Return {"report": ...}: the report of an edit of `plan`'s keyframes alone, with frames numbered as in the video.

    The report in `result` numbers the keyframes from 0.
    """
    keyframes, T = plan.layout.keyframes.tolist(), len(plan.video)
    prompts = [row | {"frames": [0, T]} for row in result.report["prompts"]]
    of_all = {"keyframes": keyframes, "edited": keyframes, "frames": T, "source_digest": plan.video.digest}
    return {"report": result.report | of_all | {"prompts": prompts}}


def contact_sheet(plan: Plan, drafts: Sequence[tuple[str, Draft]], height: int = 128, columns: int = 8) -> Picture:
    """Draw the source's keyframes above those of each (label, draft), in blocks of at most `columns` keyframes."""
    keyframes = plan.layout.keyframes
    rows = [("source", plan.video.frames[keyframes]), *((label, draft.frames) for label, draft in drafts)]
    width, gap, line = max(104, round(height * plan.video.size[0] / plan.video.size[1])), 8, 18
    columns = min(columns, len(keyframes))
    # The stamp of a part of a video also gives the seconds and frames in the file, and is then wider than a picture.
    apart = plan.video.has_other_numbers
    stamps = [stamp.split(", ") if apart else [stamp] for stamp in map(plan.video.stamp, keyframes.tolist())]
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
