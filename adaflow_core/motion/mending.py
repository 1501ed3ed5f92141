"""Mending: an edit's change, where it is not known, is taken from places nearby with the same colour in the source.

At the outlines of moving things the flow is never quite right: what is carried along it may belong to the other side,
and shows as a rim of wrong colours. The source's colours tell both sides apart. So only those places are filtered, by a
joint bilateral filter (Petschnigg et al. 2004) over points on rings around each.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from adaflow_core.motion.pictures import mean_of_nine

# Chosen on the bundled clips and the plain model's validation clips. Colours in levels of 0..255.
RADII = 1, 2, 3, 5, 8, 12, 17, 24  # pixels, of rings of eight points
SURE = 0.8  # places with at least this trust stay as they are
ALIKE = 12.0  # colours that differ by much less count as one
MISSED = 5.0  # what differs from the source by this is trusted little; by more, if most of the frame differs
THIN = 0.3, 0.6  # known share of the 3x3 pixels around at which filling begins, and is full: only thin places fill
CHANCE = 1.0  # summed weight of points at which their agreement is half believed not to be chance
UNEXPLAINED = 8.0  # changes of one colour that differ by less count as alike
FEW = 0.05  # summed weight of points at which a place is mended by half


def likeness(misses: Tensor) -> Tensor:
    """Return [F, 1, H, W] 0..1, how far to trust what differs from the source by `misses`.

    `misses` [F, 1, H, W] are mean squares of levels. Their median is allowed for: a difference in most places, such as
    a film's grain, says nothing.
    """
    usual = misses.flatten(1).median(dim=1).values[:, None, None, None]
    return torch.exp(-misses / (MISSED**2 + 2 * usual))


class Mended(NamedTuple):
    change: Tensor  # [F, C, H, W]
    share: Tensor  # [F, 1, H, W] 0..1, how far a place is mended
    spread: Tensor  # [F, 1, H, W] mean square of levels: spread of the changes from which it is mended
    explained: Tensor  # [F, 1, H, W] up to 1, how far the source's colours tell the changes around apart


def mended(change: Tensor, source: Tensor, trust: Tensor) -> Mended:
    """Mend `change` [F, C, H, W] of `source` [F, 3, H, W] where `trust` [F, 1, H, W] 0..1 is low.

    Points around count by their trust and by how alike their colours are. A place without a point of its colour nearby
    stays as it is.
    """
    height, width = change.shape[-2:]
    frame, y, x = (trust[:, 0] < SURE).nonzero(as_tuple=True)
    found = Mended(change.clone(), *(torch.zeros_like(trust) for _ in range(3)))
    if not len(frame):
        return found
    changes, colours, trusts = (part.permute(0, 2, 3, 1).flatten(0, 2) for part in (change, source, trust))
    place = (frame * height + y) * width + x
    here = colours[place]
    total, squares, weights = (torch.zeros_like(part[place]) for part in (changes, trusts, trusts))
    everything, all_squares, all_weights = (torch.zeros_like(part) for part in (total, squares, weights))
    for dy, dx in _points():
        there = (frame * height + (y + dy).clamp(0, height - 1)) * width + (x + dx).clamp(0, width - 1)
        unlike = (colours[there] - here).square().mean(dim=1, keepdim=True)
        trusted, taken = trusts[there], changes[there]
        weight = trusted * torch.exp(-unlike / ALIKE**2)
        power = taken.square().mean(dim=1, keepdim=True)
        total += weight * taken
        squares += weight * power
        weights += weight
        everything += trusted * taken
        all_squares += trusted * power
        all_weights += trusted
    mean, spread = _mean_and_spread(total, squares, weights)
    _, whole = _mean_and_spread(everything, all_squares, all_weights)
    share = (1 - trusts[place] / SURE) * weights / (weights + FEW)
    found.change[frame, :, y, x] = torch.lerp(changes[place], mean, share)
    found.share[frame, :, y, x] = share
    found.spread[frame, :, y, x] = spread
    doubted = torch.lerp(whole, spread, weights / (weights + CHANCE))
    found.explained[frame, :, y, x] = 1 - doubted / (whole + UNEXPLAINED**2)
    return _between(found, trust)


def _between(found: Mended, trust: Tensor) -> Mended:
    """Fill pixels on an outline, whose colour belongs to neither side, from the known pixels beside them."""
    wanted = (1 - trust / SURE).clamp(min=0)
    known = torch.maximum(found.share, 1 - wanted)
    around = mean_of_nine(known)
    filled = mean_of_nine(known * found.change) / around.clamp(min=1e-6)
    share = (wanted - found.share) * ((around - THIN[0]) / (THIN[1] - THIN[0])).clamp(0, 1)
    return found._replace(change=torch.lerp(found.change, filled, share), share=found.share + share)


def _mean_and_spread(total: Tensor, squares: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    mean = total / weights.clamp(min=1e-6)
    return mean, (squares / weights.clamp(min=1e-6) - mean.square().mean(dim=1, keepdim=True)).clamp(min=0)


def _points() -> list[tuple[int, int]]:
    """Return (dy, dx) of the points on all rings, each ring turned by half a step against the one inside it."""
    turned = [(radius, math.pi / 4 * (k + 0.5 * (i % 2))) for i, radius in enumerate(RADII) for k in range(8)]
    return sorted({(round(radius * math.sin(turn)), round(radius * math.cos(turn))) for radius, turn in turned})
