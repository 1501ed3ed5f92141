"""Token matching between frames: pooling to a grid, best matches, and the similarity of two frames.

Features have unit-length rows, so a dot product is a cosine similarity.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from adaflow_core.model.memory import to_device
from adaflow_core.types import Features, Grid

# Entries of a similarity table in memory at a time; 2**24 floats are 64 MB.
TABLE_ENTRIES = 2**24
# The same for best matches on a GPU, which finishes a smaller table before Python has launched the next.
BEST_ENTRIES_CUDA = 2**26


def area_means(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize [F, C, H, W] to `size` (h, w): each new pixel is the mean of the area it covers."""
    # Metal supports this only where the sizes divide evenly.
    there = pictures.cpu() if pictures.device.type == "mps" else pictures
    return F.adaptive_avg_pool2d(there, size).to(pictures.device)


def pool_tokens(tokens: Tensor, grid: Grid, to: Grid) -> Tensor:
    """Pool tokens [..., n, c] on `grid` to [..., m, c] on `to`: mean over areas first, then rows of unit length."""
    if grid == to:
        return tokens
    *lead, _, c = tokens.shape
    picture = rearrange(tokens.reshape(-1, grid.n, c), "b (h w) c -> b c h w", h=grid.h)
    pooled = area_means(picture.float(), (to.h, to.w))
    rows = F.normalize(rearrange(pooled, "b c h w -> b (h w) c"), dim=-1).to(tokens.dtype)
    return rows.reshape(*lead, to.n, c)


def pool_map(values: Tensor, grid: Grid, to: Grid) -> Tensor:
    """Resample [..., n] on `grid` to [..., m] on `to`: mean over areas if `to` is coarser, nearest if it is finer."""
    if grid == to:
        return values
    lead = values.shape[:-1]
    picture = rearrange(values.reshape(-1, grid.n), "b (h w) -> b 1 h w", h=grid.h)
    if to.n > grid.n:
        picture = F.interpolate(picture, size=(to.h, to.w), mode="nearest-exact")
    else:
        picture = area_means(picture.float(), (to.h, to.w)).to(values.dtype)
    return picture.reshape(*lead, to.n)


