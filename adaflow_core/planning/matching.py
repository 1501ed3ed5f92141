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
# Of best matches on a GPU, which takes less time for a small table than Python takes to give it.
BEST_ENTRIES_CUDA = 2**26


def area_means(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """[F, C, H, W] on another grid, (h, w): the mean of what each place of it covers."""
    # Metal knows them only where the sizes divide.
    there = pictures.cpu() if pictures.device.type == "mps" else pictures
    return F.adaptive_avg_pool2d(there, size).to(pictures.device)


def pool_tokens(tokens: Tensor, grid: Grid, to: Grid) -> Tensor:
    """[..., n, c] on `grid` -> [..., m, c] on `to`: mean over areas first, then rows of unit length."""
    if grid == to:
        return tokens
    *lead, _, c = tokens.shape
    picture = rearrange(tokens.reshape(-1, grid.n, c), "b (h w) c -> b c h w", h=grid.h)
    pooled = area_means(picture.float(), (to.h, to.w))
    rows = F.normalize(rearrange(pooled, "b c h w -> b (h w) c"), dim=-1).to(tokens.dtype)
    return rows.reshape(*lead, to.n, c)


def pool_map(values: Tensor, grid: Grid, to: Grid) -> Tensor:
    """[..., n] -> [..., m]: mean over areas where `to` is coarser, nearest where it is finer."""
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
    """The grid whose tokens cover `factor` x `factor` tokens of `grid`, at least 2 x 2."""
    return Grid(max(2, -(-grid.h // factor)), max(2, -(-grid.w // factor)))


def similarity_grid(grid: Grid, limit: int = 1024) -> Grid:
    """The finest grid of at most `limit` tokens that `grid` reduces to: finer ones cost without telling more."""
    factor = 1
    while coarsen(grid, factor).n > limit:
        factor += 1
    return coarsen(grid, factor)


def best_match(
    queries: Tensor,  # [B, n, c]
    keys: Tensor,  # [B, m, c]
) -> tuple[Tensor, Tensor]:
    """For each query its best similarity [B, n] and the key's index [B, n]; ties go to the first."""
    entries = BEST_ENTRIES_CUDA if queries.is_cuda else TABLE_ENTRIES
    rows = max(1, entries // max(1, len(queries) * keys.shape[1]))
    parts = [(part @ keys.mT).max(dim=-1) for part in queries.split(rows, dim=1)]
    return torch.cat([p.values for p in parts], dim=1), torch.cat([p.indices for p in parts], dim=1)


def match_maps(
    first: Tensor,  # [B, n, c]
    second: Tensor,  # [B, n, c]
) -> tuple[Tensor, Tensor]:
    """Best-match similarity of each token of `first` in `second` [B, n], and the other way [B, n].

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
    """[B, n] -> [B]: the lowest mean over sliding windows, so that a small change is not averaged away.

    Window side max(2, max(h, w) / 16) tokens, stride half of it.
    """
    side = min(max(2, max(grid.h, grid.w) // 16), grid.h, grid.w)
    picture = rearrange(heat, "b (h w) -> b 1 h w", h=grid.h)
    means = F.avg_pool2d(picture, side, stride=max(1, side // 2))
    return reduce(means, "b 1 h w -> b", "min")


def weighted_mean(heat: Tensor, weights: Tensor) -> Tensor:
    """[B, n], [B, n] -> [B]."""
    return (heat * weights).sum(dim=-1) / weights.sum(dim=-1)


# Bytes of pooled rows that stay in memory: at Stable Diffusion's size 16,000 frames on a GPU, 2,000 elsewhere.
CACHE_CUDA, CACHE = 2**31, 2**29


class PooledRows:
    """`rows(frame_ids)` -> [F, to.n, c]: `rows` [T, n, c] on `grid`, pooled to `to`.

    Planning needs the same frames many times; reading and pooling them each time would take most of its time.
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
        """Pool what stays in memory, of the same rows on one grid to each one's; they are read once for all."""
        kept = [(one.to, one._cached) for one in these if one._cached is not None]
        for start in range(0, len(these[0].rows) if kept else 0, chunk):
            part = slice(start, start + chunk)
            read = these[0]._read(part)
            for to, cached in kept:
                cached[part] = pool_tokens(read, these[0].grid, to)

    def _read(self, frame_ids: np.ndarray | slice) -> Tensor:
        return to_device(self.rows[frame_ids], self.device).to(self.dtype)


class PooledFeatures:
    """A video's features pooled to the grids on which planning compares frames; each is remembered until `release`."""

    def __init__(self, features: Features, device: torch.device | str) -> None:
        self.features, self.device = features, torch.device(device)
        self.base = similarity_grid(features.grid)  # the finest of them
        self._pooled: dict[Grid, PooledRows] = {}

    def __call__(self, to: Grid) -> PooledRows:
        """Those on grid `to`. The finest come along, as reading them again would take most of the time."""
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
    """Maps [F, h, w] on another grid [F, *size]: the mean of what a token of it covers."""
    return area_means(maps[:, None], size)[:, 0]


def blurred(maps: Tensor, boxes: int) -> Tensor:
    """Maps [F, 1, h, w] averaged over 3x3 that often; two boxes are nearly a Gaussian of one token or pixel."""
    for _ in range(boxes):
        maps = F.avg_pool2d(F.pad(maps, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return maps
