"""Counts each stage's needed floating-point operations: those of a pass, times the number of passes that it needs.

Passes are counted without running, on torch's `meta` device.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from adaflow_core.config import FilledEdit
from adaflow_core.editing.agreement import agreeing_steps
from adaflow_core.editing.forecasting.calibration import attention_widths
from adaflow_core.editing.injection import injected_conv
from adaflow_core.model.attention import Halt, forward_hook
from adaflow_core.model.backbone import Backbone
from adaflow_core.types import EditLayout, Grid


@dataclass(frozen=True)
class Passes:
    """Operations per frame."""

    whole: int  # a pass of the UNet
    until_conv: int  # the pass up to the injected convolution
    until_features: int  # the pass up to the block whose output is the feature
    propagated: int  # the pass without its self-attention
    encode: int
    decode: int


def count_passes(backbone: Backbone, width: int, height: int) -> Passes:
    h, w = height // backbone.factor, width // backbone.factor
    with torch.device("meta"):
        unet = type(backbone.unet).from_config(backbone.unet.config)
        vae = type(backbone.vae).from_config(backbone.vae.config)
        latents, picture = torch.empty(1, 4, h, w), torch.empty(1, 3, height, width)
        states = torch.empty(1, backbone.tokenizer.model_max_length, unet.config.cross_attention_dim)
        time = torch.tensor(1)

    def run_unet() -> None:
        unet(latents, time, encoder_hidden_states=states)

    def halt(*_: Any) -> None:
        raise Halt

    def halted_at(module: torch.nn.Module) -> int:
        with forward_hook(module, halt):
            return _count(run_unet)

    whole = _count(run_unet)
    until_conv = halted_at(injected_conv(unet))
    until_features = halted_at(unet.up_blocks[backbone.profile.feature_block])
    unet.set_attn_processor({
        name: _Nothing() if ".attn1." in name else processor for name, processor in unet.attn_processors.items()
    })  # fmt: skip
    return Passes(
        whole,
        until_conv,
        until_features,
        _count(run_unet),
        _count(lambda: vae.encode(picture)),
        _count(lambda: vae.decode(latents)),
    )


class _Nothing:
    """A placeholder for self-attention whose output comes from elsewhere."""

    def __call__(self, _attn: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return hidden_states


def _count(work: Callable[[], object]) -> int:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter, suppress(Halt):
        work()
    return int(counter.get_total_flops())


def extended_attention_work(backbone: Backbone, kept: dict[Grid, int]) -> int:
    """Operations per keyframe and branch of one pass that attention over `kept` tokens adds to its own tokens'."""
    channels, layers = attention_widths(backbone, sorted(kept, key=lambda grid: -grid.n))
    return sum(layers[g] * 4 * g.n * (M - g.n) * channels[g] for g, M in kept.items())


def resized(layout: EditLayout, grids: list[Grid]) -> EditLayout:
    """Return a layout for counting, for frames with other grids, with the same share of kept tokens."""
    if layout.slimming is None:
        return layout
    slimming = {}
    for part, grid in zip(layout.slimming.values(), grids, strict=True):
        K, M = part.kept.shape
        slimming[grid] = replace(part, grid=grid, kept=np.empty((K, round(M * grid.n / part.grid.n)), np.int32))
    return replace(layout, slimming=slimming)


def stage_work(
    backbone: Backbone, passes: Passes, layout: EditLayout, config: FilledEdit, frames: int, edited: int
) -> dict[str, int]:
    """Stage -> needed operations of `frames`, `edited` of which pass through the model.

    The edit's operations are split by kind of pass.
    """
    S, K, T, F = config.steps, len(layout.keyframes), frames, edited
    rows = S + len(config.guided_steps)  # of the edit, one for each prompt and step
    factor = config.inversion_steps // S
    with_attention, with_conv = (round(share * S) for share in (config.injection_attention, config.injection_conv))
    extended = 0
    if layout.slimming is not None:
        extended = extended_attention_work(backbone, {g: s.kept.shape[1] for g, s in layout.slimming.items()})
    key_source = S if config.whole_source else with_attention
    key_conv = max(0, with_conv - key_source)
    other_source = S * passes.whole if config.whole_source else with_conv * passes.until_conv
    return {
        "encode": T * passes.encode,
        "features": T * passes.until_features,
        "invert": F * ((S - 1) * factor + 1) * passes.whole,
        "keyframes": K * (rows * (passes.whole + extended) + key_source * passes.whole
                          + key_conv * passes.until_conv),
        "propagation": (F - K) * (rows * passes.propagated + other_source),
        "agreement": F * len(agreeing_steps(config.agreements, S)) * (passes.decode + 2 * passes.encode),
        "decode source": F * passes.decode if config.detail or config.follows_motion else 0,
        "decode frames": F * passes.decode,
    }  # fmt: skip
