"""A small plan made by hand, for tests of what is drawn and shown."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from adaflow_core.config import ModelProfile, PlanConfig, resolve_plan
from adaflow_core.types import Correspondence, EditLayout, Features, Forecast, Grid, Plan, Segments, Slimming
from adaflow_core.video.types import Video

FINE, COARSE = Grid(4, 6), Grid(2, 3)


def slimming(grid: Grid, keyframes: int, kept: int, rng: np.random.Generator) -> Slimming:
    """Every keyframe keeps all of its own tokens and the best of the others up to `kept`."""
    scores = rng.random((keyframes, keyframes, grid.n)).astype(np.float16)
    rows = []
    for q in range(keyframes):
        ranked = scores[q].astype(np.float32)
        ranked[q] = 2.0
        rows.append(np.sort(np.argsort(-ranked.ravel(), kind="stable")[:kept]))
    kept = np.array(rows, dtype=np.int32)
    return Slimming(grid, scores, kept, 0, 1.0)


def small_plan(*, slimmed: bool = True, keyframes: int | None = None, start: int = 0) -> Plan:
    """20 frames of 64x48 at 10 fps, segments at 0, 8, 14 (a shot cut), keyframes 3, 10, 17."""
    rng = np.random.default_rng(0)
    T, (h, w) = 20, (48, 64)
    frames = rng.integers(90, 256, (T, h, w, 3), dtype=np.uint8)
    segments = Segments(np.array([0, 8, 14]), np.array([3, 10, 17]), np.array([14]), T)
    slots = segments.segment_of()[:, None]
    residual = rng.random(T).astype(np.float32)
    residual[segments.keyframes] = 0
    config = resolve_plan(PlanConfig(keyframes=keyframes), ModelProfile(), "cpu")
    return Plan(
        video=Video(frames, Fraction(10), "digest", start=start),
        model="embedded",
        config=config,
        features=Features(np.zeros((T, FINE.n, 2), np.float16), FINE, {}, 1.0),
        segments=segments,
        layout=EditLayout(
            segments.keyframes,
            {grid: slimming(grid, 3, 2 * grid.n, rng) for grid in (FINE, COARSE)} if slimmed else None,
            Correspondence(
                slots,
                {g: np.ones((T, 1, g.n), np.float16) for g in (FINE, COARSE)},
                {g: np.zeros((T, 1, g.n), np.int32) for g in (FINE, COARSE)},
            ),
        ),
        adjacent=np.ones(T, np.float32),
        similarity=(0.8 + 0.2 * rng.random(T)).astype(np.float32),
        window=(0.5 + 0.3 * rng.random(T)).astype(np.float32),
        heat=rng.random((T, FINE.n)).astype(np.float16),
        heat_grid=FINE,
        residual=residual,
        forecast=Forecast(
            {"invert": 30.0, "edit": 60.0, "decode frames": 5.0},
            3 * 2**29,
            of_keyframes={"invert": 4.5, "edit": 12.0, "decode frames": 0.75},
        ),
        seconds={"features": 1.0},
    )
