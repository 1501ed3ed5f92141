"""Short measurements of the pieces that an edit is made of: this device, this model, this size of frame."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaflow_core.editing.attention import (
    EditState,
    KeyframePass,
    PropagationPass,
    editing_attention,
    extended_attention,
)
from adaflow_core.editing.finish.preservation import restore_detail
from adaflow_core.editing.finish.smoothing import BLOCK, smooth_edit
from adaflow_core.editing.injection import injected_conv
from adaflow_core.model.attention import Halt, forward_hook
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.memory import cut_feed_forwards, in_chunks
from adaflow_core.motion.carrying import BLOCKS, carry_between, frames_to_edit
from adaflow_core.motion.flow import flow_between
from adaflow_core.progress import THREADS, Monitor
from adaflow_core.types import Grid


@dataclass(frozen=True)
class Calibration:
    """Seconds and bytes of the pieces that an edit is made of."""

    unet: float  # seconds per row of a pass; an edit has a row for each frame and prompt
    until_conv: float  # per row, the pass up to the injected convolution
    propagated: float  # per row of a pass whose self-attention comes from the keyframes
    decode: float  # per frame
    encode: float  # per frame
    follow: float  # per frame, the source's motion followed
    smooth: float  # per frame, flicker smoothed away along it
    carry: float  # per frame that is not edited: compared with what is carried to it, and made of that
    restore: float  # per frame, showing the source where nothing changed
    extended: float  # per query token, kept token and channel of extended attention
    row_bytes: int  # memory of one row more in a pass, without its feed-forward
    gate_bytes: int  # and of one row more in a feed-forward
    decode_bytes: int  # of one frame more in a call of the decoder


def calibrate(backbone: Backbone, width: int, height: int) -> Calibration:
    """Times each piece on random input; takes about two seconds for the embedded model on two cores, or for a large one
    on a GPU.

    On a GPU batches are as large as in an edit, since small ones are half as fast. If memory does not suffice they are
    halved, as those of the edit will be.
    """
    found: list[Calibration] = []

    def measure(part: slice) -> None:
        if not found:
            found.append(_measured(backbone, width, height, part.stop))

    rows = backbone.chunk if backbone.device.type == "cuda" else min(4, backbone.chunk)
    in_chunks(rows, rows, measure)
    return found[0]


@torch.inference_mode()
def _measured(backbone: Backbone, width: int, height: int, rows: int) -> Calibration:
    """The calibration, with batches of at most `rows` frames."""
    on_gpu = backbone.device.type == "cuda"
    h, w, depth = height // backbone.factor, width // backbone.factor, backbone.latent_channels
    latents = torch.randn(rows, depth, h, w, generator=torch.Generator().manual_seed(0)).to(backbone.device)
    frames = min(rows, backbone.vae_chunk(width, height)) if on_gpu else 2
    prompt_embeds = backbone.embed("").prompt_embeds
    grids = backbone.grids(width, height)
    channels, _ = attention_widths(backbone, grids)

    def halted() -> None:
        def halt(*_: Any) -> None:
            raise Halt

        with forward_hook(injected_conv(backbone.unet), halt), suppress(Halt):
            backbone.predict(latents, 500, prompt_embeds)

    state = EditState(attend=backbone.attend, gather=backbone.gather, prompts=1)
    with editing_attention(backbone.unet, state):
        unet = _seconds(backbone, lambda: backbone.predict(latents, 500, prompt_embeds)) / rows
        until_conv = _seconds(backbone, halted) / rows
        with state.during(KeyframePass(edits=1, prompts=1, keep_outputs=True)):
            backbone.predict(latents[:1], 500, prompt_embeds)
        propagation = PropagationPass(
            slots=torch.zeros(rows, 2, dtype=torch.int64, device=backbone.device),
            index={g.n: torch.arange(g.n, device=backbone.device).expand(rows, 2, -1) for g in grids},
            weights={g.n: torch.full((rows, 2, g.n), 0.5, device=backbone.device) for g in grids},
            prompts=1,
        )
        with state.during(propagation):
            propagated = _seconds(backbone, lambda: backbone.predict(latents, 500, prompt_embeds)) / rows
        state.forget()
        row_bytes, gate_bytes = _pass_bytes(backbone, latents, prompt_embeds, grids, channels)
    small = torch.zeros(frames, depth, h, w)
    decoded = backbone.decode_there(small)
    backbone.finite.check()
    pictures = decoded.cpu().numpy()
    return Calibration(
        unet=unet,
        until_conv=until_conv,
        propagated=propagated,
        decode=_seconds(backbone, lambda: backbone.decode_there(small)) / frames,
        encode=_seconds(backbone, lambda: backbone.encode(pictures)) / frames,
        **_along_the_motion(backbone, decoded[0]),
        restore=_seconds(backbone, lambda: restore_detail(decoded, decoded.flip(1), decoded, 1.0)) / frames,
        extended=_extended(backbone, grids[0], channels[grids[0]], 16 if on_gpu else 4),
        row_bytes=row_bytes,
        gate_bytes=gate_bytes,
        decode_bytes=_peak(backbone, lambda: backbone.decode_there(small)) // frames,
    )


def _along_the_motion(backbone: Backbone, frame: Tensor) -> dict[str, float]:
    """Seconds per frame [H, W, 3] uint8 of following the motion, smoothing along it and carrying along it."""
    picture, still, none = frame.permute(2, 0, 1).float(), frame.cpu().numpy(), np.empty(0, np.int64)
    flow = flow_between(still, still[::-1])[None].repeat(BLOCK - 1, axis=0)

    def smooth() -> None:
        smooth_edit(
            lambda ids: (picture.expand(len(ids), -1, -1, -1),) * 2, flow, 0.9, none, lambda *_: None, Monitor()
        )

    # The number of frames that a GPU makes at a time: it takes as long for fewer.
    steps, stride = BLOCKS[backbone.device.type != "cpu"], BLOCKS[0] // 2
    film, here = np.stack([still] * (steps + 1)), np.zeros((steps, *flow.shape[1:]), flow.dtype)

    def carry() -> None:
        chosen = frames_to_edit(film, here, none, none, stride, backbone.device, Monitor())
        carry_between(film.copy(), film, here, chosen, backbone.device, Monitor())

    return {
        "follow": _seconds(backbone, lambda: flow_between(still, still[::-1])) / THREADS,
        "smooth": _seconds(backbone, smooth, 2) / BLOCK,
        "carry": _seconds(backbone, carry, 2) / (steps - steps // stride),  # frames between those that are edited
    }


def _extended(backbone: Backbone, grid: Grid, channels: int, K: int) -> float:
    """Seconds per query token, kept token and channel where K keyframes keep half of all tokens, most as a sample."""
    heads = next(module.heads for module in backbone.unet.modules() if hasattr(module, "to_q"))
    query = torch.randn(K, heads, grid.n, channels // heads, device=backbone.device, dtype=backbone.dtype)
    M = K // 2 * grid.n
    kept = (2 * torch.arange(M, device=backbone.device)).expand(K, -1)
    scale, sampled = query.shape[-1] ** -0.5, M - 2 * grid.n
    attend = partial(
        extended_attention, query, query, query, K, kept, backbone.attend, scale, num_sampled=sampled, sample_weight=2
    )
    return _seconds(backbone, attend) / (K * grid.n * M * channels)


def _pass_bytes(
    backbone: Backbone, latents: Tensor, prompt_embeds: Tensor, grids: list[Grid], channels: dict[Grid, int]
) -> tuple[int, int]:
    """Bytes that one more row takes: in a pass without its feed-forwards, and in a feed-forward."""
    if backbone.device.type != "cuda":
        # GEGLU's two halves of four times the width are the widest tensors of a pass.
        elements = sum(g.n * channels[g] for g in grids) * torch.finfo(backbone.dtype).bits // 8
        return 12 * elements, 12 * elements
    rows = len(latents)
    whole = _peak(backbone, lambda: backbone.predict(latents, 500, prompt_embeds))
    with cut_feed_forwards(backbone.unet) as feed_forwards:
        feed_forwards.cut(rows, limit=max(1, rows // 4))
        cut = _peak(backbone, lambda: backbone.predict(latents, 500, prompt_embeds))
    gate = (whole - cut) / (rows - max(1, rows // 4))
    return int(whole / rows - gate), int(gate)


def _peak(backbone: Backbone, work: Callable[[], object]) -> int:
    """Bytes of GPU memory that `work` takes at its peak, beside those in use before; 0 on other devices."""
    if backbone.device.type != "cuda":
        return 0
    before = torch.cuda.memory_allocated(backbone.device)
    torch.cuda.reset_peak_memory_stats(backbone.device)
    work()
    return torch.cuda.max_memory_allocated(backbone.device) - before


def attention_widths(backbone: Backbone, grids: list[Grid]) -> tuple[dict[Grid, int], dict[Grid, int]]:
    """Channels of self-attention by grid, and how many layers work on it."""
    channels: dict[Grid, int] = {}
    layers: dict[Grid, int] = {}
    blocks = backbone.unet.config.block_out_channels
    per_block = backbone.unet.config.layers_per_block
    per_level = per_block if isinstance(per_block, Sequence) else [per_block] * len(blocks)
    for level, kind in enumerate(backbone.unet.config.down_block_types):
        if "CrossAttn" in kind:
            grid = grids[level]
            channels[grid], layers[grid] = blocks[level], 2 * per_level[level] + 1
    deepest = grids[-1]
    channels.setdefault(deepest, blocks[-1])
    layers[deepest] = layers.get(deepest, 0) + 1
    return channels, layers


def _seconds(backbone: Backbone, work: Callable[[], object], repeats: int = 1) -> float:
    """Seconds of the fastest of `repeats` runs of `work`, after a run that is not timed.

    On a CPU at least two runs are timed, since other programs may use it as well. Work on a GPU in which the processor
    has a part should be repeated too: it is held up by what else the processor does, such as the search for motion.
    """
    repeats = max(repeats, 2) if backbone.device.type == "cpu" else repeats
    work()
    best = float("inf")
    for _ in range(repeats):
        _synchronize(backbone)
        start = time.perf_counter()
        work()
        _synchronize(backbone)
        best = min(best, time.perf_counter() - start)
    return best


def _synchronize(backbone: Backbone) -> None:
    if backbone.device.type == "cuda":
        torch.cuda.synchronize(backbone.device)
