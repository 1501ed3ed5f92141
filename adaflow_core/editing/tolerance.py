"""Which changes of an edit count, by their size among those of the frame."""

from __future__ import annotations

import torch
from torch import Tensor

from adaflow_core.motion.pictures import mean_of_nine

PART_OF_LARGEST = 0.5  # what counts as the usual change of an edit that leaves most of a frame as it is


def significance(change: Tensor, tolerance: float) -> Tensor:
    """[F, 1, h, w] how much of a change [F, 4, h, w] of the predicted clean latents to believe.

    Nothing below `tolerance` times what is usual in the frame, all from three times that; a change is measured by its
    root mean square over 3x3 tokens. What an edit leaves alone moves a little at every step, and those movements add
    up. Usual is the median; where most of the frame stays as it is, a part of the largest change instead.
    """
    size = mean_of_nine(change.square().mean(dim=1, keepdim=True)).sqrt()
    sizes = size.flatten(1)
    usual = torch.maximum(sizes.median(dim=1).values, PART_OF_LARGEST * sizes.quantile(0.98, dim=1))
    low = tolerance * usual.clamp(1e-6, 1.0)[:, None, None, None]
    return ((size - low) / (2 * low)).clamp(0, 1)
