"""Extended and slimmed attention, propagation, and that a UNet is left as it was found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from adaflow_core.editing import attention
from adaflow_core.editing.attention import (
    EditAttention,
    EditState,
    KeyframePass,
    PropagationPass,
    editing_attention,
    extended_attention,
    is_injected_layer,
)
from adaflow_core.model.attention import Halt, forward_hook
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.backends import attend_sdpa, full_waves

SCALE = 0.4


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive(query: Tensor, key: Tensor, value: Tensor, kept: np.ndarray, scale: float = SCALE) -> np.ndarray:
    """One branch [K, H, n, d], one query at a time; `kept` [K, M] indices into the K*n tokens."""
    K, H, n, _ = query.shape
    result = np.empty(value.shape)
    for k, h in np.ndindex(K, H):
        keys = np.concatenate([key[j, h] for j in range(K)])[kept[k]]
        values = np.concatenate([value[j, h] for j in range(K)])[kept[k]]
        for i in range(n):
            share = np.exp(scale * (keys @ query[k, h, i].numpy()))
            result[k, h, i] = share @ values / share.sum()
    return result


def kept_tokens(K: int, n: int, M: int) -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(np.sort([rng.permutation(K * n)[:M] for _ in range(K)]))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("branches", [1, 2])
@pytest.mark.parametrize("M", [1, 7, 14, 15])
@pytest.mark.parametrize("gather_bytes", [2**28, 1, 2 * 7 * 2 * 4 * 8 * 2])
def test_slimmed_attention(
    monkeypatch: pytest.MonkeyPatch, shared: bool, branches: int, M: int, gather_bytes: int
) -> None:
    monkeypatch.setattr(attention, "GATHER_BYTES", gather_bytes)
    K, H, n, d = 3, 2, 5, 4
    rows = K if shared else branches * K
    query, key, value = draw(rows, H, n, d, seed=1), draw(rows, H, n, d, seed=2), draw(branches * K, H, n, d, seed=3)
    kept = kept_tokens(K, n, M)
    result = extended_attention(query, key, value, K, kept, attend_sdpa, SCALE)
    for branch in range(branches):
        own = slice(branch * K, (branch + 1) * K)
        asked = slice(0, K) if shared else own
        expected = naive(query[asked], key[asked], value[own], kept.numpy())
        np.testing.assert_allclose(result[own], expected, atol=1e-12)


@pytest.mark.parametrize("gather_bytes", [2**28, 1])
def test_a_token_of_mass_three_counts_like_three_of_its_kind(
    monkeypatch: pytest.MonkeyPatch, gather_bytes: int
) -> None:
    monkeypatch.setattr(attention, "GATHER_BYTES", gather_bytes)
    K, H, n, d = 3, 2, 5, 4
    query, key, value = (draw(2 * K, H, n, d, seed=seed) for seed in (4, 5, 6))
    kept, repeats = kept_tokens(K, n, 7), torch.tensor([1, 1, 1, 1, 3, 3, 3])
    result = extended_attention(query, key, value, K, kept, attend_sdpa, SCALE, num_sampled=3, sample_weight=3.0)
    for branch in range(2):
        own = slice(branch * K, (branch + 1) * K)
        for q in range(K):
            repeated = kept[q].repeat_interleave(repeats)[None].repeat(K, 1).numpy()
            expected = naive(query[own], key[own], value[own], repeated)[q]
            np.testing.assert_allclose(result[own][q], expected, atol=1e-12)


@pytest.mark.parametrize(("most", "blocks", "best"), [(1, 160, 1), (5, 160, 4), (8, 160, 8), (5, 80, 3), (9, 132, 9)])
def test_calls_leave_few_processors_idle(most: int, blocks: int, best: int) -> None:
    assert full_waves(most, blocks, 132) == best


def test_everything_kept_is_full_extended_attention() -> None:
    K, H, n, d = 3, 2, 5, 4
    query, key, value = (draw(2 * K, H, n, d, seed=seed) for seed in (4, 5, 6))
    everything = torch.arange(K * n).repeat(K, 1)
    result = extended_attention(query, key, value, K, everything, attend_sdpa, SCALE)
    for branch in (slice(0, K), slice(K, 2 * K)):
        # All keyframes of a branch as one long frame.
        long = [x[branch].transpose(0, 1).reshape(H, K * n, d) for x in (query, key, value)]
        share = torch.softmax(SCALE * long[0] @ long[1].mT, dim=-1)
        expected = (share @ long[2]).reshape(H, K, n, d).transpose(0, 1)
        torch.testing.assert_close(result[branch], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shared", [True, False])
def test_without_kept_tokens_a_frame_attends_to_itself(shared: bool) -> None:
    K, H, n, d = 3, 2, 5, 4
    rows = K if shared else 2 * K
    query, key, value = draw(rows, H, n, d, seed=1), draw(rows, H, n, d, seed=2), draw(2 * K, H, n, d, seed=3)
    own = torch.arange(K * n).reshape(K, n)
    result = extended_attention(query, key, value, K, None, attend_sdpa, SCALE)
    expected = extended_attention(query, key, value, K, own, attend_sdpa, SCALE)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("M", [7, 15])
def test_gathered_keys_and_values_keep_within_their_bytes(monkeypatch: pytest.MonkeyPatch, M: int) -> None:
    K, H, n, d = 3, 2, 5, 4
    query, key, value = (draw(2 * K, H, n, d, seed=seed) for seed in (4, 5, 6))
    monkeypatch.setattr(attention, "GATHER_BYTES", 2 * 2 * M * H * d * 8)  # two keyframes' worth
    sizes, checks = [], []

    def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, *_: float) -> Tensor:
        sizes.append(len(k))
        return attend_sdpa(q, k, v, scale)

    extended_attention(query, key, value, K, kept_tokens(K, n, M), attend, SCALE, lambda: checks.append(1))
    assert sizes == [2, 1, 2, 1] and len(checks) == 4


def test_tokenflow_takes_from_the_tokens_that_the_layer_itself_finds_alike() -> None:
    layer, F, K, n, c = "up_blocks.1.attentions.0.transformer_blocks.0.attn1", 2, 3, 5, 4
    outputs = draw(2, K, n, 6, seed=1)
    unit = lambda x: x / x.norm(dim=-1, keepdim=True)  # noqa: E731
    keys, tokens = unit(draw(K, n, c, seed=2)), unit(draw(F, n, c, seed=3))
    slots, weights = torch.tensor([[0, 1], [1, 2]]), torch.tensor([[0.7, 0.3], [0.4, 0.6]]).double()
    at = PropagationPass(slots, {n: torch.empty(0)}, {n: weights[:, :, None]}, source=True, match=True)
    state = EditState(at=at)
    state.outputs[layer], state.key_tokens[layer] = outputs, keys
    attn = Attention(query_dim=c, heads=2, dim_head=3, out_dim=6).double()
    source = 3 * tokens  # what counts is the direction
    found = EditAttention(state, layer)(attn, torch.cat([source, draw(2 * F, n, c, seed=4)]))
    torch.testing.assert_close(found[:F], attn(source), rtol=0, atol=1e-12)
    found = found[F:]
    for branch, f, i in np.ndindex(2, F, n):
        expected = torch.zeros(6).double()
        for p in range(2):
            nearest = int(np.argmax([float(tokens[f, i] @ keys[slots[f, p], j]) for j in range(n)]))
            expected += weights[f, p] * outputs[branch, slots[f, p], nearest]
        torch.testing.assert_close(found[branch * F + f, i], expected, rtol=0, atol=1e-12)


# --- in a real UNet ---------------------------------------------------------------------------------

K = 3


@pytest.fixture
def backbone(tiny_backbone: Callable[[str], Backbone]) -> Backbone:
    return tiny_backbone("sd1")


def noisy(frames: int = K, seed: int = 0) -> Tensor:
    return draw(frames, 4, 8, 8, seed=seed).float()


def run(backbone: Backbone, latents: Tensor, branches: int = 2) -> Tensor:
    """The UNet's output for `branches` copies of the latents, each under another prompt."""
    prompts = ["a photo", "", "a red ball"][-branches:]
    states = torch.cat([backbone.embed(p).prompt_embeds.expand(len(latents), -1, -1) for p in prompts])
    return backbone.predict(latents.repeat(branches, 1, 1, 1), 500, states)


