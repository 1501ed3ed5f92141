"""An edit held to the source's outlines.

A model paints by tokens of several pixels: a new colour reaches a little beyond what it belongs to, and fades. Where
the words say that things keep their shapes, the source knows where they end. Along the outlines of what was changed,
the change is taken from places around that have the source's colour there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from adaflow_core.motion.mending import mended

# Chosen on the bundled clips and the plain model's validation clips.
STEP = 0.3, 0.5  # parts of the largest change by which it differs within reach along an outline, a little and wholly
LARGEST = 0.98  # the quantile that stands for the largest change
FAINTEST = 20.0  # levels of 0..255: a largest change under this is taken for this
UNLIKE = 8.0  # levels: where changes of a colour differ by so much, as in a pattern, half of it is held


def hold_outlines(edited: Tensor, source: Tensor, strength: float, reach: int) -> Tensor:
    """`edited` [F, H, W, 3] uint8 with its outlines at those of `source` [F, H, W, 3] uint8.

    `strength`: 0..1. `reach`: pixels that a token is wide, beyond which no colour strays.
    """
    edit, frames = (rearrange(x.float(), "f h w c -> f c h w") for x in (edited, source))
    change = edit - frames
    size = change.square().mean(dim=1, keepdim=True).sqrt()
    size = F.avg_pool2d(size, 3, stride=1, padding=1, count_include_pad=False)
    rows = size.flatten(1)
    largest = rows.kthvalue(max(1, round(LARGEST * rows.shape[1])), dim=1).values.clamp(min=FAINTEST)
    step = (_largest(size, reach) + _largest(-size, reach)) / largest[:, None, None, None]
    low, high = STEP
    found = mended(change, frames, 1 - ((step - low) / (high - low)).clamp(0, 1))
    share = strength / (1 + found.spread / UNLIKE**2)
    held = frames + torch.lerp(change, found.change, share)
    return rearrange(held.round().clamp(0, 255).to(torch.uint8), "f c h w -> f h w c")


def _largest(x: Tensor, reach: int) -> Tensor:
    """The largest value of all within `reach` of each, [F, 1, H, W]."""
    for width in ((2 * reach + 1, 1), (1, 2 * reach + 1)):
        x = F.max_pool2d(x, width, stride=1, padding=(width[0] // 2, width[1] // 2))
    return x
