"""From a choice of keyframes to what the edit needs: kept tokens and correspondences on every grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from adaflow_core.config import PlanConfig
from adaflow_core.correspondence import correspond, leave_to_layers
from adaflow_core.matching import pool_map, pool_tokens, similarity_grid
from adaflow_core.progress import Monitor
from adaflow_core.slimming import kept_count, select_tokens, token_scores
from adaflow_core.types import Correspondence, Features, Grid, Layout, Segments, Slimming


def slim(
    features: Features,
    keyframes: np.ndarray,
    grids: list[Grid],
    *,
    importance: str,
    prune: float | None,
    kv_frames: float | None,
    sampled: float,
    device: torch.device | str,
) -> dict[Grid, Slimming]:
    """The kept tokens of every keyframe, by grid. Grids finer than the similarity grid take its scores."""
    K = len(keyframes)
    tokens = torch.from_numpy(features.tokens[keyframes]).to(device).float()
    weights = torch.from_numpy(features.importance[importance][keyframes]).to(device)
    result = {}
    for grid in grids:
        scored = similarity_grid(grid)
        scores = token_scores(
            pool_tokens(tokens, features.grid, scored),
            pool_map(weights, features.grid, scored),
        )
        scores = pool_map(scores, scored, grid)
        kept = select_tokens(scores, kept_count(K, grid.n, prune=prune, kv_frames=kv_frames), sampled)
        indices = kept.tokens.int().cpu().numpy()
        result[grid] = Slimming(grid, scores.half().cpu().numpy(), indices, kept.sampled, kept.mass)
    return result


def build_slimming(
    features: Features, keyframes: np.ndarray, grids: list[Grid], config: PlanConfig, *, device: torch.device | str
) -> dict[Grid, Slimming] | None:
    """The kept tokens as the method has them: pruned, all, or (None) a keyframe's own."""
    if config.method == "per-frame":
        return None
    pruned = config.method == "adaflow"
    return slim(
        features,
        keyframes,
        grids,
        importance=config.importance,
        prune=config.prune if pruned else 0.0,
        kv_frames=config.kv_frames if pruned else None,
        sampled=config.sampled,
        device=device,
    )


def build_correspondence(
    features: Features,
    segments: Segments,
    grids: list[Grid],
    config: PlanConfig,
    *,
    device: torch.device | str,
    monitor: Monitor,
) -> Correspondence:
    """The correspondence as the method has it."""
    if config.method == "tokenflow":
        return leave_to_layers(segments, grids)
    return correspond(features, segments, grids, blend=config.blend, device=device, monitor=monitor)


def build_layout(
    features: Features,
    segments: Segments,
    grids: list[Grid],
    config: PlanConfig,
    *,
    device: torch.device | str,
    monitor: Monitor,
) -> Layout:
    slimming = build_slimming(features, segments.keyframes, grids, config, device=device)
    monitor.check()
    correspondence = build_correspondence(features, segments, grids, config, device=device, monitor=monitor)
    return Layout(segments.keyframes, slimming, correspondence)


def draw_keyframes(segments: Segments, seed: int, step: int) -> Segments:
    """A keyframe of each segment drawn anew, the same for the same seed and step."""
    draw = np.random.default_rng([seed, step]).random(len(segments))
    return replace(segments, keyframes=segments.starts + (draw * segments.lengths).astype(np.int64))
