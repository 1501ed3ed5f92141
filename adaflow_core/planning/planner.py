"""From features to a choice of keyframes; what a moved slider does not change is remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from adaflow_core.config import PlanConfig
from adaflow_core.planning.correspondence import build_correspondence
from adaflow_core.planning.keyframes import (
    _Chooser,
    detect_cuts,
)
from adaflow_core.planning.residual import PropagationResidual
from adaflow_core.planning.similarity import FrameSimilarity
from adaflow_core.planning.slimming import build_slimming
from adaflow_core.progress import Monitor
from adaflow_core.storage.cache import cache_key
from adaflow_core.types import EditLayout, Features, Grid, Segments


@dataclass(frozen=True)
class Choice:
    """The chosen keyframes with the curves that a person judges them by; shapes as in `Plan`."""

    segments: Segments
    adjacent: np.ndarray
    similarity: np.ndarray
    window: np.ndarray
    heat: np.ndarray
    heat_grid: Grid
    residual: np.ndarray
    notes: tuple[str, ...]


class Planner:
    """Chooses keyframes and lays out what the edit needs. `key` names the features by their content."""

    def __init__(self, device: torch.device, cut: float) -> None:
        self.device, self.cut = device, cut
        self._last: dict[str, tuple[str, Any]] = {}

    def choose(self, features: Features, latents: np.ndarray, key: str, config: PlanConfig, monitor: Monitor) -> Choice:
        weighted = cache_key(features=key, importance=config.importance)
        similarity = self._remember(
            "similarity", weighted, lambda: FrameSimilarity(features, config.importance, self.device)
        )
        adjacent = self._remember("adjacent", weighted, lambda: similarity.adjacent(monitor))
        cuts = detect_cuts(adjacent, self.cut)
        if config.method == "tokenflow":
            cuts = cuts[:0]  # it knows of none
        residual = self._remember(
            "residual",
            cache_key(features=key, cuts=cuts.tolist()),
            lambda: PropagationResidual(features, latents, cuts, self.device),
        )
        chosen = _segments_key(key, config)
        return self._remember("choice", chosen, lambda: self._choose(similarity, residual, adjacent, config, monitor))

    def layout(
        self,
        features: Features,
        key: str,
        choice: Choice,
        grids: list[Grid],
        config: PlanConfig,
        monitor: Monitor,
    ) -> EditLayout:
        segments, device = choice.segments, self.device
        correspondence = self._remember(
            "correspondence",
            cache_key(segments=_segments_key(key, config), grids=grids),
            lambda: build_correspondence(features, segments, grids, config, device=device, monitor=monitor),
        )
        slimming = build_slimming(features, segments.keyframes, grids, config, device=device)
        return EditLayout(segments.keyframes, slimming, correspondence)

    def _remember(self, name: str, key: str, build: Callable[[], Any]) -> Any:
        """The last value of that name if it was built under the same key, else a new one."""
        if name not in self._last or self._last[name][0] != key:
            self._last[name] = (key, build())
        return self._last[name][1]

    def _choose(
        self,
        similarity: FrameSimilarity,
        residual: PropagationResidual,
        adjacent: np.ndarray,
        config: PlanConfig,
        monitor: Monitor,
    ) -> Choice:
        chooser = _Chooser(config, similarity, residual, monitor)
        segments = chooser.segments()
        values = residual(segments.keyframes, np.arange(residual.length))
        means, windows, heat = _curves(similarity, config, segments, monitor)
        similarity.release()
        residual.release()
        return Choice(segments, adjacent, means, windows, heat, similarity.base, values, tuple(chooser.notes))


def _segments_key(key: str, config: PlanConfig) -> str:
    # Neither the kept tokens nor the drawing of keyframes shape the segments.
    return cache_key(features=key, **asdict(replace(config, prune=None, kv_frames=None, resample=False)))


def _curves(
    similarity: FrameSimilarity, config: PlanConfig, segments: Segments, monitor: Monitor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every frame against its keyframe: mean [T], worst window [T], heat map [T, n] on the similarity grid."""
    means, windows, heat = [], [], []
    with monitor.stage("similarity", len(segments)) as stage:
        for start, end, keyframe in zip(segments.starts, segments.ends, segments.keyframes, strict=True):
            frames = np.arange(start, end)
            for part in np.array_split(frames, -(-len(frames) // 32)):
                mean, window = similarity.compare(config.scales, config.both_directions, int(keyframe), part)
                means.append(mean)
                windows.append(window)
                heat.append(similarity.heat(int(keyframe), part))
            stage.advance()
    return np.concatenate(means), np.concatenate(windows), np.concatenate(heat)


def build_layout(
    features: Features,
    segments: Segments,
    grids: list[Grid],
    config: PlanConfig,
    *,
    device: torch.device | str,
    monitor: Monitor,
) -> EditLayout:
    slimming = build_slimming(features, segments.keyframes, grids, config, device=device)
    monitor.check()
    correspondence = build_correspondence(features, segments, grids, config, device=device, monitor=monitor)
    return EditLayout(segments.keyframes, slimming, correspondence)


def draw_keyframes(segments: Segments, seed: int, step: int) -> Segments:
    """A keyframe of each segment drawn anew, the same for the same seed and step."""
    draw = np.random.default_rng([seed, step]).random(len(segments))
    return replace(segments, keyframes=segments.starts + (draw * segments.lengths).astype(np.int64))
