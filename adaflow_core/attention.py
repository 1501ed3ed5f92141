"""Self-attention while editing: extended over the kept tokens of all keyframes, or gathered from them.

Installed from outside by a context manager that restores what was there: the UNet's own code is untouched.
Layer names are those of `unet.attn_processors` without the trailing ".processor".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from adaflow_core.attend import Attend, attend_sdpa
from adaflow_core.bounded import HostOutputs
from adaflow_core.correspondence import gather_blend
from adaflow_core.matching import best_match

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import Attention

# Bytes that gathered keys and values may take at a time.
GATHER_BYTES = 512 * 2**20
ROWS = 128  # queries of a head that an attention kernel's block of threads takes
Mode = Literal["own", "keyframes", "propagate"]


@dataclass
class AttentionState:
    """What the processors of one UNet share during one pass; the editor sets it, the processors read it.

    A batch holds its branches one after another: source (where it rides along), then the edit's: negative
    (where there is guidance) and positive. Each branch holds the same frames.
    """

    attend: Attend = attend_sdpa
    gather: Callable[..., Tensor] = gather_blend  # or the kernel that does the same
    check: Callable[[], None] = lambda: None  # the stop signal, looked at in every layer
    mode: Mode = "own"
    source: bool = False  # the batch begins with the source branch
    edits: int = 2  # how many edit branches follow
    prompts: int | None = None  # how many prompts the batch is under, each for as many frames; None: one for each row
    inject: bool = False  # the edit branches take the source branch's queries and keys
    kept: dict[int, Tensor] | None = None  # n -> [K, M] int64; None: keyframes attend to themselves only
    # n -> how many of the kept tokens, the last of each row, stand for how many each
    sampled: dict[int, tuple[int, float]] = field(default_factory=dict)
    slots: Tensor | None = None  # [F, P] int64, places among the keyframes, or among `used` where those are given
    used: list[int] | None = None  # the keyframes that a chunk of frames propagates from, if `host`
    index: dict[int, Tensor] = field(default_factory=dict)  # n -> [F, P, n] int64
    weights: dict[int, Tensor] = field(default_factory=dict)  # n -> [F, P, n]
    keep_outputs: bool = False
    changes: bool = False  # `outputs` holds what the edit changed of the source's outputs, not the outputs themselves
    # Propagate along matches of each layer's own source features (TokenFlow), not along `index`.
    # This and `changes` need the source branch where frames propagate.
    match: bool = False
    outputs: dict[str, Tensor] = field(default_factory=dict)  # layer -> [edits, K, n, d], of this step
    host: HostOutputs | None = None  # where `outputs` lie in low memory; None: on the device
    key_tokens: dict[str, Tensor] = field(default_factory=dict)  # layer -> [K, n, c] unit rows, if `match`


def is_injected_layer(layer: str) -> bool:
    """Plug-and-Play (arXiv 2211.12572) injects in the decoder: up block 1 from its second transformer on."""
    parts = layer.split(".")
    if parts[0] != "up_blocks":
        return False
    return (int(parts[1]), int(parts[3])) >= (1, 1)


class SelfAttention:
    """The attn1 processor of one layer."""

    def __init__(self, state: AttentionState, layer: str) -> None:
        self.state, self.layer = state, layer
        self.injected = is_injected_layer(layer)

    def __call__(
        self, attn: Attention, hidden_states: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:  # [B, n, d] -> [B, n, d]
        state = self.state
        state.check()
        if state.mode == "propagate":
            return self._propagate(attn, hidden_states)
        if state.mode == "own":
            return self._own(attn, hidden_states)
        mixed = self._keyframes(attn, hidden_states)
        output: Tensor = attn.to_out[1](attn.to_out[0](rearrange(mixed, "b h n d -> b n (h d)")))
        if state.keep_outputs:
            branches = output.unflatten(0, (state.edits + state.source, -1))
            edited = branches[-state.edits :]
            kept = edited - branches[0] if state.changes else edited
            state.outputs[self.layer] = kept if state.host is None else state.host.keep(self.layer, kept)
            if state.match:
                state.key_tokens[self.layer] = F.normalize(hidden_states[: branches.shape[1]], dim=-1)
        return output

    def _own(self, attn: Attention, hidden_states: Tensor) -> Tensor:  # [B, n, d] -> [B, n, d]
        """Every frame within itself, as the UNet does by itself."""
        query, key, value = (
            _split(project(hidden_states), attn.heads) for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        mixed = self.state.attend(query, key, value, attn.scale)
        output: Tensor = attn.to_out[1](attn.to_out[0](rearrange(mixed, "b h n d -> b n (h d)")))
        return output

    def _propagate(self, attn: Attention, hidden_states: Tensor) -> Tensor:  # [B, n, d] -> [B, n, d]
        """The source branch within its own frames, the edit branches gathered: of those nothing is projected."""
        state, n = self.state, hidden_states.shape[1]
        assert state.slots is not None
        source = hidden_states[: len(state.slots)] if state.source else None
        parts = [] if source is None else [self._own(attn, source)]
        if state.match:
            assert source is not None
            index = self._matches(F.normalize(source, dim=-1))
        else:
            index = state.index[n]
        outputs = state.outputs[self.layer]
        if state.host is not None:
            assert state.used is not None
            outputs = state.host.fetch(outputs, state.used, hidden_states.device)
        for kept in outputs:  # branches share the correspondence
            base = parts[0] if state.changes else None
            parts.append(state.gather(kept, state.slots, index, state.weights[n], base))
        return torch.cat(parts)

    def _matches(self, tokens: Tensor) -> Tensor:  # [F, n, c] -> [F, P, n]
        """The tokens of the keyframes in the slots that this layer's source features are nearest to."""
        state, keys = self.state, self.state.key_tokens[self.layer]
        assert state.slots is not None
        if state.used is not None:
            keys = keys[state.used]
        return torch.stack([best_match(tokens, keys[slot])[1] for slot in state.slots.unbind(1)], dim=1)

    def _keyframes(self, attn: Attention, hidden_states: Tensor) -> Tensor:
        """[B, H, n, d]: the source branch within its own frames, the edit branches over the kept tokens."""
        state = self.state
        K = len(hidden_states) // (state.edits + state.source)
        shared = state.inject and self.injected
        projected = hidden_states[:K] if shared else hidden_states
        query, key = (_split(project(projected), attn.heads) for project in (attn.to_q, attn.to_k))
        value = _split(attn.to_v(hidden_states), attn.heads)
        parts = []
        if state.source:
            parts.append(state.attend(query[:K], key[:K], value[:K], attn.scale))
            value = value[K:]
            if not shared:
                query, key = query[K:], key[K:]
        kept = None if state.kept is None else state.kept[hidden_states.shape[1]]
        sampled = state.sampled.get(hidden_states.shape[1], (0, 1.0))
        parts.append(extended_attention(query, key, value, K, kept, state.attend, attn.scale, state.check, *sampled))
        return torch.cat(parts)


