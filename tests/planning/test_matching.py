"""Pooling, best matches and window means, against naive float64 versions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adaflow_core.planning import matching
from adaflow_core.planning.matching import (
    best_match,
    coarsen,
    match_maps,
    pool_map,
    pool_tokens,
    similarity_grid,
    weighted_mean,
    window_minimum,
)
from adaflow_core.types import Grid
from helpers.made import block_mean, unit_rows, unit_tensor


@pytest.mark.parametrize("entries", [2**24, 1, 40])
def test_best_match_is_the_largest_product(monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    monkeypatch.setattr(matching, "TABLE_ENTRIES", entries)
    queries, keys = unit_rows(3, 7, 5, seed=1), unit_rows(3, 11, 5, seed=2)
    values, indices = best_match(torch.from_numpy(queries), torch.from_numpy(keys))
    table = np.einsum("bnc,bmc->bnm", queries, keys)
    np.testing.assert_allclose(values, table.max(-1), atol=1e-12)
    assert indices.tolist() == table.argmax(-1).tolist()


def test_the_first_of_equal_matches_is_taken() -> None:
    keys = torch.eye(4)[[2, 1, 0, 1, 0]][None]
    assert best_match(torch.eye(4)[[0, 1, 2]][None], keys)[1].tolist() == [[2, 1, 0]]


@pytest.mark.parametrize("entries", [2**24, 1, 2 * 81])
def test_match_maps_are_the_maxima_of_rows_and_columns(monkeypatch: pytest.MonkeyPatch, entries: int) -> None:
    monkeypatch.setattr(matching, "TABLE_ENTRIES", entries)
    first, second = unit_rows(5, 9, 4, seed=3), unit_rows(5, 9, 4, seed=4)
    there, back = match_maps(torch.from_numpy(first), torch.from_numpy(second))
    table = np.einsum("bnc,bmc->bnm", first, second)
    np.testing.assert_allclose(there, table.max(2), atol=1e-12)
    np.testing.assert_allclose(back, table.max(1), atol=1e-12)


@pytest.mark.parametrize(("grid", "to"), [(Grid(8, 6), Grid(4, 3)), (Grid(7, 5), Grid(3, 2))])
def test_tokens_are_pooled_first_and_made_unit_afterwards(grid: Grid, to: Grid) -> None:
    tokens = unit_rows(2, 3, grid.n, 4)
    pooled = pool_tokens(torch.from_numpy(tokens).float(), grid, to)
    assert pooled.shape == (2, 3, to.n, 4)
    for i, j in np.ndindex(2, 3):
        mean = block_mean(tokens[i, j], grid, to)
        np.testing.assert_allclose(pooled[i, j], mean / np.linalg.norm(mean, axis=-1, keepdims=True), atol=1e-5)


def test_a_map_is_averaged_down_and_repeated_up() -> None:
    coarse, fine = Grid(3, 2), Grid(6, 4)
    values = np.random.default_rng(0).random((2, fine.n))
    down = pool_map(torch.from_numpy(values).float(), fine, coarse)
    for row, expected in zip(down, values, strict=True):
        np.testing.assert_allclose(row, block_mean(expected[:, None], fine, coarse)[:, 0], atol=1e-6)
    up = pool_map(down, coarse, fine).reshape(2, 6, 4)
    assert torch.equal(up, down.reshape(2, 3, 2).repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert pool_map(down, coarse, coarse) is down


@pytest.mark.parametrize("grid", [Grid(8, 6), Grid(48, 20), Grid(64, 64), Grid(2, 2), Grid(2, 40)])
def test_the_worst_window_is_the_lowest_mean(grid: Grid) -> None:
    heat = np.random.default_rng(1).random((3, grid.n))
    side = min(max(2, max(grid.h, grid.w) // 16), grid.h, grid.w)
    step = max(1, side // 2)
    expected = [
        min(
            picture[y : y + side, x : x + side].mean()
            for y in range(0, grid.h - side + 1, step)
            for x in range(0, grid.w - side + 1, step)
        )
        for picture in heat.reshape(3, grid.h, grid.w)
    ]
    np.testing.assert_allclose(window_minimum(torch.from_numpy(heat), grid), expected, atol=1e-12)


def test_a_small_change_lowers_the_window_more_than_the_mean() -> None:
    grid = Grid(16, 16)
    heat = torch.ones(1, grid.n)
    heat[0, :2] = 0
    assert window_minimum(heat, grid) == 0.5 and weighted_mean(heat, torch.ones(1, grid.n)) > 0.99


def test_weighted_mean() -> None:
    heat, weights = unit_tensor(2, 6, seed=5).abs(), unit_tensor(2, 6, seed=6).abs()
    expected = [np.average(h, weights=w) for h, w in zip(heat.numpy(), weights.numpy(), strict=True)]
    np.testing.assert_allclose(weighted_mean(heat, weights), expected)


def test_grids() -> None:
    assert coarsen(Grid(9, 4), 2) == Grid(5, 2)
    assert coarsen(Grid(4, 4), 8) == Grid(2, 2)
    assert similarity_grid(Grid(32, 32)) == Grid(32, 32)
    assert similarity_grid(Grid(64, 64)) == Grid(32, 32)
    assert similarity_grid(Grid(96, 54)).n <= 1024
