"""What propagation gets wrong, against the plain formula; and the keyframes chosen by it, against all others."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from adaflow_core.model.backbone import Backbone
from adaflow_core.planning import residual as propagation
from adaflow_core.planning.correspondence import CONFIDENCE_SCALE
from adaflow_core.planning.matching import PooledFeatures, PooledRows
from adaflow_core.planning.residual import PairCosts, PropagationResidual, best_keyframes, edited_residual
from adaflow_core.planning.similarity import FrameSimilarity
from adaflow_core.progress import Monitor, Progress
from adaflow_core.storage import arrays
from adaflow_core.types import Features, Grid
from helpers.made import drifting, latents_of, make_features, unit_rows
from helpers.plans import small_plan

GRID = Grid(4, 3)
NONE = np.array([], dtype=np.int64)


def film(T: int, cuts: tuple[int, ...] = (), pace: float | np.ndarray = 0.2) -> PropagationResidual:
    features = drifting(T, GRID, cuts=cuts, pace=pace)
    return PropagationResidual(features, latents_of(features), np.array(cuts, dtype=np.int64))


# --- for chosen keyframes ---------------------------------------------------------------------------


def test_residual_is_zero_at_keyframes_and_where_nothing_changes() -> None:
    residual = film(12, cuts=(6,))
    keyframes = np.array([2, 4, 6])
    values = residual(keyframes, np.arange(12), Monitor())
    assert (values[keyframes] == 0).all()
    assert (np.delete(values, keyframes) > 0.02).all()
    assert residual(keyframes, np.array([11, 3]), Monitor()).tolist() == pytest.approx(
        [values[11], values[3]], abs=1e-6
    )
    still = make_features(np.repeat(unit_rows(1, GRID.n, 8), 12, axis=0), GRID)
    residual = PropagationResidual(still, latents_of(still), np.array([6]))
    np.testing.assert_allclose(residual(keyframes, np.arange(12), Monitor()), 0, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 32])
def test_residual_is_the_relative_error_of_the_propagated_latents(chunk: int) -> None:
    T, keyframes = 8, np.array([1, 6])
    features = drifting(T, GRID, pace=0.2)
    tokens = features.tokens.astype(np.float64)
    latents = np.random.default_rng(4).normal(size=(T, 4, 2 * GRID.h, 2 * GRID.w)).astype(np.float32)
    found = PropagationResidual(features, latents, NONE)(keyframes, np.arange(T), Monitor(), chunk)
    rows = latents.reshape(T, 4, GRID.h, 2, GRID.w, 2).mean(axis=(3, 5)).transpose(0, 2, 3, 1).reshape(T, GRID.n, 4)
    for t in set(range(T)) - {1, 6}:
        sources = [1] if t < 1 else [6] if t > 6 else [1, 6]
        near = [1.0] if len(sources) == 1 else [(6 - t) / 5, (t - 1) / 5]
        tables = [tokens[t] @ tokens[k].T for k in sources]
        raw = np.stack([w * np.exp(table.max(1) / CONFIDENCE_SCALE) for w, table in zip(near, tables, strict=True)])
        share = raw / raw.sum(0)
        blended = sum(share[p][:, None] * rows[k][tables[p].argmax(1)] for p, k in enumerate(sources))
        expected = np.sqrt(((blended - rows[t]) ** 2).sum() / ((rows[t] - rows[t].mean(0)) ** 2).sum())
        assert found[t] == pytest.approx(expected, rel=1e-3)


def test_a_frame_without_structure_has_no_huge_residual() -> None:
    """Its variance counts as a hundredth of the film's mean."""
    still = make_features(np.repeat(unit_rows(1, GRID.n, 8), 12, axis=0), GRID)
    latents = np.repeat(np.random.default_rng(3).normal(size=(1, 4, GRID.h, GRID.w)), 12, axis=0)
    latents[5] = 0.0
    variances = latents.var(axis=(2, 3)).sum(axis=1)
    expected = np.sqrt((latents[4] ** 2).sum(axis=0).mean() / (0.01 * variances.mean()))
    values = PropagationResidual(still, latents.astype(np.float32), NONE)(np.array([2]), np.arange(12), Monitor())
    assert values[5] == pytest.approx(expected, rel=1e-3) and np.delete(values, 5) == pytest.approx(0, abs=1e-3)


def test_the_errors_of_the_same_keyframes_are_found_once() -> None:
    residual, seen = film(40), list[Progress]()
    monitor, keyframes, frames = Monitor(seen.append), np.array([3, 20]), np.arange(40)
    first = residual(keyframes, frames, monitor)
    found, expected = len(seen), first.tolist()
    first[:] = 9
    assert residual(keyframes, frames, monitor).tolist() == expected and len(seen) == found
    assert residual(keyframes, frames[:9], monitor).tolist() == pytest.approx(expected[:9], abs=1e-6)
    assert residual(np.array([3, 21]), frames, monitor).tolist() != expected and len(seen) > found


