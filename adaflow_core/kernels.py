"""Triton kernels: normalisation of channels-last pictures with its activation, GEGLU's gate, gathering from keyframes.

Torch normalises groups in the other layout only, so that every normalisation between two convolutions turns the
picture over and back; and it reads and writes it once more for the activation. Imported where `fused.py` finds Triton.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 32  # pixels that a program holds at a time
CHANNELS = 64  # and channels: 128 bytes of a row in half precision
SPLITS = 32  # partial sums that are added at a time
GATED = (4, 256)  # rows and columns that a program of the gate writes


@triton.jit
def _sums(x, partial, S, C, span: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Sums and sums of squares of `span` pixels, by channel: into `partial` [B, splits, 2, C] float32."""
    split, b = tl.program_id(0), tl.program_id(2)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    picture = x + b.to(tl.int64) * S * C
    total = tl.zeros((CHANNELS,), dtype=tl.float32)
    squares = tl.zeros((CHANNELS,), dtype=tl.float32)
    for first in range(0, span, ROWS):
        rows = split * span + first + tl.arange(0, ROWS)
        inside = (rows < S)[:, None] & (channels < C)[None, :]
        values = tl.load(picture + rows[:, None] * C + channels[None, :], mask=inside, other=0.0).to(tl.float32)
        total += tl.sum(values, axis=0)
        squares += tl.sum(values * values, axis=0)
    place = partial + ((b * tl.num_programs(0) + split) * 2).to(tl.int64) * C + channels
    tl.store(place, total, mask=channels < C)
    tl.store(place + C, squares, mask=channels < C)


