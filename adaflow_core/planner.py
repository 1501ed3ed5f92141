"""From features to a choice of keyframes; what a moved slider does not change is remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from adaflow_core.cache import cache_key
from adaflow_core.config import PlanConfig
from adaflow_core.keyframes import choose_segments, detect_cuts, even_segments, place_borders, refine_keyframes
from adaflow_core.layout import build_correspondence, build_slimming
from adaflow_core.propagation import PropagationResidual
from adaflow_core.similarity import FrameSimilarity
from adaflow_core.types import Features, Grid, Layout, Monitor, Segments


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
    ) -> Layout:
        segments, device = choice.segments, self.device
        correspondence = self._remember(
            "correspondence",
            cache_key(segments=_segments_key(key, config), grids=grids),
            lambda: build_correspondence(features, segments, grids, config, device=device, monitor=monitor),
        )
        slimming = build_slimming(features, segments.keyframes, grids, config, device=device)
        return Layout(segments.keyframes, slimming, correspondence)

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
        segments, values, notes = _segments(config, similarity, residual, monitor)
        means, windows, heat = _curves(similarity, config, segments, monitor)
        similarity.release()
        residual.release()
        return Choice(segments, adjacent, means, windows, heat, similarity.base, values, notes)


def _segments_key(key: str, config: PlanConfig) -> str:
    # Neither the kept tokens nor the drawing of keyframes shape the segments.
    return cache_key(features=key, **asdict(replace(config, prune=None, kv_frames=None, resample=False)))


def _segments(
    config: PlanConfig,
    similarity: FrameSimilarity,
    residual: PropagationResidual,
    monitor: Monitor,
) -> tuple[Segments, np.ndarray, tuple[str, ...]]:
    """The segments, every frame's residual, and what the user should know about the choice."""
    T, cuts = len(similarity.features.tokens), residual.cuts
    everything = np.arange(T)
    if config.method in ("joint", "per-frame"):
        return Segments(everything, everything, cuts, T), np.zeros(T, np.float32), ()
    notes: list[str] = []
    count = config.keyframes
    even = config.method in ("uniform", "tokenflow")
    if even and count is None:
        count = -(-T // 8)  # TokenFlow's spacing (arXiv 2307.10373)
    if count is not None:
        shots = len(cuts) + 1
        if count > T:
            notes.append(f"{count} keyframes were asked for; the video has {T} frames")
        elif count < shots:
            notes.append(f"{count} keyframes were asked for; {shots} shots need one each")
        count = max(shots, min(count, T))
    if even:
        segments = even_segments(T, count or 1, cuts)
        return segments, residual(segments.keyframes, everything), tuple(notes)
    assert config.similarity is not None and config.window_similarity is not None
    choose = partial(
        choose_segments,
        similarity,
        config.scales,
        config.both_directions,
        cuts,
        mean=config.similarity,
        window=config.window_similarity,
        max_segment=config.max_segment,
        monitor=monitor,
    )
    assert config.max_keyframes is not None and config.residual is not None
    limit, asked = max(config.max_keyframes, len(cuts) + 1), count
    if count is None:
        segments = choose(count=None)
        count = min(len(segments), limit)
        if len(segments) > limit:
            notes.append(f"the thresholds ask for {len(segments)} keyframes; {limit} were allowed")
    if config.refinement == "none":
        if asked is not None or len(segments) > limit:
            segments = choose(count=count)
    else:
        most = limit if asked is None and config.refinement == "split" else count
        keyframes = refine_keyframes(residual, count, most, config.residual, monitor)
        if 2 < len(keyframes) < T and np.array_equal(keyframes, even_segments(T, len(keyframes), cuts).keyframes):
            notes.append("the video changes evenly, so that its keyframes lie at even distances")
        compare = partial(similarity.compare, config.scales, config.both_directions)
        segments = Segments(place_borders(compare, keyframes, cuts, T), keyframes, cuts, T)
    return segments, residual(segments.keyframes, everything), tuple(notes)


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
