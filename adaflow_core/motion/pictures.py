"""Frames of eight bits as pictures to calculate with, and back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def as_pictures(frames: Tensor) -> Tensor:
    """Frames [F, H, W, 3] uint8 as [F, 3, H, W] float32, on a scale of 0..255."""
    return rearrange(frames.float(), "f h w c -> f c h w")


def as_levels(pictures: Tensor) -> Tensor:
    """[F, 3, H, W] on a scale of 0..255 as frames [F, H, W, 3] uint8."""
    return rearrange(pictures.round().clamp(0, 255).to(torch.uint8), "f c h w -> f h w c")


def mean_of_nine(x: Tensor) -> Tensor:
    """[F, C, H, W], means over the nine pixels around each, at the border over those that there are."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