@triton.jit(do_not_specialize=["splits"])
def _affine(  # type: ignore[no-untyped-def]
    partial, weight, bias, affine, splits, S, C, cg, eps,
    LOOPS: tl.constexpr, SPLITS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Of one group: the factor and the summand of each of its `cg` channels, into `affine` [B, 2, C] float32."""
    group, b = tl.program_id(0), tl.program_id(1)
    own = tl.arange(0, WIDTH)
    channels = group * cg + own
    total = tl.zeros((WIDTH,), dtype=tl.float32)
    squares = tl.zeros((WIDTH,), dtype=tl.float32)
    for loop in range(LOOPS):
        rows = loop * SPLITS + tl.arange(0, SPLITS)
        inside = (rows < splits)[:, None] & (own < cg)[None, :]
        place = partial + (b * splits + rows[:, None]) * 2 * C + channels[None, :]
        total += tl.sum(tl.load(place, mask=inside, other=0.0), axis=0)
        squares += tl.sum(tl.load(place + C, mask=inside, other=0.0), axis=0)
    count = (cg * S) * 1.0
    mean = tl.sum(total, axis=0) / count
    variance = tl.maximum(tl.sum(squares, axis=0) / count - mean * mean, 0.0)
    inverse = 1.0 / tl.sqrt(variance + eps)
    factor = tl.load(weight + channels, mask=own < cg, other=0.0).to(tl.float32) * inverse
    summand = tl.load(bias + channels, mask=own < cg, other=0.0).to(tl.float32) - factor * mean
    tl.store(affine + b * 2 * C + channels, factor, mask=own < cg)
    tl.store(affine + (b * 2 + 1) * C + channels, summand, mask=own < cg)


@triton.jit
def _apply(x, affine, out, S, C, SILU: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]
    b = tl.program_id(2)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (rows < S)[:, None] & (channels < C)[None, :]
    offsets = b.to(tl.int64) * S * C + rows[:, None] * C + channels[None, :]
    factor = tl.load(affine + b * 2 * C + channels, mask=channels < C, other=0.0)
    summand = tl.load(affine + (b * 2 + 1) * C + channels, mask=channels < C, other=0.0)
    values = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32) * factor[None, :] + summand[None, :]
    if SILU:
        values = values / (1.0 + tl.exp(-values))
    tl.store(out + offsets, values.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _gate(x, out, N, D, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows < N)[:, None] & (columns < D)[None, :]
    offsets = rows[:, None] * 2 * D + columns[None, :]
    hidden = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(x + offsets + D, mask=inside, other=0.0).to(tl.float32)
    value = hidden * gate * 0.5 * (1.0 + tl.erf(gate * 0.7071067811865476))
    tl.store(out + rows[:, None] * D + columns[None, :], value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _gather(  # type: ignore[no-untyped-def]
    outputs, slots, index, weights, base, out, n, d,
    PLACES: tl.constexpr, ADD: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    frame = tl.program_id(2).to(tl.int64)
    tokens = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (tokens < n)[:, None] & (channels < d)[None, :]
    here = (frame * n + tokens)[:, None] * d + channels[None, :]
    total = tl.zeros((TOKENS, CHANNELS), dtype=tl.float32)
    if ADD:
        total += tl.load(base + here, mask=inside, other=0.0).to(tl.float32)
    for place in tl.static_range(PLACES):
        at = frame * PLACES + place
        keyframe = tl.load(slots + at).to(tl.int64)
        token = tl.load(index + at * n + tokens, mask=tokens < n, other=0).to(tl.int64)
        weight = tl.load(weights + at * n + tokens, mask=tokens < n, other=0.0).to(tl.float32)
        there = (keyframe * n + token)[:, None] * d + channels[None, :]
        total += weight[:, None] * tl.load(outputs + there, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + here, total.to(out.dtype.element_ty), mask=inside)


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool) -> Tensor:
    """[B, C, H, W] channels-last, as is the result: normalised over each group, then SiLU if `silu`.

    Sums are of float32 and added in a fixed order, so that the same input gives the same bits.
    """
    B, C, H, W = x.shape
    S = H * W
    x = x.contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(x, memory_format=torch.channels_last)
    span = 256 if S <= 2**15 else 1024
    splits, across, cg = triton.cdiv(S, span), triton.cdiv(C, CHANNELS), C // groups
    partial = torch.empty(B, splits, 2, C, device=x.device, dtype=torch.float32)
    affine = torch.empty(B, 2, C, device=x.device, dtype=torch.float32)
    _sums[(splits, across, B)](x, partial, S, C, span, ROWS, CHANNELS)
    # Few variants, as each is compiled where it is first met.
    loops, width = triton.next_power_of_2(triton.cdiv(splits, SPLITS)), max(16, triton.next_power_of_2(cg))
    _affine[(groups, B)](partial, weight, bias, affine, splits, S, C, cg, eps, loops, SPLITS, width)
    _apply[(triton.cdiv(S, ROWS), across, B)](x, affine, out, S, C, silu, ROWS, CHANNELS)
    return out


def gate(projected: Tensor) -> Tensor:
    """[..., 2D] -> [..., D]: the first half times the GELU (the exact one) of the second."""
    projected = projected.contiguous()
    D = projected.shape[-1] // 2
    out = projected.new_empty(*projected.shape[:-1], D)
    N = out.numel() // D
    _gate[(triton.cdiv(N, GATED[0]), triton.cdiv(D, GATED[1]))](projected, out, N, D, *GATED)
    return out


def gather_blend(outputs: Tensor, slots: Tensor, index: Tensor, weights: Tensor, base: Tensor | None = None) -> Tensor:
    """As `correspondence.gather_blend`: each keyframe's row is read once and nothing else is written."""
    (F, P, n), d = index.shape, outputs.shape[-1]
    out = outputs.new_empty(F, n, d)
    grid = (triton.cdiv(n, 32), triton.cdiv(d, CHANNELS), F)
    shared = [x.contiguous() for x in (outputs, slots, index, weights.expand(index.shape))]
    added = out if base is None else base.contiguous()
    _gather[grid](*shared, added, out, n, d, P, base is not None, 32, CHANNELS)
    return out
