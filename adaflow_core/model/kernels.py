"""Triton kernels for what a UNet does between its matrix products and convolutions, on channels-last pictures.

Torch's group normalisation needs contiguous pictures, so every norm between two convolutions transposes the picture and
back; the activation, each bias and each sum read and write it once more. These kernels read and write a picture once
where torch does so three times. They add the biases too: a product of 320 columns takes twice as long if cuBLAS adds
one. `fused.py` imports this module where Triton is installed.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 32  # pixels that a program holds at a time ...
CHANNELS = 64  # ... and their channels: 128 bytes of a row in half precision
SPLITS = 32  # partial sums that are added at a time
GATED = (8, 256)  # rows and columns that a program of the gate writes
NORMED = 4096  # entries that a program of the normalisation of rows holds


@triton.jit
def _sums(x, partial, S, C, span: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write sums and sums of squares of `span` pixels, by channel, to `partial` [B, splits, 2, C] float32."""
    split, b = tl.program_id(0), tl.program_id(2)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    picture = x + b.to(tl.int64) * S * C
    # Added elementwise, and over the rows only at the end: a sum over rows synchronises all threads.
    total = tl.zeros((ROWS, CHANNELS), dtype=tl.float32)
    squares = tl.zeros((ROWS, CHANNELS), dtype=tl.float32)
    for first in range(0, span, ROWS):
        rows = split * span + first + tl.arange(0, ROWS)
        inside = (rows < S)[:, None] & (channels < C)[None, :]
        values = tl.load(picture + rows[:, None] * C + channels[None, :], mask=inside, other=0.0).to(tl.float32)
        total += values
        squares += values * values
    place = partial + ((b * tl.num_programs(0) + split) * 2).to(tl.int64) * C + channels
    tl.store(place, tl.sum(total, axis=0), mask=channels < C)
    tl.store(place + C, tl.sum(squares, axis=0), mask=channels < C)


