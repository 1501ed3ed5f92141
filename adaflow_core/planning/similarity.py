"""The similarity of two frames: multi-scale, weighted by token importance, in both directions.

AdaFlow (arXiv 2502.05433), adaptive keyframe selection. Each scale pools the features first and normalises them
afterwards. Scales and directions combine by their minimum: a difference that one of them shows is enough. Both
directions are needed: an object that enters in b does not show from a to b, as every token of a still has its match.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from adaflow_core.model.memory import to_device
from adaflow_core.planning.matching import (
    PooledFeatures,
    coarsen,
    match_maps,
    pool_map,
    weighted_mean,
    window_minimum,
)
from adaflow_core.progress import Monitor
from adaflow_core.types import Features, Grid

Compare = Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]]


class FrameSimilarity:
    """Compares frames of one video by their features. Bands are kept, so that a moved slider is cheap."""

    def __init__(
        self,
        features: Features,
        importance: str,
        device: torch.device | str = "cpu",
        pooled: PooledFeatures | None = None,  # given where they are shared with `PropagationResidual`
    ) -> None:
        self.features, self.pooled = features, pooled or PooledFeatures(features, device)
        self.weights = features.importance[importance]  # [T, n]
        self.device, self.base = self.pooled.device, self.pooled.base
        self._bands: dict[tuple[int, int, int], np.ndarray] = {}

    def load(self, frame_ids: np.ndarray, scale: int) -> tuple[Tensor, Tensor, Grid]:
        """Return tokens [F, n, c] and weights [F, n] of the frames, pooled to the scale's grid, and that grid."""
        to = coarsen(self.base, scale)
        weights = to_device(self.weights[frame_ids], self.device)
        return self.pooled(to)(frame_ids), pool_map(weights, self.features.grid, to), to

    def compare(
        self, scales: tuple[int, ...], both_directions: bool, anchor: int, frame_ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the similarity of `anchor` to each of the frames: weighted mean [F] and worst window [F]."""
        means, windows = [], []
        for scale in scales:
            tokens, weights, grid = self.load(np.append(anchor, frame_ids), scale)
            there, back = match_maps(tokens[:1].expand(len(frame_ids), -1, -1), tokens[1:])
            for heat, weight in [(there, weights[:1]), (back, weights[1:])][: 1 + both_directions]:
                means.append(weighted_mean(heat, weight))
                windows.append(window_minimum(heat, grid))
        return _minimum(means), _minimum(windows)

    def heat(self, keyframe: int, frame_ids: np.ndarray) -> np.ndarray:
        """Return [F, n] float16: how similar each token's best match in the keyframe is, on the base grid."""
        tokens, _, _ = self.load(np.append(keyframe, frame_ids), 1)
        return match_maps(tokens[1:], tokens[:1].expand(len(frame_ids), -1, -1))[0].half().cpu().numpy()

    def adjacent(self, monitor: Monitor) -> np.ndarray:
        """Return [T], each frame's mean similarity to the one before: coarse grid, both directions; [0] is 1."""
        T = len(self.features.tokens)
        result = np.ones(T, dtype=np.float32)
        with monitor.stage("similarity", T - 1) as stage:
            for part in stage.chunks(T - 1, 64):
                tokens, weights, _ = self.load(np.arange(part.start, part.stop + 1), 2)
                there, back = match_maps(tokens[:-1], tokens[1:])
                both = torch.minimum(weighted_mean(there, weights[:-1]), weighted_mean(back, weights[1:]))
                result[part.start + 1 : part.stop + 1] = both.float().cpu().numpy()
        return result

    def band(
        self, scales: tuple[int, ...], both_directions: bool, stride: int, width: int, monitor: Monitor
    ) -> np.ndarray:
        """Return [N, width], the weighted mean similarity of sampled frames i and i + d; nan past the end.

        Every `stride`-th frame is sampled. Cost and size grow with N * width, never with N * N.
        """
        parts = [self._scale_band(scale, stride, width, monitor) for scale in scales]
        tables = [part if both_directions else part[:1] for part in parts]
        return np.concatenate(tables).min(axis=0)

    def _scale_band(self, scale: int, stride: int, width: int, monitor: Monitor) -> np.ndarray:
        """Return [2, N, width]: both directions at one scale."""
        for (known_scale, known_stride, known_width), table in self._bands.items():
            if (known_scale, known_stride) == (scale, stride) and known_width >= width:
                return table[:, :, :width]
        sampled = np.arange(0, len(self.features.tokens), stride)
        N = len(sampled)
        table = np.full((2, N, width), np.nan, dtype=np.float32)
        with monitor.stage("similarity", N) as stage:
            for start in range(0, N, width):
                # Two blocks of `width` hold every pair whose first frame lies in the first block.
                tokens, weights, _ = self.load(sampled[start : start + 2 * width], scale)
                rows = []
                for i in range(min(width, N - start)):
                    last = min(i + width, len(tokens))
                    there, back = match_maps(tokens[i : i + 1].expand(last - i, -1, -1), tokens[i:last])
                    both = weighted_mean(there, weights[i : i + 1]), weighted_mean(back, weights[i:last])
                    rows.append(torch.stack(both).float())
                    monitor.check()
                # Fetched together, as each transfer waits for the device.
                fetched = np.split(torch.cat(rows, dim=1).cpu().numpy(), np.cumsum([r.shape[1] for r in rows]), axis=1)
                for i, row in enumerate(fetched[:-1]):
                    table[:, start + i, : row.shape[1]] = row
                stage.advance(len(rows))
        self._bands[scale, stride, width] = table
        return table


def _minimum(rows: list[Tensor]) -> np.ndarray:
    return torch.stack(rows).amin(dim=0).float().cpu().numpy()
