"""Every frame's rows of features on one token grid, held on the device as long as they are few enough."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adaflow_core.matching import pool_tokens
from adaflow_core.transfer import upload
from adaflow_core.types import Grid

# Bytes that are held: at Stable Diffusion's size 16,000 frames' on a GPU, 2,000 frames' elsewhere.
HELD_CUDA, HELD = 2**31, 2**29


class PooledRows:
    """`rows(frames)` -> [F, to.n, c]: `rows` [T, n, c] on `grid`, pooled to `to`.

    Planning asks for the same frames again and again; read and pooled each time, they would take most of it.
    """

    def __init__(self, rows: np.ndarray, grid: Grid, to: Grid, device: torch.device | str, chunk: int = 64) -> None:
        device = torch.device(device)
        self.rows, self.grid, self.to, self.device = rows, grid, to, device
        # Half precision only pays where there is hardware for it.
        self.dtype = torch.float16 if device.type == "cuda" else torch.float32
        size = len(rows) * to.n * rows.shape[-1] * self.dtype.itemsize
        self._held: Tensor | None = None
        if size <= (HELD_CUDA if device.type == "cuda" else HELD):
            self._held = torch.empty(len(rows), to.n, rows.shape[-1], device=device, dtype=self.dtype)
            for start in range(0, len(rows), chunk):
                self._held[start : start + chunk] = self._read(slice(start, start + chunk))

    def __call__(self, frames: np.ndarray) -> Tensor:
        return self._read(frames) if self._held is None else self._held[upload(frames, self.device)]

    def _read(self, frames: np.ndarray | slice) -> Tensor:
        read = upload(self.rows[frames], self.device).to(self.dtype)
        return pool_tokens(read, self.grid, self.to)