@triton.jit(do_not_specialize=["splits"])
def _affine(  # type: ignore[no-untyped-def]
    partial, weight, bias, shift, affine, splits, S, C, cg, eps, shift_stride,
    SHIFT: tl.constexpr, LOOPS: tl.constexpr, SPLITS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write the factor and the summand of each of a group's `cg` channels to `affine` [B, 2, C] float32.

    What is normalised is the picture plus `shift`, a value for each channel; `partial` is of the picture alone.
    """
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
    added = tl.zeros((WIDTH,), dtype=tl.float32)
    if SHIFT:
        added += tl.load(shift + b * shift_stride + channels, mask=own < cg, other=0.0).to(tl.float32)
        squares += added * (2.0 * total + S * added)
        total += S * added
    count = (cg * S) * 1.0
    mean = tl.sum(total, axis=0) / count
    variance = tl.maximum(tl.sum(squares, axis=0) / count - mean * mean, 0.0)
    inverse = 1.0 / tl.sqrt(variance + eps)
    factor = tl.load(weight + channels, mask=own < cg, other=0.0).to(tl.float32) * inverse
    summand = tl.load(bias + channels, mask=own < cg, other=0.0).to(tl.float32) + factor * (added - mean)
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
def _add(a, b, bias, out, N, C, ROWS: tl.constexpr, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (rows < N)[:, None] & (channels < C)[None, :]
    offsets = rows[:, None] * C + channels[None, :]
    total = tl.load(a + offsets, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(b + offsets, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(bias + channels, mask=channels < C, other=0.0).to(tl.float32)[None, :]
    tl.store(out + offsets, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _enlarge(x, out, H, W, C, height, width, ROWS: tl.constexpr, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]
    b = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)  # pixels of the result
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (rows < height * width)[:, None] & (channels < C)[None, :]
    there = rows // width * H // height * W + rows % width * W // width
    values = tl.load(x + b * H * W * C + there[:, None] * C + channels[None, :], mask=inside, other=0.0)
    tl.store(out + b * height * width * C + rows[:, None] * C + channels[None, :], values, mask=inside)


@triton.jit
def _add_norm(  # type: ignore[no-untyped-def]
    rows_in, added, before, weight, bias, out, N, C, eps, ADDED: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    inside = (rows < N)[:, None] & (columns < C)[None, :]
    offsets = rows[:, None] * C + columns[None, :]
    values = tl.load(rows_in + offsets, mask=inside, other=0.0).to(tl.float32)
    if ADDED:
        values += tl.load(added + offsets, mask=inside, other=0.0).to(tl.float32)
    values += tl.load(before + columns, mask=columns < C, other=0.0).to(tl.float32)[None, :]
    total = values.to(out.dtype.element_ty)
    tl.store(rows_in + offsets, total, mask=inside)
    values = total.to(tl.float32)  # normalise the sum as it was rounded for `rows_in`
    mean = tl.sum(values, axis=1) / C
    centred = tl.where(inside, values - mean[:, None], 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=1) / C + eps)
    factor = tl.load(weight + columns, mask=columns < C, other=0.0).to(tl.float32)
    summand = tl.load(bias + columns, mask=columns < C, other=0.0).to(tl.float32)
    normed = centred * inverse[:, None] * factor[None, :] + summand[None, :]
    tl.store(out + offsets, normed.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _gate(x, bias, out, N, D, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # type: ignore[no-untyped-def]
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows < N)[:, None] & (columns < D)[None, :]
    offsets = rows[:, None] * 2 * D + columns[None, :]
    hidden = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(x + offsets + D, mask=inside, other=0.0).to(tl.float32)
    hidden += tl.load(bias + columns, mask=columns < D, other=0.0).to(tl.float32)[None, :]
    gate += tl.load(bias + D + columns, mask=columns < D, other=0.0).to(tl.float32)[None, :]
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


def group_norm(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool, shift: Tensor | None = None
) -> Tensor:
    """Normalise [B, C, H, W], channels-last as the result is, over each group; then SiLU if `silu`.

    `shift` [B or 1, C] is added first. Sums are float32 and added in a fixed order, so the same input gives the same
    bits.
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
    # Powers of two keep the variants few: each is compiled at its first use.
    loops, width = triton.next_power_of_2(triton.cdiv(splits, SPLITS)), max(16, triton.next_power_of_2(cg))
    added, stride = (bias, 0) if shift is None else (shift.contiguous(), C if len(shift) > 1 else 0)
    _affine[(groups, B)](
        partial, weight, bias, added, affine, splits, S, C, cg, eps, stride, shift is not None, loops, SPLITS, width
    )
    _apply[(triton.cdiv(S, ROWS), across, B)](x, affine, out, S, C, silu, ROWS, CHANNELS)
    return out


def add(a: Tensor, b: Tensor, bias: Tensor) -> Tensor:
    """Return the sum of two pictures [B, C, H, W] and of `bias` [C], channels-last."""
    a, b = (x.contiguous(memory_format=torch.channels_last) for x in (a, b))
    out = torch.empty_like(a, memory_format=torch.channels_last)
    C = a.shape[1]
    N = a.numel() // C
    _add[(triton.cdiv(N, ROWS), triton.cdiv(C, CHANNELS))](a, b, bias, out, N, C, ROWS, CHANNELS)
    return out


def enlarge(x: Tensor, height: int, width: int) -> Tensor:
    """Enlarge [B, C, H, W] channels-last to [B, C, height, width] by nearest neighbours, as torch's "nearest"."""
    B, C, H, W = x.shape
    x = x.contiguous(memory_format=torch.channels_last)
    out = torch.empty(B, C, height, width, device=x.device, dtype=x.dtype, memory_format=torch.channels_last)
    grid = (triton.cdiv(height * width, ROWS), triton.cdiv(C, CHANNELS), B)
    _enlarge[grid](x, out, H, W, C, height, width, ROWS, CHANNELS)
    return out


def add_norm(rows: Tensor, added: Tensor | None, before: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Add `added` and `before` [C] to `rows` [..., C] in place, and return the layer norm of each row."""
    assert rows.is_contiguous()
    out = torch.empty_like(rows)
    C = rows.shape[-1]
    N, width = rows.numel() // C, triton.next_power_of_2(C)
    here = max(1, NORMED // width)
    other = rows if added is None else added.contiguous()
    _add_norm[(triton.cdiv(N, here),)](
        rows, other, before, weight, bias, out, N, C, eps, added is not None, here, width
    )
    return out


def gate(projected: Tensor, bias: Tensor) -> Tensor:
    """GEGLU, [..., 2D] and [2D] -> [..., D]: the first half of their sum times the exact GELU of the second."""
    projected = projected.contiguous()
    D = projected.shape[-1] // 2
    out = projected.new_empty(*projected.shape[:-1], D)
    N = out.numel() // D
    _gate[(triton.cdiv(N, GATED[0]), triton.cdiv(D, GATED[1]))](projected, bias, out, N, D, *GATED)
    return out


def gather_blend(outputs: Tensor, slots: Tensor, index: Tensor, weights: Tensor, base: Tensor | None = None) -> Tensor:
    """As `backends.gather_blend`, without intermediate results in memory."""
    (F, P, n), d = index.shape, outputs.shape[-1]
    out = outputs.new_empty(F, n, d)
    grid = (triton.cdiv(n, 32), triton.cdiv(d, CHANNELS), F)
    shared = [x.contiguous() for x in (outputs, slots, index, weights.expand(index.shape))]
    added = out if base is None else base.contiguous()
    _gather[grid](*shared, added, out, n, d, P, base is not None, 32, CHANNELS)
    return out
