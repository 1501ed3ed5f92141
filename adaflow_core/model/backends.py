"""Attention by several backends, and the choice among them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from adaflow_core.errors import first_line


class Attend(Protocol):
    """(queries [B, H, n, d], keys [B, H, m, d], values [B, H, m, e], scale) -> [B, H, n, e]

    The last `num_sampled` keys count for `sample_weight` keys each.
    """

    __name__: str

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float, num_sampled: int = 0, sample_weight: float = 1.0
    ) -> Tensor: ...


WithSums = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]


"""(queries, keys, values, scale) -> the attention and, of each query, the logarithm of its weights' sum [B, H, n]"""


TABLE = 2**19  # entries of a table of attention weights: 1 MiB in bfloat16
# For up to this many keys flash attention is used instead of cuDNN's, torch's first choice: cuDNN makes a plan for each
# new shape, which takes 40 ms on an H200, and a call on few keys gains at most 0.1 ms.
FEW_KEYS = 512
# Torch's attention operators for a GPU, the fastest first.
_OPERATORS = "cudnn", "flash", "efficient"


def attend_sdpa(
    query: Tensor, key: Tensor, value: Tensor, scale: float, num_sampled: int = 0, sample_weight: float = 1.0
) -> Tensor:
    if num_sampled and query.is_cuda:
        # A mask would keep the fast kernels from running.
        with_sums = _with_sums(_OPERATORS, query.device, query.dtype, query.shape[-1])
        if with_sums is not None:
            return attend_in_parts(with_sums, query, key, value, scale, num_sampled, sample_weight)
    if query.is_cuda and not num_sampled and key.shape[2] <= FEW_KEYS:
        with_sums = _with_sums(("flash",), query.device, query.dtype, query.shape[-1])
        if with_sums is not None:
            return with_sums(query, key, value, scale)[0]
    mask = None
    if num_sampled:
        mask = query.new_zeros(1, 1, 1, key.shape[2])
        mask[..., -num_sampled:] = math.log(sample_weight)
    # Torch has fast kernels for 4-D inputs only.
    return F.scaled_dot_product_attention(query, key, value, mask, scale=scale)


def attend_xformers(
    query: Tensor, key: Tensor, value: Tensor, scale: float, num_sampled: int = 0, sample_weight: float = 1.0
) -> Tensor:
    from xformers.ops import memory_efficient_attention

    if num_sampled:
        return attend_in_parts(_xformers_with_sums, query, key, value, scale, num_sampled, sample_weight)
    heads_last = [rearrange(x, "b h n d -> b n h d") for x in (query, key, value)]
    return rearrange(memory_efficient_attention(*heads_last, scale=scale), "b n h d -> b h n d")


def attend_in_parts(
    with_sums: WithSums, query: Tensor, key: Tensor, value: Tensor, scale: float, num_sampled: int, sample_weight: float
) -> Tensor:
    """Compute attention over the sampled keys and over the others, and join them by the sums of their weights.

    So any kernel that returns these sums can weight keys, at no more cost than unweighted attention.
    """
    single, single_sum = with_sums(query, key[:, :, :-num_sampled], value[:, :, :-num_sampled], scale)
    many, many_sum = with_sums(query, key[:, :, -num_sampled:], value[:, :, -num_sampled:], scale)
    share = torch.sigmoid(many_sum + math.log(sample_weight) - single_sum)  # of the sampled keys in all weight
    return torch.lerp(single, many, share.to(single.dtype)[..., None])


