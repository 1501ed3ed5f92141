"""From features to a choice of keyframes; what a moved slider does not change is remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from adaflow_core.config import PlanConfig
from adaflow_core.keyframes import (
    budget_choice,
    detect_cuts,
    even_segments,
    place_borders,
    refine_keyframes,
    representatives,
    threshold_starts,
)
from adaflow_core.layout import build_correspondence, build_slimming
from adaflow_core.progress import Monitor
from adaflow_core.propagation import PropagationResidual
from adaflow_core.similarity import Compare, FrameSimilarity
from adaflow_core.storage.cache import cache_key
from adaflow_core.types import Features, Grid, Layout, Segments


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


class _Chooser:
    """Chooses one video's segments; `notes` is what the user should know about the choice."""

    def __init__(
        self, config: PlanConfig, similarity: FrameSimilarity, residual: PropagationResidual, monitor: Monitor
    ) -> None:
        self.config, self.similarity, self.residual, self.monitor = config, similarity, residual, monitor
        self.frames, self.cuts = residual.length, residual.cuts
        self.compare: Compare = partial(similarity.compare, config.scales, config.both_directions)
        assert config.max_keyframes is not None
        self.limit = max(config.max_keyframes, len(self.cuts) + 1)
        self.notes: list[str] = []

    def segments(self) -> Segments:
        if self.config.method in ("joint", "per-frame"):
            return Segments(np.arange(self.frames), np.arange(self.frames), self.cuts, self.frames)
        if self.config.method in ("uniform", "tokenflow"):
            # TokenFlow's spacing (arXiv 2307.10373)
            return even_segments(self.frames, self._asked() or -(-self.frames // 8), self.cuts)
        return self._by_similarity() if self.config.refinement == "none" else self._by_residual()

    def _asked(self) -> int | None:
        """How many keyframes there are to be; None: as many as it takes."""
        count, shots = self.config.keyframes, len(self.cuts) + 1
        if count is None:
            return None
        if count > self.frames:
            self.notes.append(f"{count} keyframes were asked for; the video has {self.frames} frames")
        elif count < shots:
            self.notes.append(f"{count} keyframes were asked for; {shots} shots need one each")
        return max(shots, min(count, self.frames))

    def _by_similarity(self) -> Segments:
        """The paper's walk, or the best segments of a given number."""
        count = self._asked()
        if count is None:
            starts = self._walk()
            count = self._allowed(len(starts))
            if count == len(starts):
                return Segments(starts, representatives(self.compare, starts, self.frames), self.cuts, self.frames)
        return budget_choice(
            self.similarity,
            self.config.scales,
            self.config.both_directions,
            self.cuts,
            count=count,
            max_segment=self.config.max_segment,
            monitor=self.monitor,
        )

    def _by_residual(self) -> Segments:
        """Keyframes from which propagation goes wrong least; without a number, as many as the walk finds or more."""
        assert self.config.residual is not None
        count = most = self._asked()
        if count is None or most is None:
            count = self._allowed(len(self._walk()))
            most = self.limit if self.config.refinement == "split" else count
        keyframes = refine_keyframes(self.residual, count, most, self.config.residual, self.monitor)
        K = len(keyframes)
        if 2 < K < self.frames and np.array_equal(keyframes, even_segments(self.frames, K, self.cuts).keyframes):
            self.notes.append("the video changes evenly, so that its keyframes lie at even distances")
        starts = place_borders(self.compare, keyframes, self.cuts, self.frames)
        return Segments(starts, keyframes, self.cuts, self.frames)

    def _walk(self) -> np.ndarray:
        assert self.config.similarity is not None and self.config.window_similarity is not None
        return threshold_starts(
            self.compare,
            self.frames,
            self.cuts,
            mean=self.config.similarity,
            window=self.config.window_similarity,
            max_segment=self.config.max_segment,
        )

    def _allowed(self, wanted: int) -> int:
        if wanted > self.limit:
            self.notes.append(f"the thresholds ask for {wanted} keyframes; {self.limit} were allowed")
        return min(wanted, self.limit)


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
