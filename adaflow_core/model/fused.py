"""Replaces a model's modules by fused ones, which read and write memory less: normalisation, sums, biases, GEGLU.

`accelerate` does so once, when a checkpoint is loaded for a CUDA device. Weights stay as they are, and results are the
same except for rounding. If the kernels cannot run, or differ from torch, nothing is replaced.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor, nn

from adaflow_core.errors import first_line
from adaflow_core.model.backends import gather_blend

logger = logging.getLogger(__name__)


def accelerate(*models: Any, device: torch.device, dtype: torch.dtype) -> bool:
    """Fuse the modules of `models` for a CUDA device on which the kernels run; return whether they were fused."""
    if device.type != "cuda" or not kernels_run(device, dtype):
        return False
    for model in models:
        fuse(model)
    return True


def memory_format(device: torch.device, fused: bool) -> torch.memory_format:
    """Return the fastest memory layout of weights and latents on `device`.

    Convolutions are fastest channels-last, and attention takes tokens in that order. But torch's group normalisation on
    a GPU transposes every picture and back: without the fused one, the contiguous layout is 15 % faster there.
    """
    return torch.channels_last if fused or device.type == "cpu" else torch.contiguous_format


def _kernels() -> Any:
    """Return the module of kernels, imported only where they run: Triton is not installed everywhere."""
    from adaflow_core.model import kernels

    return kernels


class FusedGroupNorm(nn.GroupNorm):
    """Group normalisation of channels-last pictures, fused with a following SiLU if `silu`; for rows torch's own."""

    def __init__(self, norm: nn.GroupNorm, silu: bool) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, device="meta")
        self.weight, self.bias, self.silu = norm.weight, norm.bias, silu

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:  # [B, C, H, W], [B or 1, C]
        if x.ndim == 4:
            return _kernels().group_norm(x, self.num_groups, self.weight, self.bias, self.eps, self.silu, shift)
        normed = super().forward(x if shift is None else x + shift[:, :, None, None])
        return F.silu(normed) if self.silu else normed


class ConvWithoutBias(nn.Conv2d):
    """A convolution without its bias: the caller adds the bias together with other summands."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, device="meta"  # type: ignore
        )  # fmt: skip
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight, None)


class LinearWithoutBias(nn.Linear):
    """A linear layer without its bias: the caller adds the bias together with other summands."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, device="meta")
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


def _resnet(block: Any, x: Tensor, temb: Any) -> Tensor:
    """The forward of a diffusers ResnetBlock2D with fused norms and convolutions without bias."""
    hidden = block.conv1(block.norm1(x))
    shift = block.conv1.bias[None]
    if block.time_emb_proj is not None:
        shift = shift + block.time_emb_proj(F.silu(temb))
    hidden = block.conv2(block.norm2(hidden, shift))
    shortcut = x if block.conv_shortcut is None else block.conv_shortcut(x)
    return _kernels().add(shortcut, hidden, block.residual_bias)


def _transformer(
    model: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, return_dict: bool = True, **_: Any
) -> Any:
    """The forward of a diffusers Transformer2DModel: each sum, bias and following norm is one pass over memory."""
    kernels, (B, _C, height, width) = _kernels(), hidden_states.shape

    def picture(rows: Tensor) -> Tensor:  # in memory they are a channels-last picture already
        return rows.view(B, height, width, -1).permute(0, 3, 1, 2)

    def rows_of(picture: Tensor) -> Tensor:
        return picture.permute(0, 2, 3, 1).reshape(B, height * width, -1)

    rows = F.linear(rows_of(model.norm(hidden_states)), model.proj_in.weight.flatten(1))
    added: Any = None
    bias = model.proj_in.bias
    for block in model.transformer_blocks:
        for norm, part, last in (
            (block.norm1, block.attn1, block.attn1.to_out[0]),
            (block.norm2, partial(block.attn2, encoder_hidden_states=encoder_hidden_states), block.attn2.to_out[0]),
            (block.norm3, partial(_feed_forward, block), block.ff.net[2]),
        ):
            normed = kernels.add_norm(rows, added, bias, norm.weight, norm.bias, norm.eps)
            added, bias = part(normed), last.bias
    rows = rows_of(kernels.add(picture(rows), picture(added), bias))
    rows = F.linear(rows, model.proj_out.weight.flatten(1))
    output = kernels.add(hidden_states, picture(rows), model.proj_out.bias)
    return Transformer2DModelOutput(output) if return_dict else (output,)


def _feed_forward(block: Any, normed: Tensor) -> Tensor:
    """The block's feed-forward, in chunks of the size that `set_chunk_feed_forward` set."""
    parts = normed.split(block._chunk_size or len(normed))
    return block.ff(normed) if len(parts) == 1 else torch.cat([block.ff(part) for part in parts])


