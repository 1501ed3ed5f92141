"""Smooth random fields that stick to the world: periodic tables drawn from a seed, sampled anywhere.

Fields and masks have shape [N, 1, H, W] throughout the renderer, colours [N, 3, H, W] or [N, 3, 1, 1].
"""

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from scenes.rows import Rows

TEXELS = 128  # a period of a table
CELLS = 256  # random numbers for cells (trees, stars, strokes)
# Cells a period, of the octaves that make up each channel: billows, smooth swells, and finer grain.
OCTAVES = ((4, 8, 16, 32), (4, 8), (8, 16, 32))
BILLOWS, SWELLS, GRAIN = 0, 1, 2


def _hash(values: Tensor) -> Tensor:
    """int64 to floats in 0..1 (splitmix64's mixing steps; products wrap around)."""
    x = values * -7046029254386353131
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return ((x >> 33) & 0xFFFFFF).float() / 0xFFFFFF


@dataclass(frozen=True)
class Noise(Rows):
    """The random fields of N frames."""

    tables: Tensor  # [N, channels, TEXELS + 1, TEXELS + 1], mean 0, about -1..1, last row and column wrapped
    cells: Tensor  # [N, CELLS] in 0..1

    @staticmethod
    def of(seeds: Tensor) -> "Noise":
        """seeds: [N] int64. Frames of one clip share a seed, so each is computed once."""
        unique, back = torch.unique(seeds, return_inverse=True)
        channels = []
        for c, octaves in enumerate(OCTAVES):
            total = torch.zeros(len(unique), 1, TEXELS, TEXELS, device=seeds.device)
            for k, n in enumerate(octaves):
                index = torch.arange(n * n, device=seeds.device)
                lattice = _hash(unique[:, None] * 1_000_003 + (c * 8 + k) * 65_537 + index) - 0.5
                lattice = rearrange(lattice, "n (h w) -> n 1 h w", h=n)
                padded = F.pad(lattice, (2, 2, 2, 2), mode="circular")
                step = TEXELS // n
                smooth = F.interpolate(padded, scale_factor=float(step), mode="bicubic", align_corners=False)
                total += smooth[..., 2 * step : -2 * step, 2 * step : -2 * step] * (1.3 * 0.5**k)
            channels.append(total)
        tables = F.pad(torch.cat(channels, 1), (0, 1, 0, 1), mode="circular")
        count = torch.arange(CELLS, device=seeds.device)
        cells = _hash(unique[:, None] * 1_000_003 + 1_037_951_249 + count)
        return Noise(tables[back], cells[back])

    def at(self, channel: int, x: Tensor, y: Tensor) -> Tensor:
        """The field at x, y (1 is a whole period), broadcast to [N, 1, H, W]."""
        grid = torch.stack(torch.broadcast_tensors(x - x.floor(), y - y.floor()), -1).squeeze(1) * 2 - 1
        table = self.tables[:, channel : channel + 1]
        return F.grid_sample(table, grid.expand(len(table), -1, -1, -1), mode="bilinear", align_corners=True)

    def cell(self, i: Tensor, j: Tensor | float = 0.0, salt: int = 0) -> Tensor:
        """A random number in 0..1 of the cell with the whole numbers i, j; shape of i and j broadcast."""
        index = (i * 37 + j * 101 + salt * 59) % CELLS
        flat = rearrange(index.long(), "n 1 h w -> n (h w)")
        return torch.gather(self.cells, 1, flat).view(index.shape)


def mix(a: Tensor | float, b: Tensor | float, amount: Tensor | float) -> Tensor:
    return a + (b - a) * amount  # type: ignore[return-value]  # one of the three is a tensor


def smoothstep(low: float, high: float, x: Tensor) -> Tensor:
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def cover(distance: Tensor, pixel: Tensor) -> Tensor:
    """Coverage of a pixel by a shape, from the signed distance to its edge (negative inside)."""
    return (0.5 - distance / (1.2 * pixel)).clamp(0, 1)


def hexcolour(code: str) -> tuple[float, ...]:
    return tuple(int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))


@cache  # a constant sent to a GPU anew would wait for the GPU each time
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Three numbers as [1, 3, 1, 1] on a device."""
    return torch.tensor(values, device=device).view(1, 3, 1, 1)


def ink(code: str, like: Tensor) -> Tensor:
    """A colour [1, 3, 1, 1] from its six hex digits, on the device of `like`."""
    return constant(hexcolour(code), like.device)
