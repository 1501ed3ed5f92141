"""Scores on cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from adaflow_core.report.scores import psnr
from benchmarks.metrics import ssim_map, warp_error
from benchmarks.truth import TrueFilms, draw, other_value
from scenes.hidden import redrawn
from scenes.world import sample


def test_psnr_by_hand() -> None:
    first = np.zeros((1, 4, 4, 3), np.uint8)
    second = first + np.uint8(51)  # a fifth of the range: 20 log10(5)
    assert np.isclose(psnr(first, second), 20 * np.log10(5))
    mask = np.zeros((1, 4, 4), bool)
    mask[0, 0, 0] = True
    second[0, 0, 0] = 0
    assert psnr(first, second, mask) == np.inf


def test_ssim_falls_with_noise() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    noisy = np.clip(frames + np.random.default_rng(1).normal(0, 60, frames.shape), 0, 255).astype(np.uint8)
    assert np.isclose(ssim_map(frames, frames).mean(), 1) and ssim_map(frames, noisy).mean() < 0.9


def test_warp_error_is_zero_along_the_true_flow() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    frames = np.stack([frame, np.roll(frame, 2, axis=1)])
    flow = np.zeros((1, 2, 16, 16), np.float32)
    flow[:, 0] = 2
    visible = np.ones((1, 16, 16), bool)
    visible[..., -2:] = False
    assert warp_error(frames, flow, visible) == 0
    assert warp_error(frames, 0 * flow, visible) > 10


@pytest.mark.parametrize(("kind", "part"), [("object", "main"), ("background", "scenery")])
def test_the_nearest_true_film_is_one_that_the_words_allow(kind: str, part: str) -> None:
    row = sample(1, seed=3, split="val", motion="drift", ambiguous=True).replace(present2=False)
    times = np.linspace(0, 1, 5, dtype=np.float32)
    pair = draw(row, kind, other_value(row, kind, 0), times, size=48)
    films = TrueFilms(pair, 4, sampled=3)
    np.testing.assert_array_equal(films.nearest(pair.truth), pair.truth)
    another = row.with_hidden(redrawn(row.hidden, part, 2))  # type: ignore[arg-type]
    equally_true = draw(another, kind, pair.after.names(pair.attribute)[0], times, size=48).truth
    assert psnr(equally_true, pair.truth, pair.region) < 30
    np.testing.assert_array_equal(films.nearest(equally_true), equally_true)
