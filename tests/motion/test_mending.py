"""Changes mended by like colours around: what is taken, and what stays."""

from __future__ import annotations

import torch
from torch import Tensor

from adaflow_core.motion.mending import likeness, mended


def halves(left: float, right: float, size: int = 40) -> Tensor:
    """[1, 3, size, size], the right half of another level."""
    picture = torch.full((1, 3, size, size), left)
    picture[..., size // 2 :] = right
    return picture


def test_a_rim_is_mended_from_its_own_side() -> None:
    source, truth = halves(60.0, 200.0), halves(50.0, 0.0)
    change, trust = truth.clone(), torch.ones(1, 1, 40, 40)
    change[..., 20:24] = 50.0  # what belongs to the left strays to the right
    trust[..., 16:24] = 0.0
    found = mended(change, source, trust)
    assert (found.change - truth).abs().max() < 1
    assert torch.equal(found.change[..., :16], change[..., :16]) and found.share[..., 24:].max() == 0
    assert found.share[..., 16:24].min() > 0.9 and found.spread.max() < 1


def test_where_no_colour_is_alike_all_stays() -> None:
    source, change = halves(60.0, 200.0), torch.randn(1, 3, 40, 40)
    source[..., 18:22, 18:22] = 120.0
    trust = torch.ones(1, 1, 40, 40)
    trust[..., 18:22, 18:22] = 0.0
    within = (slice(None), slice(None), slice(19, 21), slice(19, 21))
    assert (mended(change, source, trust).change - change)[within].abs().max() < 0.01


def test_a_line_between_two_sides_is_made_of_both() -> None:
    source, change, trust = halves(60.0, 200.0), halves(50.0, 0.0), torch.ones(1, 1, 40, 40)
    source[..., 20], change[..., 20] = 130.0, -90.0  # neither's colour, and a rim
    trust[..., 17:24] = 0.0
    line = mended(change, source, trust).change[..., 20]
    assert line.min() > 20 and line.max() < 30


def test_trust_goes_by_what_misses_more_than_usual() -> None:
    misses = torch.full((2, 1, 8, 8), 4.0)
    misses[1] = 100.0  # a film with grain
    misses[:, :, 2, 2] = 2000.0
    found = likeness(misses)
    assert found[:, :, 2, 2].max() < 0.01
    assert found[:, :, 5, 5].min() > 0.6


def test_frames_are_mended_each_by_itself() -> None:
    source = torch.cat([halves(60.0, 200.0), halves(200.0, 60.0)])
    change = torch.cat([halves(50.0, 0.0), halves(0.0, 30.0)])
    trust = torch.ones(2, 1, 40, 40)
    trust[..., 14:26] = 0.0
    found = mended(change, source, trust)
    assert (found.change - change).abs().max() < 1
