"""What pictures are drawn with: dashes and the colours of heat maps."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest

from adaflow_core.report.canvas import _dashes, heat_colours
from helpers.pictures import lightness


def naive_dashes(points: list[tuple[float, float]], on: float, off: float) -> list[list[tuple[float, float]]]:
    """The ends of the pieces of a dashed polyline, each dash found by itself."""
    corners = np.array(points)
    along = np.concatenate([[0.0], np.hypot(*np.diff(corners, axis=0).T).cumsum()])
    pieces = []
    for start in np.arange(0.0, along[-1], on + off):
        end = min(start + on, along[-1])
        stops = [start, *along[(along > start) & (along < end)], end]
        places = [(float(np.interp(s, along, corners[:, 0])), float(np.interp(s, along, corners[:, 1]))) for s in stops]
        pieces += [list(piece) for piece in pairwise(places)]
    return pieces


@pytest.mark.parametrize("dash", [(5.0, 3.0), (1.0, 2.0)])
@pytest.mark.parametrize("corners", [2, 3, 200])
def test_dashes_go_on_around_corners(corners: int, dash: tuple[float, float]) -> None:
    points = np.random.default_rng(corners).integers(0, 30, (corners, 2)) * 0.37  # some of them twice in a row
    line = [(float(x), float(y)) for x, y in np.concatenate([points, points[-1:]])]
    assert [list(piece) for piece in _dashes(line, *dash)] == naive_dashes(line, *dash)
    assert _dashes(line[-2:], *dash) == []


def test_the_dashes_of_a_long_film_are_drawn_at_once() -> None:
    curve = [(float(x), float(y)) for x, y in enumerate(np.random.default_rng(0).random(20_000) * 100)]
    begin = time.process_time()
    _dashes(curve, 5, 3)
    assert time.process_time() - begin < 2  # one after the other they took 7 s


def test_heat_colours_grow_lighter_all_along() -> None:
    light = lightness(heat_colours(np.linspace(0, 1, 64)))
    assert (np.diff(light) > 0).all()
