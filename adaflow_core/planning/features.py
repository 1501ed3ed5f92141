"""Diffusion features of every frame (DIFT, arXiv 2306.03881), from a UNet pass that stops at the feature block.

The same pass measures the importance of each token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from adaflow_core.model.attention import Halt, PassState, forward_hook, frame_attention
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.ddim import add_noise
from adaflow_core.model.memory import Sent, in_chunks, one_thread, to_device, writing
from adaflow_core.planning.matching import best_match, pool_map
from adaflow_core.progress import Monitor
from adaflow_core.team.team import Team
from adaflow_core.types import Embedding, Features, Grid

WIDTH = 64  # dimensions that features are reduced to
SAMPLE_FRAMES = 8  # frames that the reduction is fitted on


@dataclass
class Capture:
    """What the hooks of one UNet pass record for a chunk of B frames."""

    words: Embedding | None  # the source prompt, if importance by its words is wanted
    block: Tensor | None = None  # [B, c, h, w] output of the feature block
    attention: Tensor | None = None  # [B, m] attention that each token receives from its frame
    prompt: Tensor | None = None  # [B, m] attention of each token to the prompt's words


class _SelfAttentionProbe:
    """Computes a layer's self-attention with explicit weights, to record how much attention each token receives."""

    def __init__(self, capture: Capture) -> None:
        self.capture = capture

    def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        query, key, value = (
            rearrange(project(hidden_states), "b n (h d) -> b h n d", h=attn.heads)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        mixed, received = [], []
        for q, k, v in zip(query, key, value, strict=True):  # a frame at a time: the table is n x n per head
            # Scaled before the product: unscaled logits may overflow half precision.
            share = torch.softmax((q * attn.scale) @ k.mT, dim=-1)
            mixed.append(share @ v)
            received.append(reduce(share.float(), "h n m -> m", "mean"))
        output: Tensor = attn.to_out[0](rearrange(torch.stack(mixed), "b h n d -> b n (h d)"))
        self.capture.attention = torch.stack(received)
        return output


class _CrossAttentionProbe:
    """Leaves cross-attention as it is and records how much each token attends to the source prompt's words."""

    def __init__(self, capture: Capture, inner: Callable[..., Tensor]) -> None:
        self.capture, self.inner = capture, inner

    def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        words = self.capture.words
        if words is not None:
            query = rearrange(attn.to_q(hidden_states), "b n (h d) -> b h n d", h=attn.heads)
            key = rearrange(attn.to_k(words.prompt_embeds), "1 l (h d) -> h l d", h=attn.heads)
            share = torch.softmax(((query * attn.scale) @ key.mT).float(), dim=-1)  # [B, H, n, L]
            mask = torch.from_numpy(words.words).to(share.device)
            self.capture.prompt = share[..., mask].sum(dim=-1).mean(dim=1)
        return self.inner(attn, hidden_states, *args, **kwargs)


@contextmanager
def _capturing(backbone: Backbone, capture: Capture) -> Iterator[None]:
    """Install the hooks of one feature pass; restore the UNet on exit."""
    unet, block = backbone.unet, backbone.profile.feature_block
    before = dict(unet.attn_processors)
    last = len(unet.up_blocks[block].attentions) - 1
    layer = f"up_blocks.{block}.attentions.{last}.transformer_blocks.0"
    changed = dict(before)
    changed[f"{layer}.attn1.processor"] = _SelfAttentionProbe(capture)
    changed[f"{layer}.attn2.processor"] = _CrossAttentionProbe(capture, before[f"{layer}.attn2.processor"])

    def stop(_module: Any, _inputs: Any, output: Tensor) -> None:
        capture.block = output
        raise Halt

    unet.set_attn_processor(changed)
    try:
        with forward_hook(unet.up_blocks[block], stop):
            yield
    finally:
        unet.set_attn_processor(before)


def feature_pass(backbone: Backbone, latents: Tensor, empty: Embedding, capture: Capture) -> Tensor:
    """Return the features [B, n, c] float32 of latents [B, 4, h, w], not yet reduced; fills `capture`."""
    timestep = backbone.profile.feature_timestep
    generator = torch.Generator().manual_seed(0)
    # The same noise for every frame: it must not make frames differ.
    noise = torch.randn(latents.shape[1:], generator=generator).to(latents.device)
    noisy = add_noise(backbone.schedule, latents, noise, timestep)
    shared = frame_attention(backbone.unet, PassState(attend=backbone.attend, prompts=1))
    with shared, _capturing(backbone, capture), suppress(Halt):
        backbone.predict(noisy, timestep, empty.prompt_embeds)
    assert capture.block is not None
    backbone.finite.add("UNet", capture.block)  # as `predict` does for a pass that is not halted
    return rearrange(capture.block, "b c h w -> b (h w) c").float()


def fit_reduction(rows: Tensor, width: int = WIDTH) -> Tensor:
    """Return [c, width], the directions that best keep the dot products of unit rows [R, c] (uncentred PCA)."""
    exact = (rows.cpu() if rows.device.type == "mps" else rows).double()  # Metal has no float64
    gram = (exact.mT @ exact).cpu()  # starting a GPU's solver takes longer than solving this on the CPU
    with one_thread():
        found = torch.linalg.eigh(gram)
    return found.eigenvectors[:, -width:].flip(1).float().to(rows.device)


def match_agreement(tokens: Tensor, reduced: Tensor) -> float:
    """Return the share of the first frame's tokens [F, n, c] whose best matches in the others survive the reduction."""
    if len(tokens) < 2:
        return 1.0
    others = len(tokens) - 1
    _, full = best_match(tokens[:1].expand(others, -1, -1), tokens[1:])
    _, small = best_match(reduced[:1].expand(others, -1, -1), reduced[1:])
    return float((full == small).float().mean())


@dataclass(frozen=True)
class _Reduction:
    """A projection of features to at most `WIDTH` numbers, the same for all frames."""

    mean: Tensor  # [c], subtracted first: what all tokens share does not help to match them
    directions: Tensor | None  # [c, WIDTH]; None: features are narrow enough
    agreement: float  # share of best matches that stay the same

    @classmethod
    def of(cls, raw: Tensor, team: Team) -> _Reduction:
        """Fit the reduction to the features [F, n, c] of some frames; the whole team uses its leader's."""
        mean = raw.mean(dim=(0, 1))
        agreed = team.agree(mean.cpu()).to(raw.device)
        if raw.shape[-1] <= WIDTH:
            return cls(agreed, None, 1.0)
        fitted = F.normalize(raw - mean, dim=-1)
        directions = fit_reduction(fitted.flatten(0, 1))
        agreement = match_agreement(fitted, F.normalize(fitted @ directions, dim=-1))
        return cls(agreed, team.agree(directions.cpu()).to(raw.device), agreement)

    def __call__(self, raw: Tensor) -> Tensor:
        """Reduce features [B, n, c] to unit rows [B, n, min(c, WIDTH)]."""
        rows = F.normalize(raw - self.mean, dim=-1)
        return rows if self.directions is None else F.normalize(rows @ self.directions, dim=-1)


@torch.inference_mode()
def extract_features(
    backbone: Backbone,
    latents: np.ndarray,  # [T, 4, h, w]
    source_prompt: str,
    folder: Path,
    monitor: Monitor,
) -> dict[str, Any]:
    """Write the features of every frame to arrays in `folder`; return the metadata that `load_features` needs."""
    T, _, h, w = latents.shape
    size = w * backbone.factor, h * backbone.factor
    empty = backbone.embed("")
    words = backbone.embed(source_prompt) if source_prompt else None
    device, team = backbone.device, backbone.team
    chunk = max(backbone.chunk_for(*size), backbone.rows())  # a feature pass has one row per frame
    share, size_of_pass = backbone.share(T, chunk)
    own = range(T)[share]

    def run(frame_ids: slice | np.ndarray, capture: Capture) -> Tensor:
        chosen = to_device(latents[frame_ids], device).float()
        return F.normalize(feature_pass(backbone, chosen, empty, capture), dim=-1)

    sample = np.unique(np.linspace(0, T - 1, min(T, SAMPLE_FRAMES)).round().astype(np.int64))
    capture = Capture(words)
    with monitor.stage("features", len(own)) as stage:
        parts: list[Tensor] = []
        in_chunks(len(sample), chunk, lambda part: parts.append(run(sample[part], capture)))
        raw = torch.cat(parts)
        backbone.finite.check()  # before the solver, which fails on values that are not finite
        reduction = _Reduction.of(raw, team)
        assert capture.block is not None and capture.attention is not None
        grid = Grid(*capture.block.shape[-2:])
        # The block's self-attention works on the grid before its upsampling.
        m = capture.attention.shape[1]
        inner = next(g for g in backbone.grids(*size) if g.n == m)

        tokens = team.array(folder / "tokens.npy", np.float16, (T, grid.n, min(raw.shape[-1], WIDTH)))
        kinds = ["uniform", "attention", "distinctive", *(["prompt"] if words else [])]
        importance = {kind: team.array(folder / f"importance_{kind}.npy", np.float32, (T, grid.n)) for kind in kinds}
        importance["uniform"][share] = 1.0
        with ExitStack() as open_arrays:
            put_tokens = open_arrays.enter_context(writing(tokens))
            put = {kind: open_arrays.enter_context(writing(array)) for kind, array in importance.items()}

            def extract(done: slice) -> None:
                part = slice(own.start + done.start, own.start + done.stop)
                rows = reduction(run(part, capture))
                found = _importance(capture, rows, inner, grid)
                put_tokens(part, backbone.send(rows.half()))  # float16, as they are stored
                for kind, values in found.items():
                    put[kind](part, Sent(values))
                stage.advance(len(rows))

            in_chunks(len(own), size_of_pass, extract)
    return {"grid": grid, "importance": kinds, "agreement": reduction.agreement}


def _importance(capture: Capture, rows: Tensor, inner: Grid, grid: Grid) -> dict[str, Tensor]:
    """Return kind -> importance of a pass's tokens [B, n], mean 1 over a frame, still on the device."""
    assert capture.attention is not None
    found = {"attention": pool_map(capture.attention, inner, grid), "distinctive": distinctiveness(rows)}
    if capture.words is not None:
        assert capture.prompt is not None
        found["prompt"] = pool_map(capture.prompt, inner, grid)
    return {kind: x.float() / x.float().mean(dim=-1, keepdim=True).clamp(min=1e-8) for kind, x in found.items()}


def load_features(folder: Path, meta: dict[str, Any]) -> Features:
    """Load the features that `extract_features` wrote to `folder`, memory-mapped."""
    return Features(
        tokens=np.load(folder / "tokens.npy", mmap_mode="r"),
        grid=Grid(*meta["grid"]),
        importance={kind: np.load(folder / f"importance_{kind}.npy", mmap_mode="r") for kind in meta["importance"]},
        agreement=meta["agreement"],
    )


def distinctiveness(tokens: Tensor) -> Tensor:
    """Return [B, n], 1 minus the mean similarity of each token [B, n, c] to the tokens of its frame, at least 0."""
    return (1 - (tokens @ tokens.mean(dim=1)[:, :, None])[..., 0]).clamp(min=0)