def _split(projected: Tensor, heads: int) -> Tensor:  # [B, n, H*d] -> [B, H, n, d]
    return rearrange(projected, "b n (h d) -> b h n d", h=heads)


class PromptAttention:
    """The attn2 processor of one layer: keys and values are computed once for each prompt, not once for each frame."""

    def __init__(self, state: AttentionState) -> None:
        self.state = state

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:  # [B, n, d], [B, L, c] -> [B, n, d]
        prompts = self.state.prompts or len(hidden_states)
        texts = encoder_hidden_states[:: len(hidden_states) // prompts]  # [prompts, L, c]
        key, value = (_split(project(texts), attn.heads) for project in (attn.to_k, attn.to_v))
        # All tokens of a prompt's frames are one long row of queries.
        query = rearrange(attn.to_q(hidden_states), "(p f) n (h d) -> p h (f n) d", p=prompts, h=attn.heads)
        mixed = self.state.attend(query, key, value, attn.scale)
        mixed = rearrange(mixed, "p h (f n) d -> (p f) n (h d)", n=hidden_states.shape[1])
        output: Tensor = attn.to_out[1](attn.to_out[0](mixed))
        return output


def extended_attention(
    query: Tensor,  # [K, H, n, d] shared by all branches, or [branches*K, H, n, d]
    key: Tensor,  # as query
    value: Tensor,  # [branches*K, H, n, d]
    K: int,
    kept: Tensor | None,  # [K, M] indices into the K*n tokens; None: own tokens only
    attend: Attend,
    scale: float,
    check: Callable[[], None] = lambda: None,
    sampled: int = 0,  # how many kept tokens, the last of each row,
    mass: float = 1.0,  # count for how many each
) -> Tensor:
    """[branches*K, H, n, d]: every keyframe's queries over its kept tokens of all keyframes of the same branch.

    No more than `GATHER_BYTES` of keys and values are materialised at a time.
    """
    copies = len(value) // len(query)
    if kept is None:
        return attend(query.repeat(copies, 1, 1, 1), key.repeat(copies, 1, 1, 1), value, scale)
    M = kept.shape[1]
    _, H, n, d = value.shape
    whole = K * n == M  # unpruned: every keyframe sees the same tokens, nothing is gathered
    # By token, not by head: a token's heads lie together, so that longer rows are read, and nothing is copied here.
    flat = lambda x: rearrange(x, "k h n d -> (k n) h d")  # noqa: E731
    result = torch.empty_like(value)
    room = max(1, GATHER_BYTES // (2 * M * H * d * value.element_size()))
    chunk = min(room, K)
    if value.is_cuda:
        processors = torch.cuda.get_device_properties(value.device).multi_processor_count
        chunk = _full_waves(chunk, H * -(-n // ROWS), processors)
    for first in range(0, len(value), K):
        own = slice(first % len(query), first % len(query) + K)  # the branch's own queries, or the shared ones
        keys, values = flat(key[own]), flat(value[first : first + K])
        for start in range(0, K, chunk):
            check()
            part = slice(start, min(start + chunk, K))
            if whole:
                size = part.stop - part.start
                k, v = (rearrange(x, "m h d -> 1 h m d").expand(size, -1, -1, -1) for x in (keys, values))
            else:
                k, v = (rearrange(x[kept[part]], "k m h d -> k h m d") for x in (keys, values))
            mixed = attend(query[own][part], k, v, scale, sampled, mass)
            result[first + start : first + part.stop] = mixed
    return result


def _full_waves(most: int, blocks: int, processors: int) -> int:
    """Of 1 to `most` keyframes a call, of so many blocks of threads each, how many leave the fewest processors idle.

    A GPU runs a block on each processor at a time; where the last wave of them is nearly empty, a third is lost.
    """
    return max(
        range(1, most + 1), key=lambda k: (round(k * blocks / (-(-k * blocks // processors) * processors), 2), k)
    )


@contextmanager
def editing_attention(unet: UNet2DConditionModel, state: AttentionState) -> Iterator[None]:
    """Every attention layer of the UNet under `state`; what was there is restored on the way out."""
    before = dict(unet.attn_processors)
    processors = {
        name: SelfAttention(state, name.removesuffix(".processor")) if ".attn1." in name else PromptAttention(state)
        for name in before
    }
    unet.set_attn_processor(processors)
    try:
        with _fastest_kernels(unet.device):
            yield
    finally:
        unet.set_attn_processor(before)


@contextmanager
def _fastest_kernels(device: torch.device) -> Iterator[None]:
    """On a GPU cuDNN's attention where it can run: on an H100 it is a third to twice as fast as the next."""
    if device.type != "cuda":
        yield
        return
    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel(order, set_priority=True):
        yield


class Halt(Exception):
    """Ends a UNet pass where nothing after it is needed."""


@contextmanager
def forward_hook(
    module: nn.Module,
    hook: Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor | None],
) -> Iterator[None]:
    """A forward hook for the time of the `with` block."""
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@dataclass
class ConvInjection:
    """Plug-and-Play's feature injection: the source's output of one convolution in the edit branches.

    `mode`: "off"; "record" takes the output and ends the pass there; "stored" puts `features` in every branch;
    "batch" copies the batch's first branch of `branches` over the others.
    """

    mode: str = "off"
    branches: int = 3
    features: Tensor | None = None  # [F, c, h, w]

    def __call__(self, _module: Any, _inputs: Any, output: Tensor) -> Tensor | None:
        if self.mode == "record":
            self.features = output
            raise Halt
        if self.mode == "stored":
            assert self.features is not None
            return torch.cat([self.features] * (len(output) // len(self.features)))  # which keeps the memory layout
        if self.mode == "batch":
            return torch.cat([output[: len(output) // self.branches]] * self.branches)
        return None


def injected_conv(unet: UNet2DConditionModel) -> nn.Module:
    """The convolution whose output Plug-and-Play injects."""
    conv: nn.Module = unet.up_blocks[1].resnets[1].conv2
    return conv