def everything(backbone: Backbone) -> dict[int, Tensor]:
    return {g.n: torch.arange(K * g.n).repeat(K, 1) for g in backbone.grids(64, 64)}


def propagate(backbone: Backbone, state: EditState, slots: list[int], source: bool = False) -> None:
    grids = backbone.grids(64, 64)
    state.at = PropagationPass(
        slots=torch.tensor(slots)[:, None],
        index={grid.n: torch.arange(grid.n).expand(len(slots), 1, -1) for grid in grids},
        weights={grid.n: torch.ones(len(slots), 1, grid.n) for grid in grids},
        source=source,
    )


@torch.inference_mode()
@pytest.mark.parametrize("slimmed", [True, False])
def test_propagation_from_oneself_repeats_the_keyframe_pass(backbone: Backbone, slimmed: bool) -> None:
    state = EditState(at=KeyframePass(keep_outputs=True, kept=everything(backbone) if slimmed else None))
    with editing_attention(backbone.unet, state):
        first = run(backbone, noisy())
        propagate(backbone, state, [0, 1, 2])
        assert torch.equal(run(backbone, noisy()), first)
        # From another keyframe the outputs are not the same.
        propagate(backbone, state, [1, 2, 0])
        assert (run(backbone, noisy()) - first).abs().max() > 1e-4


