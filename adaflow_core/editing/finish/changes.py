"""Measures how much an edit changed a picture at each pixel."""

from __future__ import annotations

from torch import Tensor

from adaflow_core.planning.matching import blurred

LARGEST = 0.98  # the quantile of the changes that is taken for the largest one
FAINTEST = 20.0  # levels of 0..255: the least value of the largest change, so that faint changes stay small


def relative_change(change: Tensor) -> Tensor:
    """Return [F, 1, H, W] the size of each pixel's change [F, 3, H, W] (levels), relative to the picture's largest."""
    size = blurred(change.square().mean(dim=1, keepdim=True).sqrt(), boxes=2)
    largest = _quantile(size.flatten(1), LARGEST).clamp(min=FAINTEST)[:, None, None, None]
    return size / largest


def ramp(x: Tensor, low: float, high: float) -> Tensor:
    """Return 0 up to `low`, 1 from `high` on, and linear values between."""
    return ((x - low) / (high - low)).clamp(0, 1)


def _quantile(rows: Tensor, share: float) -> Tensor:  # [F, N] -> [F]
    # torch.quantile refuses frames above 2**24 pixels. All rows at once: a GPU gives each a single processor.
    return rows.kthvalue(max(1, round(share * rows.shape[1])), dim=1).values
