"""Adaptive attention slimming: which key/value tokens of all keyframes each keyframe keeps.

AdaFlow (arXiv 2502.05433), section on adaptive attention slimming.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from adaflow_core.config import METHODS, PlanConfig
from adaflow_core.planning.matching import TABLE_ENTRIES, pool_map, pool_tokens, similarity_grid
from adaflow_core.progress import Monitor
from adaflow_core.types import Features, Grid, Slimming

# How many tokens a sampled one may stand for: at most MAX_WEIGHT, and at most LEAST_WEIGHT plus one for each frame's
# worth of sampled tokens. A few tokens that stand for many blur the picture: with three keyframes that keep a tenth of
# the others' tokens, or 32 that keep 2 %, the edit is 1.2 and 3 dB nearer to the unpruned one when each of the few
# sampled tokens stands for less than four.
MAX_WEIGHT = 4.0
LEAST_WEIGHT = 1.5


class Kept(NamedTuple):
    """Which of the K*n tokens each keyframe keeps: first its own and the best by score, then a sample of the rest."""

    tokens: Tensor  # [K, count] int64, both parts ascending
    num_sampled: int = 0  # how many of them are the sample
    sample_weight: float = 1.0  # how many tokens each sampled one stands for, itself included


def token_scores(
    tokens: Tensor,  # [K, n, c] unit rows
    importance: Tensor,  # [K, n], mean 1 over a frame
    advance: Callable[[], None] = lambda: None,  # called for each keyframe
) -> Tensor:
    """Return [K, K, n]: for query keyframe q and token j of keyframe k, max_i <F_qi, F_kj> * importance of j."""
    K, n, c = tokens.shape
    scores, at_once = tokens.new_empty(K, K, n), max(1, TABLE_ENTRIES // n**2)
    for q, query in enumerate(tokens):
        for start in range(q, K, at_once):
            others = tokens[start : start + at_once]
            table = (query @ others.reshape(-1, c).mT).unflatten(1, (len(others), n))  # one for both directions
            scores[q, start : start + at_once] = table.amax(dim=0)
            scores[start : start + at_once, q] = table.amax(dim=2).mT
        advance()
    return scores * importance


def kept_count(K: int, n: int, *, prune: float | None = None, kv_frames: float | None = None) -> int:
    """Return how many tokens a keyframe keeps: its own, and what pruning or the budget leaves of the others'.

    `prune` is the share of the others' tokens to drop, `kv_frames` the budget in frames' worth of tokens,
    its own included.
    """
    if kv_frames is not None:
        return min(K * n, max(n, round(kv_frames * n)))
    # The slack keeps (1 - 0.6) * 10 from becoming 5 by the rounding of binary fractions.
    return n + math.ceil((1 - (prune or 0.0)) * (K - 1) * n - 1e-6)


def kept_by(config: PlanConfig) -> tuple[float | None, float | None]:
    """Return `prune` and `kv_frames` for `kept_count`; a method that does not prune keeps everything."""
    return (config.prune, config.kv_frames) if METHODS[config.method].pruned else (0.0, None)


def select_tokens(
    scores: Tensor,  # [K, K, n]
    count: int,
    sampled: float = 0.0,
    check: Callable[[], None] = lambda: None,  # called for each keyframe
) -> Kept:
    """Select `count` tokens for each keyframe: its own, then the best of the rest by score, then a sample of others.

    The best alone would shift attention towards what the scores prefer, as dropped tokens have no weight. So the share
    `sampled` of the places beside its own goes to an even sample of the tokens that are left, taken at equal strides in
    the order of frames and rows. Each sampled token stands for the stride around it, within the limits above.
    """
    K, _, n = scores.shape
    if count == K * n:  # all are kept; sorting them would take more memory than the result
        return Kept(torch.arange(K * n, device=scores.device).expand(K, -1))
    own = torch.eye(K, dtype=torch.bool, device=scores.device)[:, :, None]
    num_sampled = round(sampled * (count - n))
    num_best = count - num_sampled
    stride = (K * n - num_best) / num_sampled if num_sampled else 0.0
    middles = ((torch.arange(num_sampled, device=scores.device) + 0.5) * stride).long()
    rows = []
    for of_query, of_itself in zip(scores.float(), own, strict=True):
        check()
        # A stable sort, not topk: equal scores keep their order, the same on every device.
        ranked = of_query.masked_fill(of_itself, math.inf).flatten()
        order = torch.sort(ranked, descending=True, stable=True).indices
        rows.append(torch.cat([order[:num_best].sort().values, order[num_best:].sort().values[middles]]))
    weight = min(stride, MAX_WEIGHT, LEAST_WEIGHT + num_sampled / n) if num_sampled else 1.0
    return Kept(torch.stack(rows), num_sampled, weight)


def build_slimming(
    features: Features,
    keyframes: np.ndarray,
    grids: list[Grid],
    config: PlanConfig,
    *,
    device: torch.device | str,
    monitor: Monitor,
) -> dict[Grid, Slimming] | None:
    """Select the kept tokens of every keyframe on each grid; None if keyframes attend within themselves only.

    Grids finer than the similarity grid take their scores from it.
    """
    if not METHODS[config.method].joint:
        return None
    tokens = torch.from_numpy(features.tokens[keyframes]).to(device).float()
    weights = torch.from_numpy(features.importance[config.importance][keyframes]).to(device)
    prune, kv_frames = kept_by(config)
    result, scored_grids, K = {}, dict.fromkeys(map(similarity_grid, grids)), len(keyframes)
    with monitor.stage("slim", K * len(scored_grids)) as stage:
        found = {
            scored: token_scores(
                pool_tokens(tokens, features.grid, scored), pool_map(weights, features.grid, scored), stage.advance
            )
            for scored in scored_grids
        }
    for grid in grids:
        scored = similarity_grid(grid)
        scores = pool_map(found[scored], scored, grid)
        count = kept_count(K, grid.n, prune=prune, kv_frames=kv_frames)
        kept = select_tokens(scores, count, config.sampled, monitor.check)
        indices = kept.tokens.int().cpu().numpy()
        result[grid] = Slimming(grid, scores.half().cpu().numpy(), indices, kept.num_sampled, kept.sample_weight)
    return result