@torch.inference_mode()
def test_identical_frames_take_identical_outputs_from_one_keyframe(backbone: Backbone) -> None:
    still = noisy(1).expand(K, -1, -1, -1)
    state = EditState(at=KeyframePass(keep_outputs=True, kept=everything(backbone)))
    with editing_attention(backbone.unet, state):
        first = run(backbone, still)
        propagate(backbone, state, [1, 1, 1])
        torch.testing.assert_close(run(backbone, still), first, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_own_attention_is_what_the_unet_does_by_itself(backbone: Backbone) -> None:
    plain = run(backbone, noisy())
    for state in (EditState(), EditState(at=KeyframePass())):
        with editing_attention(backbone.unet, state):
            torch.testing.assert_close(run(backbone, noisy()), plain, rtol=1e-4, atol=1e-5)
    # Identical keyframes see the same tokens several times over: the same shares.
    still = noisy(1).expand(K, -1, -1, -1)
    with editing_attention(backbone.unet, EditState(at=KeyframePass(kept=everything(backbone)))):
        torch.testing.assert_close(run(backbone, still), run_alone(backbone, still), rtol=1e-4, atol=1e-5)
        assert (run(backbone, noisy()) - plain).abs().max() > 1e-4


def run_alone(backbone: Backbone, latents: Tensor) -> Tensor:
    processors = dict(backbone.unet.attn_processors)
    with editing_attention(backbone.unet, EditState()):
        output = run(backbone, latents)
    assert backbone.unet.attn_processors == processors
    return output


@torch.inference_mode()
@pytest.mark.parametrize("branches", [1, 2, 3])
def test_a_prompts_keys_and_values_serve_all_its_frames(backbone: Backbone, branches: int) -> None:
    plain = run(backbone, noisy(), branches)
    for prompts in (branches, branches * K, None):
        with editing_attention(backbone.unet, EditState(prompts=prompts)):
            torch.testing.assert_close(run(backbone, noisy(), branches), plain, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_the_source_rides_along_where_frames_propagate(backbone: Backbone) -> None:
    """Its branch runs as if alone, and what the keyframes' edit changed of theirs is added to its own outputs."""
    alone = run(backbone, noisy(), 3)
    state = EditState(changes=True, at=KeyframePass(source=True, keep_outputs=True))
    with editing_attention(backbone.unet, state):
        first = run(backbone, noisy(), 3)
        propagate(backbone, state, [0, 1, 2], source=True)
        found = run(backbone, noisy(), 3)
    torch.testing.assert_close(found, first, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[:K], alone[:K], rtol=1e-4, atol=1e-5)
    # From another keyframe comes another change.
    propagate(backbone, state, [1, 2, 0], source=True)
    with editing_attention(backbone.unet, state):
        moved = run(backbone, noisy(), 3)
    torch.testing.assert_close(moved[:K], alone[:K], rtol=1e-4, atol=1e-5)
    assert (moved[K:] - found[K:]).abs().max() > 1e-4


@torch.inference_mode()
def test_injection_takes_queries_and_keys_of_the_source(backbone: Backbone) -> None:
    """The source branch runs as if alone, and the edit branches differ from those without injection."""
    alone = run(backbone, noisy(), branches=3)
    state = EditState(at=KeyframePass(source=True, inject=True, kept=everything(backbone), keep_outputs=True))
    with editing_attention(backbone.unet, state):
        injected = run(backbone, noisy(), branches=3)
        assert all(len(kept) == 2 and len(kept[0]) == K for kept in state.outputs.values())
        state.at = KeyframePass(kept=everything(backbone))
        free = run(backbone, noisy())
    torch.testing.assert_close(injected[:K], alone[:K], rtol=1e-4, atol=1e-5)
    assert (injected[K:] - free).abs().max() > 1e-4
    # With the source's own latents and prompt in every branch, each within its frame, nothing changes.
    states = backbone.embed("a photo").prompt_embeds
    same = []
    for inject, branches in ((True, 3), (False, 2)):
        with editing_attention(backbone.unet, EditState(at=KeyframePass(source=inject, inject=inject))):
            same.append(backbone.predict(noisy().repeat(branches, 1, 1, 1), 500, states)[-2 * K :])
    torch.testing.assert_close(*same, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("place", "injected"), [("up_blocks.1.attentions.1", True), ("up_blocks.1.attentions.0", False)]
)
def test_one_injected_layer(backbone: Backbone, place: str, injected: bool) -> None:
    layer = backbone.unet.get_submodule(f"{place}.transformer_blocks.0.attn1")
    n, kept = 4, kept_tokens(K, 4, 7)
    state = EditState(at=KeyframePass(source=True, inject=True, kept={n: kept}))
    hidden = draw(3 * K, n, layer.to_q.in_features, seed=0).float()
    result = EditAttention(state, f"{place}.transformer_blocks.0.attn1")(layer, hidden)
    projections = (layer.to_q, layer.to_k, layer.to_v)
    heads = [p(hidden).unflatten(-1, (layer.heads, -1)).transpose(1, 2).double() for p in projections]
    own = torch.arange(K * n).reshape(K, n)
    for branch, tokens in enumerate((own, kept, kept)):
        rows = slice(branch * K, (branch + 1) * K)
        asked = slice(0, K) if injected else rows
        mixed = naive(heads[0][asked], heads[1][asked], heads[2][rows], tokens.numpy(), layer.scale)
        expected = layer.to_out[0](torch.from_numpy(mixed).transpose(1, 2).flatten(2).float())
        torch.testing.assert_close(result[rows], expected, rtol=1e-4, atol=1e-5)


def test_processors_and_hooks_are_restored_after_an_exception(backbone: Backbone) -> None:
    unet = backbone.unet
    before, conv = dict(unet.attn_processors), unet.up_blocks[1].resnets[1].conv2

    def stop() -> None:
        raise RuntimeError("stopped inside a layer")

    with (
        pytest.raises(RuntimeError, match="inside a layer"),
        editing_attention(unet, EditState(check=stop)),
        forward_hook(conv, lambda *_: None),
    ):
        assert len(conv._forward_hooks) == 1
        assert all(p is not before[name] for name, p in unet.attn_processors.items())
        run(backbone, noisy())
    assert unet.attn_processors == before
    assert all(unet.attn_processors[name] is processor for name, processor in before.items())
    assert len(conv._forward_hooks) == 0


def test_a_hook_may_end_the_pass(backbone: Backbone) -> None:
    def halt(*_: Any) -> None:
        raise Halt

    last: list[int] = []
    with (
        forward_hook(backbone.unet.conv_out, lambda *_: last.append(1)),
        forward_hook(backbone.unet.up_blocks[1].resnets[1].conv2, halt),
        pytest.raises(Halt),
    ):
        run(backbone, noisy())
    assert not last


def test_injected_layers_are_those_of_plug_and_play() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel()  # of the shape of Stable Diffusion's
    names = [name.removesuffix(".processor") for name in unet.attn_processors if name.endswith("attn1.processor")]
    expected = {
        f"up_blocks.{block}.attentions.{i}.transformer_blocks.0.attn1"
        for block, chosen in {1: (1, 2), 2: (0, 1, 2), 3: (0, 1, 2)}.items()
        for i in chosen
    }
    assert len(names) == 16 and {name for name in names if is_injected_layer(name)} == expected
