"""A model's modules replaced by ones that read and write less: normalisation with activation and bias, sums, GEGLU.

`accelerate` does it once, where a checkpoint is loaded for a CUDA device; weights stay as they are, and results but
for rounding. Where the kernels cannot run, or give something else than torch, nothing is replaced.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaflow_core.model.backends import gather_blend

logger = logging.getLogger(__name__)


def accelerate(*models: Any, device: torch.device, dtype: torch.dtype) -> bool:
    """Fuse the modules of `models` if they are to run on CUDA and the kernels run there; says whether it did."""
    if device.type != "cuda" or not kernels_run(device, dtype):
        return False
    for model in models:
        fuse(model)
    return True


def memory_format(device: torch.device, fused: bool) -> torch.memory_format:
    """The fastest layout of weights and latents there.

    Convolutions are the fastest channels-last, and tokens lie so as attention takes them. But torch's normalisation on
    a GPU turns every picture over and back: without the fused one, the other layout is 15 % faster there.
    """
    return torch.channels_last if fused or device.type == "cpu" else torch.contiguous_format


def _kernels() -> Any:
    """The module of kernels, imported where they run: Triton is not everywhere."""
    from adaflow_core.model import kernels

    return kernels


class FusedGroupNorm(nn.GroupNorm):
    """Group normalisation of channels-last pictures, with the SiLU that follows if `silu`; rows go torch's way."""

    def __init__(self, norm: nn.GroupNorm, silu: bool) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, device="meta")
        self.weight, self.bias, self.silu = norm.weight, norm.bias, silu

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:  # [B, C, H, W], [B or 1, C]
        if x.ndim == 4:
            return _kernels().group_norm(x, self.num_groups, self.weight, self.bias, self.eps, self.silu, shift)
        normed = super().forward(x if shift is None else x + shift[:, :, None, None])
        return F.silu(normed) if self.silu else normed


class FusedLayerNorm(nn.LayerNorm):
    """Layer normalisation of rows."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(norm.normalized_shape, norm.eps, device="meta")  # type: ignore[arg-type]
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        return _kernels().layer_norm(x, self.weight, self.bias, self.eps)


class ConvWithoutBias(nn.Conv2d):
    """A convolution whose caller adds its bias, together with what else is added there."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, device="meta"  # type: ignore
        )  # fmt: skip
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight, None)


def _resnet(block: Any, x: Tensor, temb: Any) -> Tensor:
    """A diffusers residual block's forward, with norms that activate and convolutions that leave out their bias."""
    hidden = block.conv1(block.norm1(x))
    shift = block.conv1.bias[None]
    if block.time_emb_proj is not None:
        shift = shift + block.time_emb_proj(F.silu(temb))
    hidden = block.conv2(block.norm2(hidden, shift))
    shortcut = x if block.conv_shortcut is None else block.conv_shortcut(x)
    return _kernels().add(shortcut, hidden, block.residual_bias)


def _to_picture(
    block: Any, hidden_states: Tensor, residual: Tensor, batch_size: int, height: int, width: int, inner_dim: int
) -> Tensor:
    """The end of a diffusers transformer: in memory its rows are a channels-last picture already."""
    if block.use_linear_projection:
        hidden_states = block.proj_out(hidden_states)
    picture = hidden_states.reshape(batch_size, height, width, -1).permute(0, 3, 1, 2)
    return (picture if block.use_linear_projection else block.proj_out(picture)) + residual


def _upsample(block: Any, x: Tensor, output_size: Any = None) -> Tensor:
    height, width = output_size or (2 * x.shape[2], 2 * x.shape[3])
    return block.conv(_kernels().enlarge(x, height, width))


class FusedGeglu(nn.Module):
    """diffusers' GEGLU around the same projection."""

    def __init__(self, proj: nn.Linear) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, hidden_states: Tensor) -> Tensor:
        return _kernels().gate(self.proj(hidden_states))


