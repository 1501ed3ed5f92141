"""A model's modules replaced by ones that read and write less: normalisation with its activation, and GEGLU.

Done once, where a checkpoint is loaded on a CUDA device; weights and results stay what they are. Where the kernels
cannot run, or give something else than torch, nothing is replaced.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaflow_core.correspondence import gather_blend

logger = logging.getLogger(__name__)


class FusedGroupNorm(nn.GroupNorm):
    """Group normalisation of channels-last pictures, with the SiLU that follows if `silu`; rows go torch's way."""

    def __init__(self, norm: nn.GroupNorm, silu: bool) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, device="meta")
        self.weight, self.bias, self.silu = norm.weight, norm.bias, silu

    def forward(self, x: Tensor) -> Tensor:
        # A compiler fuses torch's own operations with what is around them.
        if x.ndim == 4 and not torch.compiler.is_compiling():
            from adaflow_core.kernels import group_norm

            return group_norm(x, self.num_groups, self.weight, self.bias, self.eps, self.silu)
        normed = super().forward(x)
        return F.silu(normed) if self.silu else normed


class SiluOfRows(nn.Module):
    """A residual block's activation where its normalisations activate pictures themselves: the time's rows only."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.ndim == 4 else F.silu(x)


class FusedGeglu(nn.Module):
    """diffusers' GEGLU around the same projection."""

    def __init__(self, proj: nn.Linear) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, hidden_states: Tensor) -> Tensor:
        projected = self.proj(hidden_states)
        if torch.compiler.is_compiling():
            hidden, gate = projected.chunk(2, dim=-1)
            return hidden * F.gelu(gate)
        from adaflow_core.kernels import gate as gated

        return gated(projected)


def kernels_run(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels run here and agree with torch; says once why not."""
    if sys.platform != "linux":
        return False
    try:
        from adaflow_core import kernels

        generator = torch.Generator().manual_seed(0)
        picture = torch.randn(2, 96, 9, 13, generator=generator).add(0.5).to(device, dtype)
        picture = picture.contiguous(memory_format=torch.channels_last)
        weight, bias = (torch.randn(96, generator=generator).to(device, dtype) for _ in range(2))
        normed = kernels.group_norm(picture, 32, weight, bias, 1e-5, True)
        first, second = picture.flatten(1).chunk(2, dim=1)
        gated = kernels.gate(torch.cat([first, second], dim=1))
        rows = torch.randn(3, 40, 96, generator=generator).to(device, dtype)
        slots, index = (torch.randint(0, high, shape, generator=generator).to(device)
                        for high, shape in ((3, (2, 2)), (40, (2, 2, 40))))  # fmt: skip
        weights = torch.rand(2, 2, 40, generator=generator).to(device, torch.float16)
        blended = kernels.gather_blend(rows, slots, index, weights, rows[:2])
        pairs = [
            (blended, gather_blend(rows.float(), slots, index, weights, rows[:2].float())),
            (normed, F.silu(F.group_norm(picture.float(), 32, weight.float(), bias.float(), 1e-5))),
            (gated, first.float() * F.gelu(second.float())),
        ]
        for ours, theirs in pairs:
            torch.testing.assert_close(ours.float(), theirs, rtol=0.02, atol=0.02)
    except Exception as problem:  # whatever keeps them from running, the answer is the same
        logger.warning("the fused kernels cannot run here (%s); using torch's", str(problem).strip().split("\n")[0])
        return False
    return True


def fuse(model: Any) -> None:
    """Replace the modules of a UNet or an autoencoder of diffusers."""
    for module in list(model.modules()):
        kind = type(module).__name__
        # Without a time there is one activation after each normalisation; scale and shift would come between.
        activates = kind == "ResnetBlock2D" and module.time_embedding_norm == "default" and _is_silu(module)
        for name, child in list(module.named_children()):
            if type(child) is nn.GroupNorm:
                setattr(module, name, FusedGroupNorm(child, silu=activates and name in ("norm1", "norm2")))
            elif type(child).__name__ == "GEGLU":
                setattr(module, name, FusedGeglu(child.proj))
        if kind == "Transformer2DModel":
            module.register_forward_hook(_channels_last)
        if activates:
            module.nonlinearity = SiluOfRows()


def _channels_last(_module: Any, _inputs: Any, output: tuple[Tensor]) -> tuple[Tensor]:
    # diffusers leaves transformers in the other layout; turned here, it is turned once and not by all that follows.
    return (output[0].contiguous(memory_format=torch.channels_last),)


def _is_silu(module: Any) -> bool:
    return isinstance(module.nonlinearity, nn.SiLU)