def coarsen(grid: Grid, factor: int) -> Grid:
    """Return the grid whose tokens cover `factor` x `factor` tokens of `grid`; it has at least 2 x 2 tokens."""
    return Grid(max(2, -(-grid.h // factor)), max(2, -(-grid.w // factor)))


def similarity_grid(grid: Grid, limit: int = 1024) -> Grid:
    """Return the finest coarsening of `grid` with at most `limit` tokens: finer grids cost more and tell no more."""
    factor = 1
    while coarsen(grid, factor).n > limit:
        factor += 1
    return coarsen(grid, factor)


def best_match(
    queries: Tensor,  # [B, n, c]
    keys: Tensor,  # [B, m, c]
) -> tuple[Tensor, Tensor]:
    """Return each query's highest similarity [B, n] and the index of that key [B, n]; ties go to the first."""
    entries = BEST_ENTRIES_CUDA if queries.is_cuda else TABLE_ENTRIES
    rows = max(1, entries // max(1, len(queries) * keys.shape[1]))
    parts = [(part @ keys.mT).max(dim=-1) for part in queries.split(rows, dim=1)]
    return torch.cat([p.values for p in parts], dim=1), torch.cat([p.indices for p in parts], dim=1)


def match_maps(
    first: Tensor,  # [B, n, c]
    second: Tensor,  # [B, n, c]
) -> tuple[Tensor, Tensor]:
    """Return the best-match similarity of each token of `first` in `second` [B, n], and the other way [B, n].

    One table serves both directions: its row maxima and its column maxima.
    """
    there, back = [], []
    size = max(1, TABLE_ENTRIES // (first.shape[1] * second.shape[1]))
    for a, b in zip(first.split(size), second.split(size), strict=True):
        table = a @ b.mT  # [b, n, n]
        there.append(table.amax(dim=2))
        back.append(table.amax(dim=1))
    return torch.cat(there), torch.cat(back)


def window_minimum(heat: Tensor, grid: Grid) -> Tensor:
    """Return [B], the lowest mean of [B, n] over sliding windows, so that a small change is not averaged away.

    A window's side is max(2, max(h, w) / 16) tokens, the stride half of that.
    """
    side = min(max(2, max(grid.h, grid.w) // 16), grid.h, grid.w)
    picture = rearrange(heat, "b (h w) -> b 1 h w", h=grid.h)
    means = F.avg_pool2d(picture, side, stride=max(1, side // 2))
    return reduce(means, "b 1 h w -> b", "min")


def weighted_mean(heat: Tensor, weights: Tensor) -> Tensor:
    """Return [B], the mean of `heat` [B, n] weighted by `weights` [B, n]."""
    return (heat * weights).sum(dim=-1) / weights.sum(dim=-1)


# Bytes of pooled rows that may stay in memory: at Stable Diffusion's size 16,000 frames on a GPU, 2,000 elsewhere.
CACHE_CUDA, CACHE = 2**31, 2**29


class PooledRows:
    """Rows [T, n, c] on `grid`, pooled to the grid `to`; a call with frame ids [F] returns [F, to.n, c].

    Pooled rows stay in memory if they fit: planning needs the same frames many times, and reading and pooling them each
    time would take most of its time.
    """

    def __init__(self, rows: np.ndarray, grid: Grid, to: Grid, device: torch.device | str, filled: bool = True) -> None:
        device = torch.device(device)
        self.rows, self.grid, self.to, self.device = rows, grid, to, device
        # Half precision only pays where there is hardware for it.
        self.dtype = torch.float16 if device.type == "cuda" else torch.float32
        size = len(rows) * to.n * rows.shape[-1] * self.dtype.itemsize
        self._cached: Tensor | None = None
        if size <= (CACHE_CUDA if device.type == "cuda" else CACHE):
            self._cached = torch.empty(len(rows), to.n, rows.shape[-1], device=device, dtype=self.dtype)
        if filled:
            self.fill([self])

    def __call__(self, frame_ids: np.ndarray) -> Tensor:
        if self._cached is not None:
            return self._cached[to_device(frame_ids, self.device)]
        return pool_tokens(self._read(frame_ids), self.grid, self.to)

    @staticmethod
    def fill(these: list[PooledRows], chunk: int = 64) -> None:
        """Pool all of `these` that stay in memory; they have the same source rows, which are read once."""
        kept = [(one.to, one._cached) for one in these if one._cached is not None]
        for start in range(0, len(these[0].rows) if kept else 0, chunk):
            part = slice(start, start + chunk)
            read = these[0]._read(part)
            for to, cached in kept:
                cached[part] = pool_tokens(read, these[0].grid, to)

    def _read(self, frame_ids: np.ndarray | slice) -> Tensor:
        return to_device(self.rows[frame_ids], self.device).to(self.dtype)


class PooledFeatures:
    """A video's features pooled to the grids on which planning compares frames, kept until `release`."""

    def __init__(self, features: Features, device: torch.device | str) -> None:
        self.features, self.device = features, torch.device(device)
        self.base = similarity_grid(features.grid)  # the finest of these grids
        self._pooled: dict[Grid, PooledRows] = {}

    def __call__(self, to: Grid) -> PooledRows:
        """Return the features on grid `to`. The finest grid is pooled with it, so that the features are read once."""
        if to not in self._pooled:
            missing = [grid for grid in dict.fromkeys((to, self.base)) if grid not in self._pooled]
            of = self.features.tokens, self.features.grid
            self._pooled |= {grid: PooledRows(*of, grid, self.device, filled=False) for grid in missing}
            PooledRows.fill([self._pooled[grid] for grid in missing])
        return self._pooled[to]

    def release(self) -> None:
        """Free the device's memory; features are read again when they are needed."""
        self._pooled.clear()


def on_grid(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps [F, h, w] to [F, *size]: each value is the mean of the area it covers."""
    return area_means(maps[:, None], size)[:, 0]


def blurred(maps: Tensor, boxes: int) -> Tensor:
    """Blur maps [F, 1, h, w] by 3x3 means, `boxes` times; two are nearly a Gaussian of one token or pixel."""
    for _ in range(boxes):
        maps = F.avg_pool2d(F.pad(maps, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return maps
