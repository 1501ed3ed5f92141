"""Token scores and the choice of kept tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adaflow_core.config import PlanConfig
from adaflow_core.errors import Stopped
from adaflow_core.planning import slimming
from adaflow_core.planning.matching import pool_map, pool_tokens
from adaflow_core.planning.slimming import (
    LEAST_WEIGHT,
    MAX_WEIGHT,
    build_slimming,
    kept_count,
    select_tokens,
    token_scores,
)
from adaflow_core.progress import Monitor, Progress
from adaflow_core.types import Features, Grid
from helpers.made import make_features, unit_rows


@pytest.mark.parametrize("entries", [2**24, 1, 30])
def test_scores_are_the_best_product_times_the_importance(monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    monkeypatch.setattr(slimming, "TABLE_ENTRIES", entries)
    K, n = 4, 6
    tokens, importance = unit_rows(K, n, 3), np.random.default_rng(1).random((K, n))
    scores = token_scores(torch.from_numpy(tokens), torch.from_numpy(importance))
    assert scores.shape == (K, K, n)
    for q, k, j in np.ndindex(K, K, n):
        expected = max(tokens[q, i] @ tokens[k, j] for i in range(n)) * importance[k, j]
        assert scores[q, k, j].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("K", "n", "prune", "kv_frames", "count"),
    [
        (10, 16, 0.6, None, 74),
        (2, 10, 0.6, None, 14),
        (2, 10, 0.9, None, 11),
        (1, 10, 0.6, None, 10),
        (6, 2, 0.6, None, 6),  # (1 - 0.6) * 10 is a hair over 4 in binary
        (4, 3, 0.5, None, 8),  # rounded up
        (4, 9, 0.0, None, 36),
        (4, 9, None, None, 36),
        (4, 9, 1.0, None, 9),  # never less than its own
        (40, 9, None, 20, 180),
        (40, 9, None, 2.5, 22),
        (4, 9, None, 20, 36),  # never more than there are
        (4, 9, None, 1, 9),
    ],
)
def test_kept_count(K: int, n: int, prune: float | None, kv_frames: float | None, count: int) -> None:
    assert kept_count(K, n, prune=prune, kv_frames=kv_frames) == count


@pytest.mark.parametrize("count", [5, 9, 19, 20])
def test_own_tokens_and_the_best_of_the_rest_are_kept(count: int) -> None:
    K, n = 4, 5
    scores = np.random.default_rng(2).random((K, K, n)) - 0.5
    for q in range(K):
        scores[q, q] = -9  # its own are kept whatever their score
    kept, places, _ = select_tokens(torch.from_numpy(scores), count)
    assert places == 0
    assert kept.shape == (K, count) and (kept[:, 1:] > kept[:, :-1]).all()
    for q in range(K):
        own = set(range(q * n, (q + 1) * n))
        rest = sorted(set(range(K * n)) - own, key=lambda j: -scores[q].ravel()[j])
        assert set(kept[q].tolist()) == own | set(rest[: count - n])


@pytest.mark.parametrize("sampled", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("count", [12, 20, 31])
def test_a_sample_stands_for_what_the_scores_leave_out(sampled: float, count: int) -> None:
    K, n = 4, 8
    scores = torch.from_numpy(np.random.default_rng(3).random((K, K, n)))
    kept, places, mass = select_tokens(scores, count, sampled)
    assert places == round(sampled * (count - n))
    best = select_tokens(scores, count - places).tokens
    assert torch.equal(kept[:, :-places], best) and (kept[:, -places:].diff(dim=1) > 0).all()
    for q in range(K):
        sample = kept[q, -places:].tolist()
        left = [j for j in range(K * n) if j not in set(best[q].tolist())]
        stride = len(left) / len(sample)
        assert mass == pytest.approx(min(stride, MAX_WEIGHT, LEAST_WEIGHT + places / n))
        if mass == pytest.approx(stride):  # all of the others' weight is kept
            assert len(best[q]) + places * mass == pytest.approx(K * n)
        # Evenly spread over what is left: no stretch of tokens goes without.
        gaps = np.diff([left.index(j) for j in sample])
        assert set(gaps) <= {int(stride), int(np.ceil(stride))}


def test_equal_scores_keep_their_order() -> None:
    assert select_tokens(torch.ones(3, 3, 4), 6).tokens.tolist() == [
        [0, 1, 2, 3, 4, 5],
        [0, 1, 4, 5, 6, 7],
        [0, 1, 8, 9, 10, 11],
    ]
    halves = torch.zeros(2, 2, 4).half()
    halves[0, 1, 2] = 1
    assert select_tokens(halves, 6).tokens.tolist() == [[0, 1, 2, 3, 4, 6], [0, 1, 4, 5, 6, 7]]


# --- of a choice of keyframes -----------------------------------------------------------------------

OF_FEATURES, FINER, COARSER = Grid(20, 15), Grid(40, 30), Grid(6, 5)
SLIMMED = PlanConfig(prune=0.6, sampled=0.25, importance="distinctive")


def weighted() -> Features:
    """Of six frames, of which tokens weigh differently."""
    weights = np.random.default_rng(4).random((6, OF_FEATURES.n))
    return make_features(unit_rows(6, OF_FEATURES.n, 5), OF_FEATURES, importance=weights)


def test_each_grid_keeps_by_the_scores_of_its_features_and_their_importance() -> None:
    """A grid finer than features are compared on takes its tokens' scores from those that cover them."""
    features, keyframes = weighted(), np.array([1, 2, 5])
    found = build_slimming(features, keyframes, [FINER, COARSER], SLIMMED, device="cpu", monitor=Monitor())
    assert found is not None and list(found) == [FINER, COARSER]
    tokens = torch.from_numpy(features.tokens[keyframes]).float()
    importance = torch.from_numpy(features.importance["distinctive"][keyframes])
    for grid, scored in ((FINER, OF_FEATURES), (COARSER, COARSER)):
        scores = token_scores(pool_tokens(tokens, OF_FEATURES, scored), pool_map(importance, OF_FEATURES, scored))
        if grid == FINER:  # each token of the coarser grid covers two by two
            scores = scores.reshape(3, 3, 20, 1, 15, 1).expand(-1, -1, -1, 2, -1, 2).reshape(3, 3, FINER.n)
        count = kept_count(3, grid.n, prune=0.6)
        kept = select_tokens(scores, count, 0.25)
        np.testing.assert_array_equal(found[grid].scores, scores.half().numpy())
        np.testing.assert_array_equal(found[grid].kept, kept.tokens.numpy())
        assert (found[grid].num_sampled, found[grid].sample_weight) == kept[1:] and kept.sample_weight > 1


def test_a_choice_of_tokens_looks_at_the_stop_signal_for_each_keyframe() -> None:
    seen: list[Progress] = []
    looks = 0

    def stop() -> bool:
        nonlocal looks
        looks += bool(seen) and seen[-1].done == seen[-1].total  # after all scores are there
        return looks > 5

    with pytest.raises(Stopped):
        keyframes, monitor = np.arange(6), Monitor(seen.append, stop)
        build_slimming(weighted(), keyframes, [OF_FEATURES], SLIMMED, device="cpu", monitor=monitor)