def _upsample(block: Any, x: Tensor, output_size: Any = None) -> Tensor:
    height, width = output_size or (2 * x.shape[2], 2 * x.shape[3])
    return block.conv(_kernels().enlarge(x, height, width))


class FusedGeglu(nn.Module):
    """Replaces diffusers' GEGLU and keeps its projection."""

    def __init__(self, proj: nn.Linear) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, hidden_states: Tensor) -> Tensor:
        return _kernels().gate(F.linear(hidden_states, self.proj.weight), self.proj.bias)


def kernels_run(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels run on the device and agree with torch; if not, the reason is logged."""
    if sys.platform != "linux":
        return False
    try:
        for ours, theirs in _compare(device, dtype):
            torch.testing.assert_close(ours.float(), theirs, rtol=0.02, atol=0.02)
    except Exception as problem:  # of the compiler, the driver or the comparison: torch's operations run all the same
        logger.warning("the fused kernels cannot run here (%s); using torch's", first_line(problem))
        return False
    return True


def _compare(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each kernel's result for random values, and torch's in float32."""
    kernels, generator = _kernels(), torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    def below(end: int, *shape: int) -> Tensor:
        return torch.randint(0, end, shape, generator=generator).to(device)

    picture = (random(2, 96, 9, 13) + 0.5).contiguous(memory_format=torch.channels_last)
    weight, bias, shift, rows, gated = random(96), random(96), 3 * random(2, 96), random(3, 40, 96), random(2, 8, 600)
    halves = random(600)
    affine = weight.float(), bias.float()
    normed = F.group_norm(picture.float(), 32, *affine, 1e-5)
    yield kernels.group_norm(picture, 32, weight, bias, 1e-5, True), F.silu(normed)
    shifted = F.group_norm((picture + shift[:, :, None, None]).float(), 32, *affine, 1e-5)
    yield kernels.group_norm(picture, 32, weight, bias, 1e-5, False, shift), shifted
    total, added = rows.clone(), random(3, 40, 96)
    normed = kernels.add_norm(total, added, bias, weight, bias, 1e-5)
    yield total, rows.float() + added.float() + bias.float()
    yield normed, F.layer_norm(total.float(), (96,), *affine)
    yield kernels.add(picture, picture, bias), 2 * picture.float() + bias.float()[:, None, None]
    yield kernels.enlarge(picture, 17, 26), F.interpolate(picture.float(), size=(17, 26))
    hidden, gate = (gated.float() + halves.float()).chunk(2, dim=-1)
    yield kernels.gate(gated, halves), hidden * F.gelu(gate)
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
            elif type(child).__name__ == "GEGLU" and child.proj.bias is not None:
                setattr(module, name, FusedGeglu(child.proj))
            elif plain and name in ("conv1", "conv2", "conv_shortcut"):
                setattr(module, name, ConvWithoutBias(child))
        if plain:
            bias = module.conv2.bias if module.conv_shortcut is None else module.conv2.bias + module.conv_shortcut.bias
            module.register_buffer("residual_bias", bias.detach(), persistent=False)
            module.forward = partial(_resnet, module)
        elif kind == "Transformer2DModel" and _is_plain_transformer(module):
            for block in module.transformer_blocks:
                for parts, place in ((block.attn1.to_out, 0), (block.attn2.to_out, 0), (block.ff.net, 2)):
                    parts[place] = LinearWithoutBias(parts[place])
            module.forward = partial(_transformer, module)
        elif kind == "Upsample2D" and _enlarges(module):
            module.forward = partial(_upsample, module)


def _is_plain(block: Any) -> bool:
    """Whether a ResnetBlock2D neither scales by the time embedding nor resizes, as all in Stable Diffusion."""
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


def _is_plain_transformer(model: Any) -> bool:
    """Whether a transformer is over pictures, with blocks of self- and cross-attention, as all in Stable Diffusion."""
    return (
        model.is_input_continuous
        and model.proj_in.bias is not None
        and all(
            block.norm_type == "layer_norm"
            and block.pos_embed is None
            and block.attn2 is not None
            and not block.only_cross_attention
            and not hasattr(block, "fuser")
            and len(block.ff.net) == 3
            and all(
                type(norm) is nn.LayerNorm and norm.bias is not None for norm in (block.norm1, block.norm2, block.norm3)
            )
            and all(
                type(last) is nn.Linear and last.bias is not None
                for last in (block.attn1.to_out[0], block.attn2.to_out[0], block.ff.net[2])
            )
            for block in model.transformer_blocks
        )
    )


def _enlarges(block: Any) -> bool:
    """Whether an upsampler repeats pixels and then convolves, as all in Stable Diffusion."""
    convolves = block.use_conv and not block.use_conv_transpose and block.name == "conv"
    return bool(convolves and block.interpolate and block.norm is None)
