"""Features made by hand, and the naive versions that several tests compare with."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adaflow_core.types import Features, Grid, Segments


def unit_rows(*shape: int, seed: int = 0) -> np.ndarray:
    """float64 rows of unit length."""
    rows = np.random.default_rng(seed).normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def unit_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(unit_rows(*shape, seed=seed))


def make_features(
    tokens: np.ndarray,  # [T, n, c]
    grid: Grid,
    importance: np.ndarray | None = None,  # [T, n]
) -> Features:
    """As the feature pass leaves them."""
    rows = tokens.astype(np.float16)
    weights = np.ones(tokens.shape[:2], np.float32) if importance is None else importance.astype(np.float32)
    return Features(
        tokens=rows,
        grid=grid,
        importance={"uniform": np.ones(tokens.shape[:2], np.float32), "distinctive": weights},
        agreement=1.0,
    )


def drifting(
    frames: int, grid: Grid, c: int = 8, *, cuts: tuple[int, ...] = (), pace: float | np.ndarray = 0.08
) -> Features:
    """Unit rows that turn slowly, at one pace or at one for each frame, and become others at each cut."""
    paces = np.broadcast_to(pace, frames)
    rng = np.random.default_rng(1)
    tokens = np.empty((frames, grid.n, c))
    for t in range(frames):
        if t == 0 or t in cuts:
            current = rng.normal(size=(grid.n, c))
        current = current + paces[t] * rng.normal(size=current.shape)
        tokens[t] = current / np.linalg.norm(current, axis=-1, keepdims=True)
    return make_features(tokens, grid)


def block_mean(values: np.ndarray, grid: Grid, to: Grid) -> np.ndarray:
    """[n, c] -> [m, c]: the mean over the tokens that each coarser token overlaps."""
    picture = values.reshape(grid.h, grid.w, -1)
    out = np.empty((to.h, to.w, picture.shape[-1]))
    for y in range(to.h):
        for x in range(to.w):
            rows = slice(y * grid.h // to.h, -(-(y + 1) * grid.h // to.h))
            columns = slice(x * grid.w // to.w, -(-(x + 1) * grid.w // to.w))
            out[y, x] = picture[rows, columns].mean(axis=(0, 1))
    return out.reshape(to.n, -1)


def shot_of(segments: Segments, frame_ids: np.ndarray) -> np.ndarray:
    """The shot (0, 1, ...) in which each frame lies."""
    return np.searchsorted(segments.cuts, frame_ids, side="right")


def latents_of(features: Features) -> np.ndarray:
    """[T, 4, h, w] float32 latents that change as the features do."""
    mix = np.random.default_rng(7).normal(size=(features.tokens.shape[-1], 4))
    rows = features.tokens.astype(np.float64) @ mix
    return rows.reshape(len(rows), features.grid.h, features.grid.w, 4).transpose(0, 3, 1, 2).astype(np.float32)
