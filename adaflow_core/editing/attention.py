"""Self-attention while editing: extended over the kept tokens of all keyframes, or gathered from them.

A batch holds its branches one after another: the source's (where it rides along), then the edit's, negative (where
there is guidance) and positive. Each branch holds the same frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from adaflow_core.model.attention import (
    FrameAttention,
    PassState,
    attention_processors,
    gather_heads,
    project_out,
    split_heads,
)
from adaflow_core.model.backends import QUERIES, Attend, full_waves, gather_blend
from adaflow_core.model.memory import HostOutputs
from adaflow_core.planning.matching import best_match
from adaflow_core.team.team import ALONE, Team

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import Attention

GATHER_BYTES = 512 * 2**20  # of gathered keys and values at a time


@dataclass(frozen=True)
class WithinFrames:
    """Every frame attends within itself."""

    prompts: int | None = None  # as in `PassState`


@dataclass(frozen=True)
class KeyframePass:
    """All keyframes at once; the edit's branches attend to the kept tokens of all of them."""

    edits: int = 2  # how many branches of the edit the batch has
    source: bool = False  # the batch begins with the source's branch
    prompts: int | None = None  # as in `PassState`
    match: bool = False  # as in `PropagationPass`
    inject: bool = False  # the edit's branches take the source's queries and keys,
    place: dict[int, Tensor] | None = None  # n -> [K, n] 0..1, but where this is 1; None: everywhere
    keep_outputs: bool = False  # for the frames that are propagated to
    kept: dict[int, Tensor] | None = None  # n -> [K, M] int64; None: keyframes attend to themselves only
    # n -> how many of the kept tokens, the last of each row, stand for how many each
    sample: dict[int, tuple[int, float]] = field(default_factory=dict)
    count: int = 0  # K, the keyframes of all processes together; the batch holds this one's own
    team: Team = ALONE  # the processes


@dataclass(frozen=True)
class PropagationPass:
    """A chunk of frames whose self-attention comes from the keyframes."""

    slots: Tensor  # [F, P] int64, places among the keyframes, or among `used` where those are given
    index: dict[int, Tensor]  # n -> [F, P, n] int64
    weights: dict[int, Tensor]  # n -> [F, P, n]
    source: bool = False  # the batch begins with the source's branch
    prompts: int | None = None  # as in `PassState`
    # Propagate along matches of each layer's own source features (TokenFlow), not along `index`. This needs the
    # source's branch, and keyframes that were passed with `match` too.
    match: bool = False
    used: list[int] | None = None  # the keyframes that the chunk takes from, where their outputs are the host's


@dataclass
class EditState(PassState):
    """What the processors of one edit share: its fixed parts, the pass at hand, and the keyframes' outputs.

    `at` and `prompts` are set by `during`, for one pass.
    """

    gather: Callable[..., Tensor] = gather_blend  # or the kernel that does the same
    # `outputs` holds what the edit changed of the source's outputs, not the outputs themselves. This needs the source's
    # branch where frames propagate.
    changes: bool = False
    host: HostOutputs | None = None  # where `outputs` lie in low memory; None: on the device
    at: KeyframePass | PropagationPass | WithinFrames = WithinFrames()
    outputs: dict[str, Tensor] = field(default_factory=dict)  # layer -> [edits, K, n, d], of this step
    key_tokens: dict[str, Tensor] = field(default_factory=dict)  # layer -> [K, n, c] unit rows, of passes with `match`

    @contextmanager
    def during(self, at: KeyframePass | PropagationPass | WithinFrames) -> Iterator[None]:
        """Within the block, the UNet's passes are `at`."""
        before = self.at, self.prompts
        self.at, self.prompts = at, at.prompts
        try:
            yield
        finally:
            self.at, self.prompts = before

    def forget(self) -> None:
        """Drops the keyframes' outputs and tokens, after a step."""
        self.outputs.clear()
        self.key_tokens.clear()


def is_injected_layer(layer: str) -> bool:
    """Plug-and-Play (arXiv 2211.12572) injects in the decoder: up block 1 from its second transformer on."""
    parts = layer.split(".")
    if parts[0] != "up_blocks":
        return False
    return (int(parts[1]), int(parts[3])) >= (1, 1)


