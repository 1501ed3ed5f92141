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
# A pixel is along an outline if the changes within reach of it differ by this, in parts of the largest change: from the
# first value on a little, from the second on fully.
STEP = 0.3, 0.5
# The share of the changes around that the source's colours must explain, for outlines to be held a little and fully: in
# a new pattern or texture they explain less.
EXPLAINED = 0.45, 0.75


def hold_outlines(edited: Tensor, source: Tensor, strength: float, reach: int) -> Tensor:
    """Return `edited` [F, H, W, 3] uint8 with its outlines moved to those of `source` [F, H, W, 3] uint8.

    `strength`: 0..1. `reach`: the width of a token in pixels; colours stray no further.
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
    """Return [F, 1, H, W] the largest value within `reach` pixels of each."""
    for width in ((2 * reach + 1, 1), (1, 2 * reach + 1)):
        x = F.max_pool2d(x, width, stride=1, padding=(width[0] // 2, width[1] // 2))
    return x
