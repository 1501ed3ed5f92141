"""The planner: chooses keyframes and lays out the edit from features, reusing what a moved slider does not change."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from adaflow_core.config import METHODS, PlanConfig
from adaflow_core.planning.correspondence import Rows, build_correspondence, index_type
from adaflow_core.planning.keyframes import PART, KeyframeSelector
from adaflow_core.planning.matching import PooledFeatures, PooledRows
from adaflow_core.planning.residual import PropagationResidual
from adaflow_core.planning.similarity import FrameSimilarity
from adaflow_core.planning.slimming import build_slimming, kept_by, kept_count
from adaflow_core.progress import Monitor
from adaflow_core.storage.cache import cache_key
from adaflow_core.team.team import ALONE, Team
from adaflow_core.types import Correspondence, EditLayout, Features, Grid, KeyframeChoice, Segments, Slimming


class Planner:
    """Chooses keyframes and lays out what the edit needs.

    `key` identifies the features by their content. The last of each intermediate result is kept, and reused while its
    inputs stay the same.
    """

    def __init__(self, device: torch.device, team: Team = ALONE) -> None:
        self.device, self.team = device, team
        self._last: dict[str, tuple[str, Any]] = {}

    def choose(
        self,
        features: Features,
        latents: np.ndarray,
        cuts: np.ndarray,  # [C] frames that begin a new shot
        key: str,
        config: PlanConfig,
        monitor: Monitor,
    ) -> KeyframeChoice:
        pooled = self._remember("pooled", key, lambda: PooledFeatures(features, self.device))
        weighted = cache_key(features=key, importance=config.importance)
        cuts = cuts if METHODS[config.method].finds_cuts else cuts[:0]
        with ExitStack() as last:  # also after a stop or failure: an edit needs the memory
            last.callback(pooled.release)
            # `pooled` is in their keys: after a failed choice they may hold an older one, which nothing would release.
            similarity = self._remember(
                "similarity",
                cache_key(weighted=weighted, pooled=id(pooled)),
                lambda: FrameSimilarity(features, config.importance, self.device, pooled),
            )
            residual = self._remember(
                "residual",
                cache_key(features=key, cuts=cuts.tolist(), pooled=id(pooled)),
                lambda: PropagationResidual(features, latents, cuts, self.device, pooled),
            )
            last.callback(residual.release)
            adjacent = self._remember("adjacent", weighted, lambda: similarity.adjacent(monitor))
            return self._remember(
                "choice",
                _segments_key(key, config),
                lambda: _choose(KeyframeSelector(config, similarity, residual, monitor), adjacent),
            )

    def layout(
        self,
        features: Features,
        key: str,
        choice: KeyframeChoice,
        grids: list[Grid],
        config: PlanConfig,
        monitor: Monitor,
    ) -> EditLayout:
        common = (features, choice.segments, grids, config, self.device, monitor)
        correspondence = self._remember(
            "correspondence",
            cache_key(segments=_segments_key(key, config), grids=grids),
            lambda: build_correspondence(*common, self.team),
        )
        return build_layout(*common, correspondence=correspondence)

    def _remember(self, name: str, key: str, build: Callable[[], Any]) -> Any:
        """Return the last value of `name` if it was built under the same `key`, else build it."""
        if name not in self._last or self._last[name][0] != key:
            self._last[name] = (key, build())
        return self._last[name][1]


def _segments_key(key: str, config: PlanConfig) -> str:
    # Segments do not depend on pruning or resampling. A source prompt that matters is in the features' key already.
    others = replace(config, prune=None, kv_frames=None, sampled=PlanConfig.sampled, resample=False, source_prompt="")
    return cache_key(features=key, **asdict(others))


def _choose(selector: KeyframeSelector, adjacent: np.ndarray) -> KeyframeChoice:
    """Select the keyframes, and compare every frame with the keyframe of its segment."""
    similarity, residual = selector.similarity, selector.residual
    segments = selector.select()
    values = residual(segments.keyframes, np.arange(residual.T), selector.monitor)
    means, windows, heat = [], [], []
    with selector.monitor.stage("similarity", segments.T) as stage:
        for start, end, keyframe in zip(segments.starts, segments.ends, segments.keyframes.tolist(), strict=True):
            for part in np.array_split(np.arange(start, end), -(-(end - start) // PART)):
                mean, window = selector.compare(keyframe, part)
                means.append(mean)
                windows.append(window)
                heat.append(similarity.heat(keyframe, part))
                stage.advance(len(part))
    return KeyframeChoice(
        segments=segments,
        adjacent=adjacent,
        similarity=np.concatenate(means),
        window=np.concatenate(windows),
        heat=np.concatenate(heat),
        heat_grid=similarity.base,
        residual=values,
        notes=tuple(selector.notes),
    )


def build_layout(
    features: Features,
    segments: Segments,
    grids: list[Grid],
    config: PlanConfig,
    device: torch.device | str,
    monitor: Monitor,
    team: Team = ALONE,
    correspondence: Correspondence | None = None,
    rows: Rows | None = None,
) -> EditLayout:
    """Build what the edit needs to know about a choice of keyframes: kept tokens and correspondence.

    A `correspondence` that is given is used as it is. For `rows` see `correspond`.
    """
    slimming = build_slimming(features, segments.keyframes, grids, config, device=device, monitor=monitor)
    monitor.check()
    if correspondence is None:
        correspondence = build_correspondence(features, segments, grids, config, device, monitor, team, rows)
    return EditLayout(segments.keyframes, slimming, correspondence)


def counted_layout(features: Features, segments: Segments, grids: list[Grid], config: PlanConfig) -> EditLayout:
    """Return zeros in the shapes of `build_layout`'s result, for a forecast: they take no time and no memory."""
    K, method = len(segments), METHODS[config.method]
    prune, kv_frames = kept_by(config)
    slimming = {}
    for grid in grids:
        kept = np.broadcast_to(np.int32(0), (K, kept_count(K, grid.n, prune=prune, kv_frames=kv_frames)))
        slimming[grid] = Slimming(grid, np.broadcast_to(np.float16(0), (K, K, grid.n)), kept, 0, 1.0)
    by_layer = method.matched_by_layer  # as `leave_to_layers` makes it
    shape = segments.T, 2 if config.blend or by_layer else 1
    correspondence = Correspondence(
        np.broadcast_to(np.int64(0), shape),
        {grid: np.broadcast_to(np.float16(0), (*shape, 1 if by_layer else grid.n)) for grid in grids},
        {grid: np.broadcast_to(index_type(grid)(0), (*shape, 0 if by_layer else grid.n)) for grid in grids},
    )
    return EditLayout(segments.keyframes, slimming if method.joint else None, correspondence)


def draw_keyframes(segments: Segments, seed: int, step: int) -> Segments:
    """Draw a random keyframe in each segment, the same for the same seed and step."""
    draw = np.random.default_rng([seed, step]).random(len(segments))
    return replace(segments, keyframes=segments.starts + (draw * segments.lengths).astype(np.int64))


def drawn_layouts(
    features: Features,
    segments: Segments,
    grids: list[Grid],
    config: PlanConfig,
    seed: int,
    device: torch.device,
    monitor: Monitor,
    low_memory: bool = False,
) -> Callable[[int], EditLayout]:
    """Return a function from a step to its layout, with keyframes drawn anew, for a plan with `resample`.

    If tokens are matched here and not in each layer, the features stay on the device between steps, unless
    `low_memory`.
    """
    read = low_memory or METHODS[config.method].matched_by_layer
    rows = None if read else PooledRows(features.tokens, features.grid, features.grid, device)

    def layout(step: int) -> EditLayout:
        drawn = draw_keyframes(segments, seed, step)
        return build_layout(features, drawn, grids, config, device=device, monitor=monitor.quiet(), rows=rows)

    return layout
