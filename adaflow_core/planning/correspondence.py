"""Correspondences: from which keyframe tokens each frame takes its self-attention outputs, and with what weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from adaflow_core.config import METHODS, PlanConfig
from adaflow_core.model.memory import to_device
from adaflow_core.planning.matching import best_match, pool_tokens
from adaflow_core.progress import Monitor
from adaflow_core.team.team import ALONE, Team
from adaflow_core.types import Correspondence, Features, Grid, Segments

# A match weighs e times as much as another whose cosine similarity is lower by this.
CONFIDENCE_SCALE = 0.1
Rows = Callable[[np.ndarray], Tensor]
"""Frame ids [F] -> their features on the device [F, n, c]."""


def neighbours(keyframes: np.ndarray, frame_ids: np.ndarray, cuts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the keyframe slots before and after each frame, and their weights by temporal distance: [F, 2] each.

    Keyframes of another shot are never used: if one side has no keyframe in the frame's shot, the other gets all the
    weight.
    """
    last = len(keyframes) - 1
    after = np.searchsorted(keyframes, frame_ids)  # first keyframe at or after the frame
    before = np.clip(after - 1, 0, last)
    after = np.clip(after, 0, last)
    shot = np.searchsorted(cuts, frame_ids, side="right")
    shots = np.searchsorted(cuts, keyframes, side="right")
    has_before = (shots[before] == shot) & (keyframes[before] <= frame_ids)
    has_after = (shots[after] == shot) & (keyframes[after] >= frame_ids)
    slots = np.stack([np.where(has_before, before, after), np.where(has_after, after, before)], axis=1)
    distance = np.abs(keyframes[slots] - frame_ids[:, None]).astype(np.float64)
    span = distance.sum(axis=1, keepdims=True)
    weights = np.where(span > 0, distance[:, ::-1] / np.where(span > 0, span, 1), 0.5)
    # A frame with only one keyframe has it in both slots; all the weight goes to the first.
    weights[slots[:, 0] == slots[:, 1]] = (1.0, 0.0)
    return slots, weights


def blend_weights(
    temporal: Tensor,  # [F, P]
    confidence: Tensor,  # [F, P, n] similarity of the best match
) -> Tensor:
    """Return blend weights [F, P, n]: temporal weight times match confidence, normalised to sum to 1 over P."""
    logits = confidence.float() / CONFIDENCE_SCALE
    weights = temporal[:, :, None].float() * torch.exp(logits - logits.amax(dim=1, keepdim=True))
    return weights / weights.sum(dim=1, keepdim=True)


def match_to_keyframes(
    frame_tokens: Tensor,  # [F, n, c]
    key_tokens: Tensor,  # [K, n, c]
    slots: np.ndarray,  # [F, P]
    temporal: np.ndarray,  # [F, P]
) -> tuple[Tensor, Tensor]:
    """Return the best-matching keyframe token of each token [F, P, n] int64, and the blend weights [F, P, n]."""
    device = key_tokens.device
    matches = [best_match(frame_tokens, key_tokens[to_device(slot, device)]) for slot in slots.T]
    confidence, index = (torch.stack(parts, dim=1) for parts in zip(*matches, strict=True))
    return index, blend_weights(to_device(temporal, device), confidence)


def correspond(
    features: Features,
    segments: Segments,
    grids: list[Grid],
    *,
    blend: bool,
    device: torch.device | str,
    monitor: Monitor,
    chunk: int | None = None,
    team: Team = ALONE,
    rows: Rows | None = None,
) -> Correspondence:
    """Match the tokens of every frame to keyframe tokens, on every grid of the UNet's self-attention.

    With `blend` a frame takes from the keyframes before and after it, otherwise from its segment's keyframe only. Each
    process of the `team` matches some of the frames. `rows` gives features that stay on the device for several layouts;
    by default they are read from `features`.
    """
    T = segments.T
    if blend:
        slots, temporal = neighbours(segments.keyframes, np.arange(T), segments.cuts)
    else:
        slots, temporal = segments.segment_of()[:, None], np.ones((T, 1))
    P = slots.shape[1]
    index = {g: team.scratch(index_type(g), (T, P, g.n)) for g in grids}
    weights = {g: team.scratch(np.float16, (T, P, g.n)) for g in grids}

    device = torch.device(device)
    on_gpu = device.type == "cuda"
    dtype = torch.float16 if on_gpu else torch.float32
    own = range(T)[team.own(T)]
    with monitor.stage("match", len(own)) as stage:
        for done in stage.chunks(len(own), chunk or (32 if on_gpu else 8)):
            part = slice(own.start + done.start, own.start + done.stop)
            # Neighbouring frames share a few slots: only their keyframes are loaded.
            used, local = np.unique(slots[part], return_inverse=True)
            local = local.reshape(-1, P)
            frame_ids = np.append(np.arange(part.start, part.stop), segments.keyframes[used])
            raw = to_device(features.tokens[frame_ids], device).to(dtype) if rows is None else rows(frame_ids)
            found = {}
            for grid in grids:
                tokens, keys = pool_tokens(raw, features.grid, grid).split([len(local), len(used)])
                found[grid] = match_to_keyframes(tokens, keys, local, temporal[part])
            for grid, (matched, weight) in found.items():
                # Narrowed on the device, so that fewer bytes are fetched.
                index[grid][part] = matched.to(torch.int16 if index[grid].dtype == np.int16 else torch.int32).cpu()
                weights[grid][part] = weight.half().cpu()
    team.wait()
    return Correspondence(slots, weights, index)


def index_type(grid: Grid) -> type[np.int16] | type[np.int32]:
    """Return the smallest integer type for a grid's `Correspondence.index`."""
    return np.int16 if grid.n < 2**15 else np.int32


def leave_to_layers(segments: Segments, grids: list[Grid]) -> Correspondence:
    """Return TokenFlow's correspondence (arXiv 2307.10373): keyframes around each frame, no tokens matched yet.

    TokenFlow's weight is a sigmoid of the relative distance, so the keyframe before a frame never weighs less than the
    one after it.
    """
    slots, temporal = neighbours(segments.keyframes, np.arange(segments.T), segments.cuts)
    before = np.where(slots[:, 0] == slots[:, 1], 1.0, 1 / (1 + np.exp(-temporal[:, 0])))
    weights = np.stack([before, 1 - before], axis=1)[:, :, None].astype(np.float16)
    nothing = {g: np.empty((*slots.shape, 0), index_type(g)) for g in grids}
    return Correspondence(slots, {g: weights for g in grids}, nothing)


def build_correspondence(
    features: Features,
    segments: Segments,
    grids: list[Grid],
    config: PlanConfig,
    device: torch.device | str,
    monitor: Monitor,
    team: Team = ALONE,
    rows: Rows | None = None,
) -> Correspondence:
    """Match tokens as `config.method` does: here, or later in each layer."""
    if METHODS[config.method].matched_by_layer:
        return leave_to_layers(segments, grids)
    return correspond(
        features, segments, grids, blend=config.blend, device=device, monitor=monitor, team=team, rows=rows
    )