def kernels_run(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels run on the device and agree with torch; logs why not."""
    if sys.platform != "linux":
        return False
    try:
        for ours, theirs in _compare(device, dtype):
            torch.testing.assert_close(ours.float(), theirs, rtol=0.02, atol=0.02)
    except Exception as problem:  # of a compiler, a driver or a result: torch's operations run all the same
        logger.warning("the fused kernels cannot run here (%s); using torch's", str(problem).strip().split("\n")[0])
        return False
    return True


def _compare(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
    """What each kernel makes of random values, and what torch makes of them in float32."""
    kernels, generator = _kernels(), torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    def below(end: int, *shape: int) -> Tensor:
        return torch.randint(0, end, shape, generator=generator).to(device)

    picture = (random(2, 96, 9, 13) + 0.5).contiguous(memory_format=torch.channels_last)
    weight, bias, shift, rows, gated = random(96), random(96), 3 * random(2, 96), random(3, 40, 96), random(2, 8, 600)
    affine = weight.float(), bias.float()
    normed = F.group_norm(picture.float(), 32, *affine, 1e-5)
    yield kernels.group_norm(picture, 32, weight, bias, 1e-5, True), F.silu(normed)
    shifted = F.group_norm((picture + shift[:, :, None, None]).float(), 32, *affine, 1e-5)
    yield kernels.group_norm(picture, 32, weight, bias, 1e-5, False, shift), shifted
    yield kernels.layer_norm(rows, weight, bias, 1e-5), F.layer_norm(rows.float(), (96,), *affine)
    yield kernels.add(picture, picture, bias), 2 * picture.float() + bias.float()[:, None, None]
    yield kernels.enlarge(picture, 17, 26), F.interpolate(picture.float(), size=(17, 26))
    hidden, gate = gated.float().chunk(2, dim=-1)
    yield kernels.gate(gated), hidden * F.gelu(gate)
    blend = below(3, 2, 2), below(40, 2, 2, 40), random(2, 2, 40).abs().half()
    yield kernels.gather_blend(rows, *blend, rows[:2]), gather_blend(rows.float(), *blend, rows[:2].float())


def fuse(model: Any) -> None:
    """Replace the modules of a diffusers UNet or autoencoder."""
    for module in list(model.modules()):
        kind = type(module).__name__
        plain = kind == "ResnetBlock2D" and _is_plain(module)
        for name, child in list(module.named_children()):
            if type(child) is nn.GroupNorm:
                setattr(module, name, FusedGroupNorm(child, silu=plain and name in ("norm1", "norm2")))
            elif type(child) is nn.LayerNorm and child.bias is not None:
                setattr(module, name, FusedLayerNorm(child))
            elif type(child).__name__ == "GEGLU":
                setattr(module, name, FusedGeglu(child.proj))
            elif plain and name in ("conv1", "conv2", "conv_shortcut"):
                setattr(module, name, ConvWithoutBias(child))
        if plain:
            bias = module.conv2.bias if module.conv_shortcut is None else module.conv2.bias + module.conv_shortcut.bias
            module.register_buffer("residual_bias", bias.detach(), persistent=False)
            module.forward = partial(_resnet, module)
        elif kind == "Transformer2DModel" and module.is_input_continuous:
            module._get_output_for_continuous_inputs = partial(_to_picture, module)
        elif kind == "Upsample2D" and _enlarges(module):
            module.forward = partial(_upsample, module)


def _is_plain(block: Any) -> bool:
    """A residual block that neither scales by the time nor changes the size, as all of Stable Diffusion's."""
    convolutions = [c for c in (block.conv1, block.conv2, block.conv_shortcut) if c is not None]
    return (
        block.time_embedding_norm in ("default", "group")
        and block.upsample is None
        and block.downsample is None
        and block.output_scale_factor == 1
        and isinstance(block.nonlinearity, nn.SiLU)
        and not block.skip_time_act
        and all(type(c) is nn.Conv2d and c.bias is not None for c in convolutions)
    )


def _enlarges(block: Any) -> bool:
    """An upsampling that repeats pixels and convolves them, as all of Stable Diffusion's."""
    convolves = block.use_conv and not block.use_conv_transpose and block.name == "conv"
    return bool(convolves and block.interpolate and block.norm is None)
