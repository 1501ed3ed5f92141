"""Cuts in the pixels: found on their frames, and not where a picture moves, fades or flashes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from adaflow_core.motion.cuts import FLASH, detect_cuts
from adaflow_core.planning import analysis
from adaflow_core.planning.analysis import source_cuts
from adaflow_core.progress import Monitor
from adaflow_core.storage.cache import Cache
from adaflow_core.video.types import Video
from benchmarks.cuts import KINDS, drawn_film

H, W = 64, 80


def pan(frames: int, seed: int, pace: int = 1) -> np.ndarray:
    """[frames, H, W, 3] a window that moves over a texture, so many pixels a frame."""
    texture = np.random.default_rng(seed).integers(0, 255, (10, 20, 3), dtype=np.uint8)
    wide = cv2.resize(texture, (2 * W + frames * pace, H), interpolation=cv2.INTER_CUBIC)
    return np.stack([wide[:, t * pace : t * pace + W] for t in range(frames)])


def plain(frames: int, value: int) -> np.ndarray:
    return np.full((frames, H, W, 3), value, np.uint8)


def found(*shots: np.ndarray) -> list[int]:
    return detect_cuts(np.concatenate(shots), Monitor()).tolist()


A, B, C = pan(12, 0), pan(12, 1), pan(12, 2)


@pytest.mark.parametrize(("number", "kind"), list(enumerate(KINDS)))
def test_a_cut_of_a_drawn_film(number: int, kind: str) -> None:
    film = drawn_film(4 * number + 1, "val", 5, size=96)
    assert film.kind == kind and len(film.cuts) == 1 and found(film.frames) == list(film.cuts)


def test_shots_may_be_short() -> None:
    assert found(A, B) == [12] and found(A, B[:1], C) == [12, 13] and found(A, B[:2], C) == [12, 14]
    assert found(A[:1], B) == [1] and found(A, B[:1]) == [12] and found(A[:1], B[:1]) == [1]
    assert found(A) == found(A[:1]) == found(A[:2]) == found(plain(9, 0)) == []


@pytest.mark.parametrize("pace", [3, 8, 16])
def test_fast_motion_is_no_cut(pace: int) -> None:
    assert found(pan(16, 3, pace)) == found(A[:6], pan(10, 0, pace)) == []


@pytest.mark.parametrize("value", [0, 255])
def test_a_flash_is_no_cut_and_a_blank_shot_is(value: int) -> None:
    for frames in range(1, FLASH + 1):
        assert found(A[:4], plain(frames, value), A[4 + frames :]) == []
    assert found(A, plain(6, value), B) == [12, 18]


@pytest.mark.parametrize("black", [False, True])
def test_fades_are_no_cuts(black: bool) -> None:
    weights = np.linspace(0, 1, 12)[:, None, None, None]
    fades = [A * (1 - weights), B * weights]
    assert found(*(part.astype(np.uint8) for part in (fades if black else [fades[0] + fades[1]]))) == []


def test_a_brightness_that_changes_is_no_cut() -> None:
    assert found(A[:6], (A[6:] * 0.4).astype(np.uint8)) == []


def test_cuts_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video, cache = Video(np.concatenate([A, B]), Fraction(24), "a and b"), Cache(tmp_path)
    assert source_cuts(video, cache, Monitor()).tolist() == [12]
    monkeypatch.setattr(analysis, "detect_cuts", None)
    assert source_cuts(video, cache, Monitor()).tolist() == [12]
