"""Which keyframes a frame takes from, and where a point of it finds its matches in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adaflow_core.report.canvas import PAPER, PLACE, Picture, at_least
from adaflow_core.types import Grid, Plan


@dataclass(frozen=True)
class Match:
    """One keyframe's part in a token of a frame."""

    keyframe: int  # 0..K-1
    token: int  # of the keyframe, on the finest grid
    weight: float  # 0..1; a token's add up to 1


def shares(plan: Plan, frame: int) -> list[tuple[int, float]]:
    """The keyframes (0..K-1) that a frame takes from, and their mean weights over its tokens, heaviest first."""
    found = plan.layout.correspondence
    total: dict[int, float] = {}
    for slot, weights in zip(found.slots[frame].tolist(), found.weights[plan.finest][frame], strict=True):
        total[slot] = total.get(slot, 0.0) + float(weights.astype(np.float32).mean())
    return sorted(((k, weight) for k, weight in total.items() if weight > 0.005), key=lambda each: -each[1])


def shares_sentence(plan: Plan, frame: int) -> str:
    """`shares` in words."""
    parts = [f"{weight:.0%} from keyframe {k + 1} ({plan.video.stamp(plan.layout.keyframes[k])})"
             for k, weight in shares(plan, frame)]  # fmt: skip
    return f"It takes {' and '.join(parts)}."


def token_at(grid: Grid, size: tuple[int, int], x: float, y: float) -> int:
    """The token under the pixel (x, y) of a picture of `size` (width, height); the nearest one outside."""
    row, column = (int(np.clip(at * cells // span, 0, cells - 1)) for at, cells, span in
                   ((y, grid.h, size[1]), (x, grid.w, size[0])))  # fmt: skip
    return row * grid.w + column


def matches(plan: Plan, frame: int, token: int) -> list[Match]:
    """Where a token of the finest grid finds its matches, heaviest first; none where each layer matches for itself."""
    found, grid = plan.layout.correspondence, plan.finest
    if found.by_layer:
        return []
    indices, weights = found.index[grid][frame, :, token], found.weights[grid][frame, :, token]
    triples = zip(found.slots[frame].tolist(), indices.tolist(), weights.tolist(), strict=True)
    return sorted((Match(*each) for each in triples if each[2] > 0.005), key=lambda match: -match.weight)


def match_view(plan: Plan, frame: int, token: int, side: int = 224) -> list[tuple[Picture, str]]:
    """The frame with the token marked, then every keyframe that it takes from with its match; with captions."""
    items = [
        (mark(at_least(plan.video.frames[frame], side), plan.finest, token), f"the point · {plan.video.stamp(frame)}")
    ]
    for match in matches(plan, frame, token):
        at = plan.layout.keyframes[match.keyframe]
        picture = mark(at_least(plan.video.frames[at], side), plan.finest, match.token)
        items.append((picture, f"{match.weight:.0%} from keyframe {match.keyframe + 1} · {plan.video.stamp(at)}"))
    return items


def mark(picture: Picture, grid: Grid, token: int) -> Picture:
    """`picture` with a ring around a token, in two shades, which show on any ground."""
    height, width = picture.shape[:2]
    row, column = divmod(token, grid.w)
    centre = (row + 0.5) * height / grid.h, (column + 0.5) * width / grid.w
    rows, columns = np.indices((height, width)) + 0.5
    distance = np.hypot(rows - centre[0], columns - centre[1])
    radius = max(7.0, 0.8 * max(height / grid.h, width / grid.w))
    marked = picture.copy()
    marked[(distance > radius) & (distance <= radius + 3)] = PLACE
    marked[(distance > radius + 3) & (distance <= radius + 5)] = PAPER
    return marked