def _xformers_with_sums(query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    from xformers.ops.fmha import memory_efficient_attention_forward_requires_grad

    heads_last = [rearrange(x, "b h n d -> b n h d") for x in (query, key, value)]
    result, sums = memory_efficient_attention_forward_requires_grad(*heads_last, scale=scale)
    return rearrange(result, "b n h d -> b h n d"), sums[..., : query.shape[2]]  # some kernels pad their sums


def _torch_with_sums(operator: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Attention by one of the operators behind torch's public function, as only these return the sums."""
    arguments = {argument.name for argument in operator.default._schema.arguments}
    asked = {"attn_bias": None, "compute_log_sumexp": True}
    result, sums = operator(query, key, value, **{k: v for k, v in asked.items() if k in arguments}, scale=scale)[:2]
    return result, sums.reshape(*query.shape[:2], -1)[..., : query.shape[2]]


@cache
def _with_sums(names: tuple[str, ...], device: torch.device, dtype: torch.dtype, width: int) -> WithSums | None:
    """Return the first of the named operators that runs here and agrees with the plain formula; None if none does."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, n, width, generator=generator) for n in (40, 72, 72))
    expected = attend_sdpa(query, key, value, width**-0.5, 48, 3.0)
    for name in names:
        with_sums = partial(_torch_with_sums, getattr(torch.ops.aten, f"_scaled_dot_product_{name}_attention"))
        try:
            query, key, value = (x.to(device, dtype) for x in (query, key, value))
            found = attend_in_parts(with_sums, query, key, value, width**-0.5, 48, 3.0)
            torch.testing.assert_close(found.float().cpu(), expected, rtol=0.03, atol=0.03)
        except Exception:  # whatever the reason, the next operator is tried
            continue
        return with_sums
    return None


def attend_in_tables(
    query: Tensor, key: Tensor, value: Tensor, scale: float, num_sampled: int = 0, sample_weight: float = 1.0
) -> Tensor:
    """Attention as two matrix products around a table of weights that stays in the processor's cache.

    For a CPU in bfloat16: torch's fused kernel there takes twice the time, since it does not use the processor's
    own bfloat16 products. Weights are rounded to bfloat16, an error of 0.5 % of the output against 0.2 %.
    """
    B, H, n, _ = query.shape
    m = key.shape[2]
    query, key, value = (x.reshape(B * H, -1, x.shape[-1]) for x in (query * scale, key, value))
    result = value.new_empty(B * H, n, value.shape[-1])
    rows = min(n, max(128, TABLE // m))
    heads = max(1, TABLE // (rows * m))
    for first in range(0, B * H, heads):
        some = slice(first, first + heads)
        for start in range(0, n, rows):
            part = slice(start, start + rows)
            logits = torch.bmm(query[some, part], key[some].mT)
            if num_sampled:
                logits[..., -num_sampled:] += math.log(sample_weight)
            torch.bmm(logits.softmax(-1), value[some], out=result[some, part])
    return result.unflatten(0, (B, H))


def pick_attention(name: str, device: torch.device, dtype: torch.dtype) -> Attend:
    """Return the backend "sdpa" or "xformers", or for "auto" the fastest that runs here."""
    if name == "auto" and device.type == "cpu" and dtype == torch.bfloat16:
        return attend_in_tables
    if name == "sdpa" or (name == "auto" and (device.type != "cuda" or _has_fast_cudnn(device))):
        return attend_sdpa
    try:
        probe = torch.zeros(1, 1, 8, 8, device=device, dtype=dtype)
        attend_xformers(probe, probe, probe, 1.0)
        attend_xformers(probe, probe, probe, 1.0, 4, 2.0)
    except Exception as problem:  # whatever the reason, torch's attention is used
        warnings.warn(f"xformers cannot run here ({first_line(problem)}); using torch's attention", stacklevel=2)
        return attend_sdpa
    return attend_xformers


def _has_fast_cudnn(device: torch.device) -> bool:
    """Whether the GPU is of Hopper or later, where torch has cuDNN's attention.

    On an H100 it is a third to twice as fast as flash attention, which xformers uses unless it has flash_attn_3.
    """
    return torch.cuda.get_device_capability(device) >= (9, 0)


def gather_blend(
    outputs: Tensor,  # [K, n, d]
    slots: Tensor,  # [F, P] int64
    index: Tensor,  # [F, P, n] int64
    weights: Tensor,  # [F, P, n]
    base: Tensor | None = None,  # [F, n, d]
) -> Tensor:
    """Return [F, n, d]: for each token the weighted mean of its corresponding keyframe tokens, plus `base`."""
    parts = [
        outputs[slots[:, p, None], index[:, p]] * weights[:, p, :, None].to(outputs.dtype)  # [F, n, d]
        for p in range(slots.shape[1])
    ]
    blended = parts[0] if len(parts) == 1 else parts[0].add_(parts[1])
    return blended if base is None else blended + base


QUERIES = 128  # queries of a head that one block of threads of an attention kernel takes


def full_waves(most: int, blocks: int, processors: int) -> int:
    """Return the number of keyframes per call, 1 to `most`, that leaves the fewest of the GPU's `processors` idle.

    A keyframe has `blocks` blocks of threads. Each processor runs one at a time, in waves; a nearly empty last wave can
    cost a third of the time.
    """
    return max(
        range(1, most + 1), key=lambda k: (round(k * blocks / (-(-k * blocks // processors) * processors), 2), k)
    )
