"""The significance of an edit's changes, by their size compared with the frame's typical change."""

from __future__ import annotations

import torch
from torch import Tensor

from adaflow_core.motion.pictures import mean_of_nine

PART_OF_LARGEST = 0.5  # of the largest change: the typical one of an edit that leaves most of a frame as it is


def significance(change: Tensor, tolerance: float) -> Tensor:
    """Weights [F, 1, h, w] 0..1 of a change [F, 4, h, w] of the predicted clean latents.

    The weight is 0 if a change is smaller than `tolerance` times the frame's typical change, and rises to 1 at three
    times that size; sizes are root mean squares over 3x3 tokens. Places that an edit leaves alone change a little at
    every step, which would add up. The typical change is the median; if most of the frame stays as it is, it is a
    part of the largest change instead.
    """
    size = mean_of_nine(change.square().mean(dim=1, keepdim=True)).sqrt()
    sizes = size.flatten(1)
    usual = torch.maximum(sizes.median(dim=1).values, PART_OF_LARGEST * sizes.quantile(0.98, dim=1))
    low = tolerance * usual.clamp(1e-6, 1.0)[:, None, None, None]
    return ((size - low) / (2 * low)).clamp(0, 1)
