"""What an edit will take on this machine: a few short measurements, then arithmetic.

The measurements are of this device, model and frame size, and are cached with them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from adaflow_core.attention import Halt, extended_attention, forward_hook, injected_conv
from adaflow_core.backbone import Backbone
from adaflow_core.config import EditConfig
from adaflow_core.types import Forecast, Grid


@dataclass(frozen=True)
class Calibration:
    """Seconds of the pieces that an edit is made of."""

    unet: float  # per frame and pass
    until_conv: float  # per frame, the pass up to the injected convolution
    self_attention: float  # per frame and pass, the part of `unet` that propagation does not run
    encode: float  # per frame
    decode: float  # per frame
    extended: float  # per query token, kept token and channel of extended attention
    pass_bytes: int  # memory that one more frame in a pass takes


def calibrate(backbone: Backbone, width: int, height: int) -> Calibration:
    """Times each piece on random input: about two seconds for the embedded model on two cores."""
    h, w = height // backbone.factor, width // backbone.factor
    chunk = min(4, backbone.chunk)
    latents = torch.randn(chunk, 4, h, w, generator=torch.Generator().manual_seed(0))
    frames = np.random.default_rng(0).integers(0, 255, (2, height, width, 3), dtype=np.uint8)
    states = backbone.embed("").states

    def halted() -> None:
        def halt(*_: Any) -> None:
            raise Halt

        with forward_hook(injected_conv(backbone.unet), halt), suppress(Halt):
            backbone.predict(latents, 500, states)

    unet = _seconds(backbone, lambda: backbone.predict(latents, 500, states)) / chunk
    until_conv = _seconds(backbone, halted) / chunk
    grids = backbone.grids(width, height)
    channels, layers = attention_widths(backbone, grids)
    fine = grids[0]
    # Two keyframes over four frames' worth of tokens: large enough to show the kernel's rate.
    query = torch.randn(4, 1, fine.n, channels[fine], device=backbone.device, dtype=backbone.dtype)
    kept = torch.arange(2 * fine.n, device=backbone.device).repeat(2, 2)
    own = torch.arange(fine.n, device=backbone.device).repeat(2, 1)

    def attend(chosen: torch.Tensor) -> Callable[[], Any]:
        return lambda: extended_attention(query, query, query, 2, chosen, backbone.attend, 1.0)

    work = 2 * 2 * fine.n * channels[fine]  # branches x keyframes x query tokens x channels
    extended = _seconds(backbone, attend(kept)) / (work * 4 * fine.n)
    within = _seconds(backbone, attend(own)) / (work * fine.n)
    self_attention = sum(within * layers[g] * g.n * g.n * channels[g] for g in grids)
    latent = torch.zeros(2, 4, h, w)
    elements = sum(g.n * channels[g] for g in grids)
    return Calibration(
        unet=unet,
        until_conv=until_conv,
        self_attention=min(self_attention, 0.5 * unet),
        encode=_seconds(backbone, lambda: backbone.encode(frames)) / 2,
        decode=_seconds(backbone, lambda: backbone.decode(latent)) / 2,
        extended=extended,
        # GEGLU's two halves of four times the width are the widest tensors of a pass.
        pass_bytes=24 * elements * torch.finfo(backbone.dtype).bits // 8,
    )


def attention_widths(backbone: Backbone, grids: list[Grid]) -> tuple[dict[Grid, int], dict[Grid, int]]:
    """Channels of self-attention by grid, and how many layers work on it."""
    channels: dict[Grid, int] = {}
    layers: dict[Grid, int] = {}
    blocks = backbone.unet.config.block_out_channels
    per_block = backbone.unet.config.layers_per_block
    for level, kind in enumerate(backbone.unet.config.down_block_types):
        if "CrossAttn" in kind:
            grid = grids[level]
            channels[grid], layers[grid] = blocks[level], 2 * per_block + 1
    deepest = grids[-1]
    channels.setdefault(deepest, blocks[-1])
    layers[deepest] = layers.get(deepest, 0) + 1
    return channels, layers


def forecast(
    calibration: Calibration,
    backbone: Backbone,
    grids: list[Grid],
    config: EditConfig,
    *,
    frames: int,
    keyframes: int,
    kept: dict[Grid, int] | None,
    inverted: bool,
    base_bytes: int,
) -> Forecast:
    """Seconds per stage and peak memory of an edit. `kept`: tokens per keyframe and grid, None: its own.

    `base_bytes` is what the process holds before the edit: weights and libraries.
    """
    assert config.steps and config.inversion_steps is not None
    assert config.injection_attention is not None and config.injection_conv is not None
    S, branches = config.steps, 2 if config.guided_steps else 1
    rows = S + config.guided_steps  # of the edit, one for each prompt and step
    with_source = S if config.whole_source else round(config.injection_attention * S)
    with_conv = round(config.injection_conv * S)
    channels, layers = attention_widths(backbone, grids)
    joint = 0.0
    if kept is not None:
        # The pass itself holds attention within a frame; what slimming keeps beyond that comes on top.
        joint = sum(
            calibration.extended * layers[g] * g.n * max(0, kept[g] - g.n) * channels[g] for g in grids
        )
    per_keyframe = rows * (calibration.unet + joint) + with_source * calibration.unet
    per_keyframe += max(0, with_conv - with_source) * calibration.until_conv
    per_other = rows * (calibration.unet - calibration.self_attention)
    per_other += S * calibration.unet if config.whole_source else with_conv * calibration.until_conv
    seconds = {
        "invert": 0.0 if inverted else frames * config.inversion_steps * calibration.unet,
        "edit": keyframes * per_keyframe + (frames - keyframes) * per_other,
        "decode frames": frames * calibration.decode * (2 if config.detail else 1),  # detail needs the source's as well
    }
    together = keyframes if kept is not None else min(keyframes, backbone.chunk)
    width = max((1 + branches) * together, branches * (config.chunk or backbone.chunk))
    size = torch.finfo(backbone.dtype).bits // 8
    outputs = branches * together * sum(layers[g] * g.n * channels[g] for g in grids) * size if kept else 0
    return Forecast(seconds, int(base_bytes + width * calibration.pass_bytes + outputs))


def to_dict(calibration: Calibration) -> dict[str, Any]:
    return asdict(calibration)


def _seconds(backbone: Backbone, work: Callable[[], object], repeats: int = 2) -> float:
    """The faster of a few runs after one that does not count."""
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
