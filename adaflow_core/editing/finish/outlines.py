"""Holds an edit to the source's outlines.

A model paints in tokens of several pixels, so that a new colour reaches a little beyond the thing that it belongs to,
and fades there. If the prompts say that things keep their shapes, the source shows where they end. Along the outlines
of what was changed, a pixel's change is taken from pixels nearby that have the same colour in the source.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from adaflow_core.editing.finish.changes import ramp, relative_change
from adaflow_core.motion.mending import SURE, mended
from adaflow_core.motion.pictures import as_levels, as_pictures

# Chosen on the bundled clips and the plain model's validation clips.
STEP = 0.3, 0.5  # parts of the largest change by which it differs within reach along an outline, a little and wholly
# How much of what was changed around the source's colours must explain: not in a pattern or a texture that is new.
EXPLAINED = 0.45, 0.75


def hold_outlines(edited: Tensor, source: Tensor, strength: float, reach: int) -> Tensor:
    """`edited` [F, H, W, 3] uint8 with its outlines at those of `source` [F, H, W, 3] uint8.

    `strength`: 0..1. `reach`: pixels that a token is wide, beyond which no colour strays.
    """
    edit, frames = as_pictures(edited), as_pictures(source)
    change = edit - frames
    size = relative_change(change)
    trust = 1 - ramp(_largest(size, reach) + _largest(-size, reach), *STEP)
    found, asked = mended(change, frames, trust), (trust < SURE).float()
    explained, around = (F.avg_pool2d(x, 2 * reach + 1, stride=1, padding=reach) for x in (found.explained, asked))
    share = strength * ramp(explained / around.clamp(min=1e-6), *EXPLAINED)
    held = frames + torch.lerp(change, found.change, share)
    return as_levels(held)


def _largest(x: Tensor, reach: int) -> Tensor:
    """The largest value of all within `reach` of each, [F, 1, H, W]."""
    for width in ((2 * reach + 1, 1), (1, 2 * reach + 1)):
        x = F.max_pool2d(x, width, stride=1, padding=(width[0] // 2, width[1] // 2))
    return x
