"""How alike two frames are: naive float64 versions, directions, bands."""

from __future__ import annotations

import numpy as np
import pytest

from adaflow_core.errors import Stopped
from adaflow_core.planning import similarity as module
from adaflow_core.planning.matching import coarsen
from adaflow_core.planning.similarity import FrameSimilarity
from adaflow_core.progress import Monitor, Progress
from adaflow_core.types import Grid
from helpers.made import block_mean, drifting, make_features, unit_rows

GRID = Grid(8, 6)


def frames(count: int = 7) -> FrameSimilarity:
    rng = np.random.default_rng(0)
    importance = rng.random((count, GRID.n)) + 0.2
    features = make_features(unit_rows(count, GRID.n, 5), GRID, importance=importance)
    return FrameSimilarity(features, "distinctive")


def naive(similarity: FrameSimilarity, scale: int, a: int, b: int) -> list[tuple[float, float]]:
    """(mean, worst window) of `a` in `b`, then of `b` in `a`."""
    to = coarsen(GRID, scale)
    tokens = [block_mean(similarity.features.tokens[i].astype(np.float64), GRID, to) for i in (a, b)]
    weights = [block_mean(similarity.weights[i][:, None].astype(np.float64), GRID, to)[:, 0] for i in (a, b)]
    first, second = (t / np.linalg.norm(t, axis=-1, keepdims=True) for t in tokens)
    table = first @ second.T
    found = []
    for heat, weight in ((table.max(1), weights[0]), (table.max(0), weights[1])):
        picture = heat.reshape(to)
        windows = [picture[y : y + 2, x : x + 2].mean() for y in range(to.h - 1) for x in range(to.w - 1)]
        found.append((np.average(heat, weights=weight), min(windows)))
    return found


@pytest.mark.parametrize("scales", [(1,), (2,), (1, 2, 4)])
@pytest.mark.parametrize("both", [True, False])
def test_compare_takes_the_lowest_of_scales_and_directions(scales: tuple[int, ...], both: bool) -> None:
    similarity = frames()
    others = np.array([0, 2, 3, 6])
    means, windows = similarity.compare(scales, both, 3, others)
    for i, other in enumerate(others):
        found = [pair for scale in scales for pair in naive(similarity, scale, 3, int(other))[: 1 + both]]
        assert means[i] == pytest.approx(min(mean for mean, _ in found), abs=1e-3)
        assert windows[i] == pytest.approx(min(window for _, window in found), abs=1e-3)
    if scales == (1,):
        assert means[2] == pytest.approx(1, abs=2e-3)


def test_an_entering_object_is_seen_from_the_later_frame_only() -> None:
    axes = np.eye(4)
    still = np.broadcast_to(axes[0], (GRID.n, 4)).copy()
    entered = still.copy()
    entered[10] = axes[1]
    similarity = FrameSimilarity(make_features(np.stack([still, entered]), GRID), "uniform")
    assert similarity.compare((1,), False, 0, np.array([1]))[0] == pytest.approx(1)
    means, windows = similarity.compare((1,), True, 0, np.array([1]))
    assert means == pytest.approx(1 - 1 / GRID.n) and windows == pytest.approx(0.75)
    # One that leaves is seen from the earlier frame already.
    assert similarity.compare((1,), False, 1, np.array([0]))[0] == pytest.approx(1 - 1 / GRID.n)


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("width", [1, 3, 20])
@pytest.mark.parametrize("both", [True, False])
def test_a_band_is_made_of_comparisons(stride: int, width: int, both: bool) -> None:
    features = drifting(14, GRID)
    band = FrameSimilarity(features, "uniform").band((1, 2), both, stride, width, Monitor())
    single = FrameSimilarity(features, "uniform")
    sampled = np.arange(0, 14, stride)
    assert band.shape == (len(sampled), width)
    for i, d in np.ndindex(*band.shape):
        if i + d >= len(sampled):
            assert np.isnan(band[i, d])
        else:
            expected = single.compare((1, 2), both, int(sampled[i]), sampled[i + d : i + d + 1])[0]
            assert band[i, d] == pytest.approx(float(expected[0]), abs=1e-5)


def test_a_band_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    similarity = FrameSimilarity(drifting(10, GRID), "uniform")
    wide = similarity.band((1, 2), True, 1, 6, Monitor())

    def refuse(*_: object) -> None:
        raise AssertionError("compared again")

    monkeypatch.setattr(module, "match_maps", refuse)
    np.testing.assert_array_equal(similarity.band((1, 2), True, 1, 4, Monitor()), wide[:, :4])
    with pytest.raises(AssertionError, match="compared again"):
        similarity.band((1, 4), True, 1, 4, Monitor())


def test_adjacent_frames() -> None:
    count = 70  # more than one chunk
    weights = np.random.default_rng(2).random((count, GRID.n)) ** 4
    features = make_features(drifting(count, GRID, cuts=(30,)).tokens, GRID, importance=weights)
    similarity = FrameSimilarity(features, "distinctive")
    adjacent = similarity.adjacent(Monitor())
    assert adjacent.shape == (count,) and adjacent[0] == 1 and adjacent.argmin() == 30
    for t in (1, 29, 30, 63, 64, 65, 69):
        expected = min(mean for mean, _ in naive(similarity, 2, t - 1, t))
        assert adjacent[t] == pytest.approx(expected, abs=1e-3)


def test_heat_is_the_best_match_of_every_token() -> None:
    similarity = frames()
    heat = similarity.heat(5, np.array([0, 1, 5]))
    tokens = similarity.features.tokens.astype(np.float64)
    assert similarity.base == GRID
    for row, frame in zip(heat, (0, 1, 5), strict=True):
        np.testing.assert_allclose(row, (tokens[frame] @ tokens[5].T).max(1), atol=2e-3)


def test_one_frame_has_no_neighbour() -> None:
    assert frames(1).adjacent(Monitor()).tolist() == [1]


def test_stop_is_seen_within_a_band() -> None:
    seen: list[Progress] = []
    similarity = FrameSimilarity(drifting(30, GRID), "uniform")
    with pytest.raises(Stopped):
        similarity.band((1,), True, 1, 8, Monitor(seen.append, lambda: len(seen) > 3))
    assert seen[-1].done < 30 and not similarity._bands