@pytest.mark.parametrize(("grid", "most"), [(Grid(32, 32), 256), (Grid(24, 42), 256), (Grid(5, 3), 4), (GRID, 256)])
def test_of_each_block_one_token_is_tried(grid: Grid, most: int) -> None:
    tried = propagation._one_of_each_block(grid, most).numpy()
    side = next(s for s in range(1, 99) if -(-grid.h // s) * -(-grid.w // s) <= most)
    blocks = {(int(i) // grid.w // side, int(i) % grid.w // side) for i in tried}
    assert len(tried) == len(blocks) == -(-grid.h // side) * -(-grid.w // side) <= most


def test_the_latents_of_an_edit_lie_on_disk(
    tiny_backbone: Callable[[str], Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, plan, kept = tiny_backbone("sd1"), small_plan(), []

    def measure(features: Features, latents: np.ndarray, *rest: Any) -> PropagationResidual:
        kept.append(latents)
        return PropagationResidual(features, latents, *rest)

    monkeypatch.setattr(propagation, "PropagationResidual", measure)
    monkeypatch.setattr(arrays, "SCRATCH_IN_MEMORY", 0)
    found = edited_residual(backbone, plan, plan.video.frames, Monitor())
    assert isinstance(kept[0], np.memmap)
    with torch.inference_mode():
        latents = backbone.fetch(backbone.encode(plan.video.frames))
    expected = PropagationResidual(plan.features, latents, plan.segments.cuts)(
        plan.segments.keyframes, np.arange(20), Monitor()
    )
    np.testing.assert_allclose(found, expected, atol=1e-3)


# --- for all that might be chosen -------------------------------------------------------------------


def squares(residual: PropagationResidual, keyframes: list[int], frames: range) -> tuple[float, float]:
    """The sum of the squared errors of `frames`, and the largest."""
    found = residual(np.array(keyframes), np.array(frames, dtype=np.int64), Monitor()).astype(np.float64) ** 2
    return float(found.sum()), float(found.max(initial=0.0))


@pytest.mark.parametrize("cuts", [(), (4,), (3, 6)])
def test_costs_are_the_errors_between_all_pairs(cuts: tuple[int, ...]) -> None:
    T = 9
    residual = film(T, cuts)
    shot = np.searchsorted(cuts, np.arange(T), side="right")
    costs = residual.costs(3, Monitor())
    assert costs.frame_ids.tolist() == list(range(T)) and costs.between.shape == (2, T, T)
    for i in range(T):
        for end, frames, found in ((0, range(i), costs.first[:, i]), (-1, range(i + 1, T), costs.last[:, i])):
            expected = squares(residual, [i], frames) if shot[i] == shot[end] else (np.inf, np.inf)
            assert found.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-9)
        for d in range(1, T - i):
            found = costs.between[:, i, d]
            if shot[i + d] - shot[i] > 1:  # the shot in the middle has none
                assert np.isinf(found).all()
            else:
                expected = squares(residual, [i, i + d], range(i + 1, i + d))
                assert found.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("cuts", [(), (4,), (3, 6)])
def test_the_best_keyframes_of_all(cuts: tuple[int, ...]) -> None:
    T = 9
    residual = film(T, cuts, pace=np.linspace(0, 0.4, T))
    shot = np.searchsorted(cuts, np.arange(T), side="right")
    found = list(best_keyframes(residual.costs(3, Monitor()), 1, T + 5))
    assert [len(keyframes) for keyframes, _ in found] == list(range(len(cuts) + 1, T + 1))
    for keyframes, worst in found:
        sums = {
            some: squares(residual, list(some), range(T))[0]
            for some in combinations(range(T), len(keyframes))
            if set(shot[list(some)]) == set(shot)
        }
        total, largest = squares(residual, keyframes.tolist(), range(T))
        assert total == pytest.approx(min(sums.values()), rel=1e-4, abs=1e-9)
        assert worst == pytest.approx(largest, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("cuts", [(), (31, 33, 100)])
def test_a_thinned_sample_has_a_frame_of_each_shot(cuts: tuple[int, ...]) -> None:
    residual = film(120, cuts)
    residual.pairs = 400
    costs = residual.costs(5, Monitor())
    assert len(costs.frame_ids) < 60 and {0, *cuts} <= set(costs.frame_ids)
    for count, (keyframes, _) in enumerate(best_keyframes(costs, 5, 8), start=5):
        assert len(keyframes) == count and (np.diff(keyframes) > 0).all()
        assert set(np.searchsorted(cuts, keyframes, side="right")) == set(range(len(cuts) + 1))


def test_frames_that_no_choice_from_a_sample_serves() -> None:
    features = drifting(120, GRID, cuts=(60,), pace=0.02)
    latents = latents_of(features)
    latents[[33, 81, 82]] *= [[[[-1]]], [[[-2]]], [[[-1]]]]
    residual, frames = PropagationResidual(features, latents, np.array([60])), np.arange(120)
    residual.pairs = 400
    costs = residual.costs(5, Monitor())
    assert not {33, 81, 82} & set(costs.frame_ids)
    assert set(residual.missed(costs, frames, 0.3, Monitor()).tolist()) == {33, 81, 82}
    least = residual(costs.frame_ids, frames, Monitor())
    assert residual.missed(costs, frames, 0.3, Monitor()).tolist() == sorted([33, 81, 82], key=lambda t: -least[t])
    also = np.array([32, 33, 34, 80, 81, 82, 83])
    wider = residual.costs(5, Monitor(), also)
    assert set(wider.frame_ids) == {*costs.frame_ids, *also} and not len(residual.missed(wider, frames, 0.3, Monitor()))


def test_a_frame_of_the_sample_stands_for_those_up_to_the_next() -> None:
    residual = film(120)
    residual.pairs = 400
    last = int(residual.costs(1, Monitor()).frame_ids[-1])
    # Two pictures: one until the last frame of the sample, another from there on.
    still = make_features(np.repeat(unit_rows(1, GRID.n, 8), 120, axis=0), GRID)
    pictures = np.random.default_rng(5).normal(size=(2, 4, GRID.h, GRID.w)).astype(np.float32)
    residual = PropagationResidual(still, pictures[(np.arange(120) >= last).astype(int)], NONE)
    residual.pairs = 400
    alone = residual(np.array([last]), np.array([0]), Monitor())[0] ** 2
    assert residual.costs(1, Monitor()).first[0, -1] == pytest.approx(last * alone, rel=1e-4)
    assert residual.costs(1, Monitor()).first[1, -1] == pytest.approx(alone, rel=1e-4)


def test_keyframes_far_apart_widen_the_band() -> None:
    # All motion is at the end, so that few keyframes lie further apart than three times the mean.
    residual = film(200, pace=np.where(np.arange(200) > 180, 0.3, 0.0))
    residual.pairs = 1
    costs = residual.costs(8, Monitor())
    assert [len(keyframes) for keyframes, _ in best_keyframes(costs, 8, 8)] == [8]


@pytest.mark.parametrize("share", [12, 4])
def test_the_number_of_matches_is_bounded(monkeypatch: pytest.MonkeyPatch, share: int) -> None:
    matched = 0
    plain = propagation.best_match

    def counted(queries: torch.Tensor, keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal matched
        matched += len(queries)
        return plain(queries, keys)

    monkeypatch.setattr(propagation, "best_match", counted)
    numbers = []
    for T in (240, 480, 960):
        film(T).costs(T // share, Monitor())
        numbers.append(matched)
        matched = 0
    assert max(numbers) <= 2 * max(propagation.PAIRS, 960 * propagation.MIN_REACH)


def test_what_was_weighed_up_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    residual = film(40)
    first = residual.costs(4, Monitor())
    assert residual.costs(9, Monitor()) is first  # a short film is weighed up once, whatever is asked for
    residual.release()
    assert residual.costs(5, Monitor()) is first and residual(np.array([3]), np.arange(40), Monitor()).max() > 0


def test_features_that_are_compared_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    features, read = drifting(20, GRID), []
    of_file = PooledRows._read
    monkeypatch.setattr(PooledRows, "_read", lambda self, part: read.append(part) or of_file(self, part))
    pooled = PooledFeatures(features, "cpu")
    similarity = FrameSimilarity(features, "uniform", pooled=pooled)
    residual = PropagationResidual(features, latents_of(features), NONE, pooled=pooled)
    similarity.adjacent(Monitor())
    residual.costs(4, Monitor())
    similarity.compare((1, 2), True, 0, np.arange(20))
    assert len(read) == 1
    pooled.release()
    again = similarity.compare((1,), True, 3, np.arange(20))
    alone = FrameSimilarity(features, "uniform").compare((1,), True, 3, np.arange(20))
    assert len(read) == 3 and all(np.array_equal(a, b) for a, b in zip(again, alone, strict=True))


# --- how uneven a film is ---------------------------------------------------------------------------


def test_unevenness_is_what_the_best_spacing_gains() -> None:
    assert film(40, pace=0.0).costs(4, Monitor()).unevenness == 0
    assert film(40, pace=0.1).costs(4, Monitor()).unevenness < 1
    assert film(40, pace=np.where(np.arange(40) > 30, 0.2, 0.0)).costs(4, Monitor()).unevenness > 4
    # A quarter of the film changes at nine times the rate of the rest.
    rates = np.where(np.arange(100) < 25, 9.0, 1.0)
    between = np.full((2, 100, 6), np.inf)
    between[:, :, 4] = rates
    nothing = np.zeros((2, 100))
    expected = 10 * np.log10(rates.mean() / ((3 * 25 + 75) / 100) ** 2)
    assert PairCosts(np.arange(100), nothing, nothing, between).unevenness == pytest.approx(expected)
