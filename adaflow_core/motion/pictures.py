"""Conversion of 8-bit frames to float pictures and back, and 3x3 means."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def as_pictures(frames: Tensor) -> Tensor:
    """Convert frames [F, H, W, 3] uint8 to [F, 3, H, W] float32, on a scale of 0..255."""
    return rearrange(frames.float(), "f h w c -> f c h w")


def as_levels(pictures: Tensor) -> Tensor:
    """Convert [F, 3, H, W] on a scale of 0..255 to frames [F, H, W, 3] uint8."""
    return rearrange(pictures.round().clamp(0, 255).to(torch.uint8), "f c h w -> f h w c")


def mean_of_nine(x: Tensor) -> Tensor:
    """Return [F, C, H, W], means over 3x3 pixels; at the border only over pixels that exist."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
