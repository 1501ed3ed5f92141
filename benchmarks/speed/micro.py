"""Times the keyframe pass alone, and the attention that makes it heavy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from adaflow_core.config import EditConfig, PlanConfig, resolve_edit, resolve_plan
from adaflow_core.editing.attention import extended_attention
from adaflow_core.editing.editor import Editor
from adaflow_core.editing.forecasting.calibration import attention_widths
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.ddim import edit_timesteps
from adaflow_core.planning.correspondence import correspond
from adaflow_core.planning.slimming import Kept, build_slimming, kept_count, select_tokens
from adaflow_core.progress import Monitor
from adaflow_core.types import EditLayout, Features, Inversion, Segments
from benchmarks.speed.clock import GIB, Clock, seconds
from benchmarks.speed.work import count_passes, extended_attention_work


@torch.inference_mode()
def keyframe_attention(
    backbone: Backbone,
    width: int,
    height: int,
    counts: tuple[int, ...] = (12, 24, 48, 96),
    prunes: tuple[float, ...] = (0.0, 0.4, 0.6, 0.8, 0.9),
) -> Iterator[dict[str, Any]]:
    """One layer on the finest grid, one branch: seconds by K and pruning ratio, beside SDPA without slimming.

    Unslimmed SDPA sees the keyframes' tokens as one sequence of K*n. Two ways to keep: the best only, and with the
    even sample whose tokens count for several.
    """
    device, dtype = backbone.device, backbone.dtype
    grids = backbone.grids(width, height)
    grid = grids[0]
    channels = attention_widths(backbone, grids)[0][grid]
    heads = backbone.unet.config.attention_head_dim  # diffusers' name for how many there are
    H = heads if isinstance(heads, int) else heads[0]
    d = channels // H
    for K in counts:
        query, key, value = (torch.randn(K, H, grid.n, d, device=device, dtype=dtype) for _ in range(3))
        q, k, v = (x.transpose(0, 1).reshape(1, H, K * grid.n, d) for x in (query, key, value))
        unslimmed = seconds(partial(backbone.attend, q, k, v, d**-0.5), device)
        flop = 4 * K * grid.n * channels  # for each token that is attended to
        tflops = flop * K * grid.n / unslimmed / 1e12
        yield {"keyframes": K, "kept": "SDPA, unslimmed", "seconds": unslimmed, "tflops": tflops}
        del q, k, v
        generator = torch.Generator().manual_seed(0)
        for prune in prunes:
            M = kept_count(K, grid.n, prune=prune)
            for sampled in (0.0, 0.9):
                kept = _draw_kept(K, grid.n, M, sampled, generator, device)
                work = partial(
                    extended_attention, query, key, value, K, kept.tokens.to(device), backbone.attend, d**-0.5,
                    num_sampled=kept.num_sampled, sample_weight=kept.sample_weight,
                )  # fmt: skip
                spent = seconds(work, device)
                yield {
                    "keyframes": K,
                    "kept": M / (K * grid.n),
                    "sampled": sampled,
                    "seconds": spent,
                    "tflops": flop * M / spent / 1e12,
                    "of_unslimmed": spent / unslimmed,
                }
            if grid.n == M:
                break


def _draw_kept(K: int, n: int, count: int, sampled: float, generator: torch.Generator, device: torch.device) -> Kept:
    """`count` tokens of K keyframes of n by random scores, a share of them sampled evenly."""
    return select_tokens(torch.rand(K, K, n, generator=generator).to(device), count, sampled)


def keyframe_pass(
    backbone: Backbone, width: int, height: int, keyframes: int = 96, kv_frames: float = 20.0
) -> Iterator[dict[str, Any]]:
    """One step's pass over all keyframes of an edit with guidance and full injection, by kind of kept tokens."""
    passes = count_passes(backbone, width, height)
    for sampled, low_memory in ((0.0, False), (0.9, False), (0.9, True)):
        plan = resolve_plan(PlanConfig(kv_frames=kv_frames, sampled=sampled), backbone.profile, backbone.device.type)
        edit = EditConfig(
            steps=3, guidance=7.5, guided_from=0.0, guided=1.0, injection_attention=1.0, injection_conv=1.0,
            chunk=backbone.chunk_for(width, height, low_memory), detail=0.0, low_memory=low_memory,
        )  # fmt: skip
        layout = _layout(backbone, width, height, keyframes, plan)
        spent, gpu = _edit(backbone, width, height, layout, edit)
        assert layout.slimming is not None
        extended = extended_attention_work(backbone, {g: s.kept.shape[1] for g, s in layout.slimming.items()})
        needed = keyframes * (3 * passes.whole + 2 * extended)
        yield {
            "keyframes": keyframes,
            "kv_frames": kv_frames,
            "sampled": sampled,
            "low_memory": low_memory,
            "seconds": spent,
            "gpu_gib": gpu / GIB,
            "needed_tflop": needed / 1e12,
            "tflops": needed / spent / 1e12,
        }


def _layout(backbone: Backbone, width: int, height: int, K: int, config: PlanConfig) -> EditLayout:
    """Return a layout of K keyframes of random features and one other frame, so that outputs are kept as in an edit."""
    grids = backbone.grids(width, height)
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(K + 1, grids[0].n, 64))
    tokens /= np.linalg.norm(tokens, axis=-1, keepdims=True)
    even = np.ones((K + 1, grids[0].n), np.float32)
    features = Features(tokens.astype(np.float16), grids[0], {config.importance: even}, 1.0)
    frames = np.arange(K)
    segments = Segments(frames, frames, np.empty(0, np.int64), K + 1)
    slimming = build_slimming(features, frames, grids, config, device=backbone.device, monitor=Monitor())
    correspondence = correspond(
        features, segments, grids, blend=config.blend, device=backbone.device, monitor=Monitor()
    )
    return EditLayout(frames, slimming, correspondence)


def _edit(backbone: Backbone, width: int, height: int, layout: EditLayout, config: EditConfig) -> tuple[float, int]:
    """Return the seconds and peak bytes of the keyframe pass in the last of three steps."""
    K = len(layout.keyframes)
    shape = (K + 1, 4, height // backbone.factor, width // backbone.factor)
    clean = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert config.steps
    timesteps = edit_timesteps(backbone.schedule, config.steps)
    inversion = Inversion(timesteps, np.broadcast_to(clean, (config.steps, *shape)), "")
    clock = Clock(backbone.device)
    clock.keyframes, clock.frames = K, K + 1
    before = 0.0

    def layouts(_step: int) -> EditLayout:
        nonlocal before
        before = clock.stages["keyframes"].seconds if "keyframes" in clock.stages else 0.0
        return layout

    empty, prompt = backbone.embed(""), backbone.embed("another film")
    resolved = resolve_edit(config, backbone.profile, PlanConfig())
    with clock:
        Editor(backbone, empty, empty, prompt, resolved, Monitor(clock.report)).run(inversion, clean, layouts)
    spent = clock.stages["keyframes"]
    return spent.seconds - before, spent.gpu_bytes
