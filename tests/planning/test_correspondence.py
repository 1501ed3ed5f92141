"""Where every frame takes its self-attention outputs from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adaflow_core.model.backends import gather_blend
from adaflow_core.planning.correspondence import (
    CONFIDENCE_SCALE,
    blend_weights,
    correspond,
    leave_to_layers,
    match_to_keyframes,
    neighbours,
)
from adaflow_core.progress import Monitor
from adaflow_core.types import Grid, Segments
from helpers.made import drifting, shot_of, unit_rows

GRID = Grid(4, 3)


@pytest.mark.parametrize(
    ("keyframes", "cuts"), [([3], []), ([0, 9], []), ([2, 6, 7, 11], [4, 7]), ([1, 3, 5, 9], [3, 5])]
)
def test_neighbours_lie_in_the_same_shot(keyframes: list[int], cuts: list[int]) -> None:
    frames = np.arange(12)
    slots, weights = neighbours(np.array(keyframes), frames, np.array(cuts, dtype=np.int64))
    shot = lambda t: sum(c <= t for c in cuts)  # noqa: E731
    for t, pair, weight in zip(frames, slots, weights, strict=True):
        mine = [k for k in keyframes if shot(k) == shot(t)]
        before = max((k for k in mine if k <= t), default=None)
        after = min((k for k in mine if k >= t), default=None)
        if before is None or after is None or before == after:
            expected = {before if after is None else after: 1.0}
        else:
            expected = {before: (after - t) / (after - before), after: (t - before) / (after - before)}
        assert {keyframes[s]: w for s, w in zip(pair, weight, strict=True) if w} == pytest.approx(expected)
        assert {keyframes[s] for s in pair} <= set(mine)


def test_a_keyframe_takes_all_from_itself() -> None:
    slots, weights = neighbours(np.array([2, 5, 8]), np.array([2, 5, 8]), np.array([], dtype=np.int64))
    for k in range(3):
        assert weights[k][slots[k] == k].sum() == 1


def test_blend_weights_sum_to_one_and_follow_confidence() -> None:
    rng = np.random.default_rng(0)
    temporal, confidence = rng.random((3, 2)), 2 * rng.random((3, 2, 5)) - 1
    weights = blend_weights(torch.from_numpy(temporal), torch.from_numpy(confidence))
    raw = temporal[:, :, None] * np.exp(confidence / CONFIDENCE_SCALE)
    np.testing.assert_allclose(weights, raw / raw.sum(1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(weights.sum(dim=1), 1, atol=1e-6)
    # One source takes all, however bad its match.
    alone = blend_weights(torch.tensor([[1.0, 0.0]]), torch.tensor([[[-1.0], [1.0]]]))
    assert alone.flatten().tolist() == [1, 0]


def test_gather_blend() -> None:
    rng = np.random.default_rng(1)
    outputs, weights = rng.normal(size=(3, 6, 2)), rng.random((4, 2, 6))
    weights[:, 1] *= rng.random(4)[:, None] > 0.5
    slots, index = rng.integers(0, 3, (4, 2)), rng.integers(0, 6, (4, 2, 6))
    result = gather_blend(*map(torch.from_numpy, (outputs, slots, index, weights)))
    for f, i in np.ndindex(4, 6):
        expected = sum(weights[f, p, i] * outputs[slots[f, p], index[f, p, i]] for p in range(2))
        np.testing.assert_allclose(result[f, i], expected, atol=1e-12)


def test_matches_are_the_most_similar_tokens() -> None:
    frames, keys = unit_rows(3, 6, 4, seed=2), unit_rows(2, 6, 4, seed=3)
    slots, temporal = np.array([[0, 1], [1, 0], [1, 1]]), np.array([[0.3, 0.7], [0.5, 0.5], [1, 0]])
    index, weights = match_to_keyframes(torch.from_numpy(frames), torch.from_numpy(keys), slots, temporal)
    raw = np.empty((3, 2, 6))
    for f, p in np.ndindex(3, 2):
        table = frames[f] @ keys[slots[f, p]].T
        assert index[f, p].tolist() == table.argmax(1).tolist()
        raw[f, p] = temporal[f, p] * np.exp(table.max(1) / CONFIDENCE_SCALE)
    np.testing.assert_allclose(weights, raw / raw.sum(1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("blend", [True, False])
@pytest.mark.parametrize("chunk", [1, 8])
def test_correspondence_never_crosses_a_cut(blend: bool, chunk: int) -> None:
    T, grids = 14, [GRID, Grid(2, 2)]
    features = drifting(T, GRID, cuts=(5, 9))
    segments = Segments(np.array([0, 2, 5, 9]), np.array([1, 3, 5, 12]), np.array([5, 9]), T)
    found = correspond(features, segments, grids, blend=blend, device="cpu", monitor=Monitor(), chunk=chunk)
    assert found.slots.shape == (T, 2 if blend else 1)
    for slot in found.slots.T:
        assert (shot_of(segments, segments.keyframes[slot]) == shot_of(segments, np.arange(T))).all()
    if not blend:
        assert found.slots[:, 0].tolist() == segments.segment_of().tolist()
    for grid in grids:
        np.testing.assert_allclose(found.weights[grid].astype(np.float64).sum(1), 1, atol=2e-3)
        assert found.index[grid].min() >= 0 and found.index[grid].max() < grid.n
    tokens = features.tokens.astype(np.float64)
    _, temporal = neighbours(segments.keyframes, np.arange(T), segments.cuts)
    for t in range(T):
        tables = [tokens[t] @ tokens[segments.keyframes[slot]].T for slot in found.slots[t]]
        near = temporal[t] if blend else [1.0]
        raw = np.stack([w * np.exp(table.max(1) / CONFIDENCE_SCALE) for w, table in zip(near, tables, strict=True)])
        np.testing.assert_allclose(found.weights[GRID][t], raw / raw.sum(0), atol=1e-2)
    for t, p in np.ndindex(*found.slots.shape):
        keyframe = segments.keyframes[found.slots[t, p]]
        table = tokens[t] @ tokens[keyframe].T
        chosen = table[np.arange(GRID.n), found.index[GRID][t, p]]
        np.testing.assert_allclose(chosen, table.max(1), atol=1e-3)
        if keyframe == t:  # every token of a keyframe is its own best match
            assert found.index[GRID][t, p].tolist() == list(range(GRID.n))


def test_tokenflow_blends_by_a_sigmoid_of_the_distance_in_time() -> None:
    segments = Segments(np.array([0, 4]), np.array([2, 6]), np.zeros(0, np.int64), 8)
    found = leave_to_layers(segments, [GRID])
    assert found.by_layer and found.index[GRID].size == 0
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    for t, weight in enumerate(found.weights[GRID][:, :, 0]):
        if t in segments.keyframes:
            continue  # they are not propagated to
        before = sigmoid((6 - t) / 4) if 2 < t < 6 else 1.0
        np.testing.assert_allclose(weight, [before, 1 - before], atol=1e-3)
        assert [segments.keyframes[s] for s in found.slots[t]] == (
            [2, 6] if 2 < t < 6 else [2, 2] if t <= 2 else [6, 6]
        )
