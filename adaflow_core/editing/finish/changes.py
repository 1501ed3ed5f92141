"""How much an edit changed a picture, place by place."""

from __future__ import annotations

from torch import Tensor

from adaflow_core.planning.matching import blurred

LARGEST = 0.98  # the quantile that stands for the largest change
FAINTEST = 20.0  # levels of 0..255: a largest change under this is taken for this


def relative_change(change: Tensor) -> Tensor:
    """[F, 1, H, W] how much of a picture's largest change is in each place, from its change [F, 3, H, W] in levels."""
    size = blurred(change.square().mean(dim=1, keepdim=True).sqrt(), boxes=2)
    largest = _quantile(size.flatten(1), LARGEST).clamp(min=FAINTEST)[:, None, None, None]
    return size / largest


def ramp(x: Tensor, low: float, high: float) -> Tensor:
    """0 up to `low`, 1 from `high` on."""
    return ((x - low) / (high - low)).clamp(0, 1)


def _quantile(rows: Tensor, share: float) -> Tensor:  # [F, N] -> [F]
    # torch.quantile refuses frames above 2**24 pixels. All rows at once: a GPU gives each a single processor.
    return rows.kthvalue(max(1, round(share * rows.shape[1])), dim=1).values
