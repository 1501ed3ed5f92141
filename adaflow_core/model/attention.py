"""What every pass of the UNet uses: attention processors for frames and prompts, forward hooks, and an early end.

Context managers install them and restore what was there before: the UNet's own code is untouched.
Layer names are those of `unet.attn_processors` without the trailing ".processor".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from adaflow_core.model.backends import Attend, attend_sdpa
from adaflow_core.team.team import Team

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import Attention

Processor = Callable[..., Tensor]


@dataclass
class PassState:
    """State that all attention layers of a UNet read during a pass."""

    attend: Attend = attend_sdpa
    check: Callable[[], None] = lambda: None  # called in every self-attention layer; raises `Stopped`
    prompts: int | None = None  # in the batch, each for equally many rows; None: one for each row


class FrameAttention:
    """A processor for attn1: every frame attends within itself, as in the plain UNet."""

    def __init__(self, state: PassState) -> None:
        self.state = state

    def __call__(self, attn: Attention, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # [B, n, d]
        self.state.check()
        query, key, value = (
            split_heads(project(hidden_states), attn.heads) for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        return project_out(attn, self.state.attend(query, key, value, attn.scale))


class PromptAttention:
    """A processor for attn2 that computes keys and values once for each prompt instead of each frame."""

    def __init__(self, state: PassState) -> None:
        self.state = state

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:  # [B, n, d], [B, L, c] -> [B, n, d]
        prompts = self.state.prompts or len(hidden_states)
        texts = encoder_hidden_states[:: len(hidden_states) // prompts]  # [prompts, L, c]
        key, value = (split_heads(project(texts), attn.heads) for project in (attn.to_k, attn.to_v))
        # All tokens of a prompt's frames are one long row of queries.
        query = rearrange(attn.to_q(hidden_states), "(p f) n (h d) -> p h (f n) d", p=prompts, h=attn.heads)
        mixed = self.state.attend(query, key, value, attn.scale)
        mixed = rearrange(mixed, "p h (f n) d -> (p f) n (h d)", n=hidden_states.shape[1])
        output: Tensor = attn.to_out[1](attn.to_out[0](mixed))
        return output


def split_heads(projected: Tensor, heads: int) -> Tensor:  # [B, n, H*d] -> [B, H, n, d]
    return rearrange(projected, "b n (h d) -> b h n d", h=heads)


def gather_heads(team: Team, x: Tensor, count: int) -> Tensor:
    """Gather keys or values of all `count` frames: [branches*own, H, n, d] -> [branches*count, H, n, d]."""
    own = len(range(count)[team.own(count)])
    # In the layout of the projection, tokens before heads.
    rows = [rearrange(branch, "k h n d -> k n (h d)") for branch in x.split(own)]
    return split_heads(torch.cat([team.gather(branch, count) for branch in rows]), x.shape[1])


def project_out(attn: Attention, mixed: Tensor) -> Tensor:  # [B, H, n, d] -> [B, n, H*d]
    output: Tensor = attn.to_out[1](attn.to_out[0](rearrange(mixed, "b h n d -> b n (h d)")))
    return output


@contextmanager
def attention_processors(
    unet: UNet2DConditionModel, state: PassState, self_attention: Callable[[str], Processor]
) -> Iterator[None]:
    """Use `self_attention(layer)` in every attn1 layer and `PromptAttention` in every attn2 within the block."""
    before = dict(unet.attn_processors)
    processors = {
        name: self_attention(name.removesuffix(".processor")) if ".attn1." in name else PromptAttention(state)
        for name in before
    }
    unet.set_attn_processor(processors)
    try:
        with _fastest_kernels(unet.device):
            yield
    finally:
        unet.set_attn_processor(before)


@contextmanager
def frame_attention(unet: UNet2DConditionModel, state: PassState) -> Iterator[None]:
    """Let every frame attend within itself, by the state's backend, within the block."""
    with attention_processors(unet, state, lambda _layer: FrameAttention(state)):
        yield


@contextmanager
def _fastest_kernels(device: torch.device) -> Iterator[None]:
    """Prefer cuDNN's attention on a GPU within the block: on an H100 it is a third to twice as fast as the next."""
    if device.type != "cuda":
        yield
        return
    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel(order, set_priority=True):
        yield


class Halt(Exception):
    """Raised in a hook to end a UNet pass early, when the layers after it are not needed."""


@contextmanager
def forward_hook(
    module: nn.Module,
    hook: Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor | None],
) -> Iterator[None]:
    """Install a forward hook within the block."""
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