class EditAttention:
    """The attn1 processor of one layer."""

    def __init__(self, state: EditState, layer: str) -> None:
        self.state, self.layer = state, layer
        self.injected = is_injected_layer(layer)
        self.own = FrameAttention(state)

    def __call__(
        self, attn: Attention, hidden_states: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:  # [B, n, d] -> [B, n, d]
        self.state.check()
        at = self.state.at
        if isinstance(at, KeyframePass):
            return self._keyframes(attn, hidden_states, at)
        if isinstance(at, PropagationPass):
            return self._propagate(attn, hidden_states, at)
        return self.own(attn, hidden_states)

    def _keyframes(self, attn: Attention, hidden_states: Tensor, at: KeyframePass) -> Tensor:  # [B, n, d] -> [B, n, d]
        """The source's branch within its own frames, the edit's over the kept tokens."""
        state = self.state
        output = project_out(attn, self._extended(attn, hidden_states, at))
        if at.keep_outputs:
            branches = output.unflatten(0, (at.edits + at.source, -1))
            edited = branches[-at.edits :]
            kept = edited - branches[0] if state.changes else edited
            if at.team.size > 1:
                kept = torch.stack([at.team.gather(branch, at.count) for branch in kept])
            state.outputs[self.layer] = kept if state.host is None else state.host.keep(self.layer, kept)
            if at.match:
                tokens = F.normalize(hidden_states[: branches.shape[1]], dim=-1)
                state.key_tokens[self.layer] = at.team.gather(tokens, at.count)
        return output

    def _extended(self, attn: Attention, hidden_states: Tensor, at: KeyframePass) -> Tensor:  # -> [B, H, n, d]
        state, n = self.state, hidden_states.shape[1]
        K = len(hidden_states) // (at.edits + at.source)
        injected = at.inject and self.injected
        shared = injected and at.place is None
        projected = hidden_states[:K] if shared else hidden_states
        query, key = (split_heads(project(projected), attn.heads) for project in (attn.to_q, attn.to_k))
        value = split_heads(attn.to_v(hidden_states), attn.heads)
        parts = []
        if at.source:
            parts.append(state.attend(query[:K], key[:K], value[:K], attn.scale))
            value = value[K:]
            if not shared:
                before, query, key = (query[:K], key[:K]), query[K:], key[K:]
                if injected and at.place is not None:
                    inside = at.place[n][:, None, :, None].to(query.dtype).repeat(at.edits, 1, 1, 1)
                    query, key = (
                        torch.lerp(old.repeat(at.edits, 1, 1, 1), new, inside)
                        for old, new in zip(before, (query, key), strict=True)
                    )
        kept = None if at.kept is None else at.kept[n]
        if kept is not None and at.team.size > 1:
            kept = kept[at.team.own(at.count)]
            key, value = (gather_heads(at.team, x, at.count) for x in (key, value))
            K = at.count
        sample = at.sample.get(n, (0, 1.0))
        parts.append(extended_attention(query, key, value, K, kept, state.attend, attn.scale, state.check, *sample))
        return torch.cat(parts)

    def _propagate(
        self, attn: Attention, hidden_states: Tensor, at: PropagationPass
    ) -> Tensor:  # [B, n, d] -> [B, n, d]
        """The source's branch attends within its own frames; the edit's are gathered without any projection."""
        state, n = self.state, hidden_states.shape[1]
        source = hidden_states[: len(at.slots)] if at.source else None
        parts = [] if source is None else [self.own(attn, source)]
        index = at.index[n]
        if at.match:
            assert source is not None
            index = self._matches(F.normalize(source, dim=-1), at)
        outputs = state.outputs[self.layer]
        if state.host is not None:
            assert at.used is not None
            outputs = state.host.fetch(outputs, at.used, hidden_states.device)
        for kept in outputs:  # branches share the correspondence
            base = parts[0] if state.changes else None
            parts.append(state.gather(kept, at.slots, index, at.weights[n], base))
        return torch.cat(parts)

    def _matches(self, tokens: Tensor, at: PropagationPass) -> Tensor:  # [F, n, c] -> [F, P, n]
        """The tokens of the keyframes in the slots that this layer's source features are nearest to."""
        keys = self.state.key_tokens[self.layer]
        if at.used is not None:
            keys = keys[at.used]
        return torch.stack([best_match(tokens, keys[slot])[1] for slot in at.slots.unbind(1)], dim=1)


def extended_attention(
    query: Tensor,  # [k, H, n, d] shared by all branches, or [branches*k, H, n, d]: of all keyframes or of some
    key: Tensor,  # [K, H, n, d] or [branches*K, H, n, d]
    value: Tensor,  # [branches*K, H, n, d]
    K: int,
    kept: Tensor | None,  # [k, M] indices into the K*n tokens; None: own tokens only
    attend: Attend,
    scale: float,
    check: Callable[[], None] = lambda: None,
    num_sampled: int = 0,  # how many kept tokens, the last of each row,
    sample_weight: float = 1.0,  # count for how many each
) -> Tensor:
    """[branches*k, H, n, d]: every keyframe's queries over its kept tokens of all keyframes of the same branch.

    No more than `GATHER_BYTES` of keys and values are materialised at a time.
    """
    if kept is None:
        copies = len(value) // len(query)
        return attend(query.repeat(copies, 1, 1, 1), key.repeat(copies, 1, 1, 1), value, scale)
    k, M = kept.shape
    _, H, n, d = value.shape
    whole = K * n == M  # unpruned: every keyframe sees the same tokens, nothing is gathered
    # By token, not by head: a token's heads lie together, so that longer rows are read, and nothing is copied here.
    flat = lambda x: rearrange(x, "k h n d -> (k n) h d")  # noqa: E731
    branches = len(value) // K
    result = torch.empty_like(value[: branches * k])
    room = max(1, GATHER_BYTES // (2 * M * H * d * value.element_size()))
    chunk = min(room, k)
    if value.is_cuda:
        processors = torch.cuda.get_device_properties(value.device).multi_processor_count
        chunk = full_waves(chunk, H * -(-n // QUERIES), processors)
    for branch in range(branches):
        # The branch's own queries and keys, or the shared ones.
        queries = query[branch * k % len(query) :]
        keys, values = flat(key[branch * K % len(key) :][:K]), flat(value[branch * K :][:K])
        for start in range(0, k, chunk):
            check()
            part = slice(start, min(start + chunk, k))
            if whole:
                size = part.stop - part.start
                there, what = (rearrange(x, "m h d -> 1 h m d").expand(size, -1, -1, -1) for x in (keys, values))
            else:
                there, what = (rearrange(x[kept[part]], "k m h d -> k h m d") for x in (keys, values))
            mixed = attend(queries[part], there, what, scale, num_sampled, sample_weight)
            result[branch * k + start : branch * k + part.stop] = mixed
    return result


@contextmanager
def editing_attention(unet: UNet2DConditionModel, state: EditState) -> Iterator[None]:
    """Every attention layer of the UNet under `state`, for the time of the block."""
    with attention_processors(unet, state, lambda layer: EditAttention(state, layer)):
        yield
