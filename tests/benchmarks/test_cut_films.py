"""The films of the cuts' benchmark, and its table."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cuts import drawn_film, join, joined_film, main, summary

SHOTS = [np.full((10, 4, 4, 3), value, np.float32) for value in (50, 100, 150)]


def test_shots_are_joined() -> None:
    rng = np.random.default_rng(0)
    film, cuts = join(SHOTS, ["cut", "cut"], rng)
    assert cuts == [10, 20] and len(film) == 30
    film, cuts = join(SHOTS, ["dissolve", "cut"], rng)
    (cut,) = cuts
    assert len(film) == cut + 10 and 0 < np.diff(film[:cut, 0, 0, 0]).max() < 10
    film, cuts = join(SHOTS, ["black", "cut"], rng)
    assert film.min() == 0 and len(film) == cuts[0] + 10


def test_films_repeat_and_count_their_cuts() -> None:
    first, again = (drawn_film(2, "test", 0, 64) for _ in range(2))
    assert len(first.cuts) == 2 and np.array_equal(first.frames, again.frames)
    real = joined_film(1, [first.frames, first.frames[::-1]], "test", 0, 64)
    assert real.frames.shape[1:] == (64, 64, 3) and len(real.cuts) == 1


def test_the_table() -> None:
    row = {"films": "drawn", "frames": 10, "seconds": 0.02}
    text = summary(
        [row | {"kind": kind, "right": 3, "wrong": wrong, "missed": 0} for kind, wrong in [("plain", 0), ("fast", 2)]]
    )
    assert "| drawn | 2 | 20 | 6 | 6 | 2 | 0.750 | 1.000 | 0.857 | 2.00 |" in text
    assert "| fast | 1 | 10 | 3 | 3 | 2 | 0.600 |" in text and "flash" not in text


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--films", "2", "--size", "64", "--split", "val"])
    assert "| drawn | 2 |" in capsys.readouterr().out
