"""Plain attention by several backends, and the choice among them."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""(queries [B, H, n, d], keys [B, H, m, d], values [B, H, m, e], scale) -> [B, H, n, e]"""

TABLE = 2**19  # entries of a table of weights: 1 MiB


def attend_sdpa(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    # 4-D inputs: torch takes its fast kernels for nothing else.
    return F.scaled_dot_product_attention(query, key, value, scale=scale)


def attend_xformers(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    from xformers.ops import memory_efficient_attention

    heads_last = [rearrange(x, "b h n d -> b n h d") for x in (query, key, value)]
    return rearrange(memory_efficient_attention(*heads_last, scale=scale), "b n h d -> b h n d")


def attend_in_tables(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
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
            weights = torch.bmm(query[some, part], key[some].mT).softmax(-1)
            torch.bmm(weights, value[some], out=result[some, part])
    return result.unflatten(0, (B, H))


def pick_attention(name: str, device: torch.device, dtype: torch.dtype) -> Attend:
    """The backend by name: "sdpa", "xformers", or "auto" (the fastest that runs here)."""
    if name == "auto" and device.type == "cpu" and dtype == torch.bfloat16:
        return attend_in_tables
    if name == "sdpa" or (name == "auto" and device.type != "cuda"):
        return attend_sdpa
    try:
        probe = torch.zeros(1, 1, 8, 8, device=device, dtype=dtype)
        attend_xformers(probe, probe, probe, 1.0)
    except Exception as problem:  # whatever keeps its kernels from running, the answer is the same
        reason = str(problem).strip().splitlines()[0]
        warnings.warn(
            f"xformers cannot run here ({reason}); using torch's attention",
            stacklevel=2,
        )
        return attend_sdpa
    return attend_xformers
