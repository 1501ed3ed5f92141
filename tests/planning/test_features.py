"""One UNet pass over every frame: what it leaves behind, where it stops, and that it repeats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from adaflow_core.errors import Stopped
from adaflow_core.model.attention import forward_hook
from adaflow_core.model.backbone import Backbone
from adaflow_core.planning import features as module
from adaflow_core.planning.features import (
    WIDTH,
    distinctiveness,
    extract_features,
    fit_reduction,
    load_features,
    match_agreement,
)
from adaflow_core.progress import Monitor, Progress
from adaflow_core.types import Embedding, Features, Grid

T = 5


def latents() -> np.ndarray:
    """Frames that resemble each other, as those of a video do."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(1, 4, 8, 8)) + 0.3 * rng.normal(size=(T, 4, 8, 8))).astype(np.float32)


def extract(backbone: Backbone, folder: Path, prompt: str = "", **hooks: Any) -> Features:
    folder.mkdir()
    return load_features(folder, extract_features(backbone, latents(), prompt, folder, Monitor(**hooks)))


def test_the_reduction_keeps_products() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 40))  # of rank 6
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    reduction = fit_reduction(torch.from_numpy(rows).float(), width=6).double().numpy()
    np.testing.assert_allclose(reduction.T @ reduction, np.eye(6), atol=1e-5)
    np.testing.assert_allclose(rows @ reduction @ (rows @ reduction).T, rows @ rows.T, atol=1e-5)


def test_the_reduction_is_the_best_of_its_width() -> None:
    rows = np.random.default_rng(2).normal(size=(50, 12))
    reduction = fit_reduction(torch.from_numpy(rows).float(), width=4).double().numpy()
    _, sizes, directions = np.linalg.svd(rows)
    np.testing.assert_allclose(abs(np.sum(reduction * directions[:4].T, axis=0)), 1, atol=1e-5)
    left = rows - rows @ reduction @ reduction.T
    assert np.sum(left**2) == pytest.approx(np.sum(sizes[4:] ** 2), rel=1e-5)


def test_the_solver_waits_for_no_other_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the processor is busy, threads that meet often make it a hundred times as slow."""
    before, solve = torch.get_num_threads(), torch.linalg.eigh
    threads = []
    monkeypatch.setattr(torch.linalg, "eigh", lambda x: threads.append(torch.get_num_threads()) or solve(x))
    torch.set_num_threads(2)
    try:
        fit_reduction(torch.randn(20, 6), width=2)
        assert (threads, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_agreement_counts_the_matches_that_stay() -> None:
    tokens = torch.eye(4).repeat(3, 1, 1)
    assert match_agreement(tokens, tokens) == 1
    moved = tokens.clone()
    moved[2] = tokens[2].roll(1, 0)
    assert match_agreement(tokens, moved) == 0.5
    assert match_agreement(tokens[:1], moved[:1]) == 1


def test_distinctive_is_what_its_frame_lacks() -> None:
    tokens = torch.eye(3)[[0, 0, 0, 1]][None]
    np.testing.assert_allclose(distinctiveness(tokens)[0], [0.25, 0.25, 0.25, 0.75])


@pytest.mark.parametrize("layout", ["sd1", "sd2", "v"])
def test_what_a_pass_leaves(tiny_backbone: Callable[[str], Backbone], tmp_path: Path, layout: str) -> None:
    backbone = tiny_backbone(layout)
    found = extract(backbone, tmp_path / "a", prompt="a red ball")
    width = 32 if layout == "sd1" else WIDTH
    assert found.grid == Grid(8, 8) and found.tokens.shape == (T, 64, width) and found.tokens.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(found.tokens.astype(np.float64), axis=-1), 1, atol=2e-3)
    assert set(found.importance) == {"uniform", "attention", "distinctive", "prompt"}
    for kind, weights in found.importance.items():
        assert weights.shape == (T, 64) and (weights >= 0).all()
        np.testing.assert_allclose(weights.mean(axis=1), 1, atol=1e-5)
        assert (weights.std() == 0) == (kind == "uniform")
    assert 0.5 < found.agreement <= 1


def test_what_does_not_fit_the_device_is_done_in_smaller_parts(
    tiny_backbone: Callable[[str], Backbone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, passed = tiny_backbone("sd1"), module.feature_pass
    expected = extract(backbone, tmp_path / "whole")

    def limited(backbone: Backbone, latents: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(latents) > 1:
            raise torch.OutOfMemoryError
        return passed(backbone, latents, *rest)

    monkeypatch.setattr(module, "feature_pass", limited)
    found = extract(backbone, tmp_path / "parts")
    np.testing.assert_allclose(found.tokens.astype(np.float32), expected.tokens.astype(np.float32), atol=2e-3)


def test_the_same_frames_leave_the_same_bytes(tiny_backbone: Callable[[str], Backbone], tmp_path: Path) -> None:
    for name in ("a", "b"):
        extract(tiny_backbone("sd2"), tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    assert not (tmp_path / "a" / "importance_prompt.npy").exists()


def test_the_noise_makes_equal_frames_no_different(tiny_backbone: Callable[[str], Backbone], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    still = np.repeat(latents()[:1], 3, axis=0)
    meta = extract_features(tiny_backbone("sd1"), still, "", tmp_path / "a", Monitor())
    meta["seconds_per_frame"] = 0.1  # older entries of the cache have it
    tokens = load_features(tmp_path / "a", meta).tokens.astype(np.float64)
    np.testing.assert_allclose(tokens - tokens[:1], 0, atol=2e-3)


def test_attention_is_that_of_the_unets_own_layer(
    tiny_backbone: Callable[[str], Backbone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe computes the layer in the open; the layer's own processor says the same."""
    backbone = tiny_backbone("sd1")
    outputs: list[torch.Tensor] = []
    probe = module._SelfAttentionProbe.__call__

    def kept(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        outputs.append(probe(self, *args, **kwargs))
        return outputs[-1]

    monkeypatch.setattr(module._SelfAttentionProbe, "__call__", kept)
    found = extract(backbone, tmp_path / "a")
    layer = backbone.unet.up_blocks[2].attentions[-1].transformer_blocks[0].attn1
    inputs: list[torch.Tensor] = []
    with layer.register_forward_pre_hook(lambda _m, args: inputs.append(args[0])):
        extract(backbone, tmp_path / "b")
    hidden = torch.cat(inputs[-1:])
    own = layer(hidden)
    torch.testing.assert_close(outputs[-1], own, rtol=1e-3, atol=1e-4)
    query, key = (p(hidden).unflatten(-1, (layer.heads, -1)).transpose(1, 2).double() for p in (layer.to_q, layer.to_k))
    received = torch.softmax(query @ key.mT * layer.scale, dim=-1).mean(dim=(1, 2)).reshape(T, 4, 4)
    expected = received.repeat_interleave(2, 1).repeat_interleave(2, 2).reshape(T, 64)
    expected /= expected.mean(dim=1, keepdim=True)
    np.testing.assert_allclose(found.importance["attention"], expected.detach(), rtol=1e-3)


def test_large_products_do_not_overflow_half_precision() -> None:
    """As Stable Diffusion 2.1's are said to be."""
    same = torch.nn.Identity()
    attn = SimpleNamespace(heads=1, scale=64**-0.5, to_q=same, to_k=same, to_v=same, to_out=[same])
    hidden = 40 * torch.sign(torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))).half()
    states = torch.full((1, 3, 64), 40.0).half()
    words = Embedding("a cat", states, np.array([False, True, True]), unknown=(), dropped="", known=True)
    capture = module.Capture(words)
    assert torch.equal(module._SelfAttentionProbe(capture)(attn, hidden), hidden), "each is the most like itself"
    module._CrossAttentionProbe(capture, lambda _attn, hidden: hidden)(attn, hidden.abs())
    assert capture.attention is not None and capture.prompt is not None
    assert capture.attention.isfinite().all()
    torch.testing.assert_close(capture.prompt, torch.full((2, 5), 2 / 3))


def test_the_pass_stops_where_the_features_are_read(tiny_backbone: Callable[[str], Backbone], tmp_path: Path) -> None:
    unet = tiny_backbone("sd1").unet
    before = dict(unet.attn_processors)
    calls = {"read": 0, "later": 0}

    def count(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            calls[name] += 1

        return hook

    with (
        forward_hook(unet.up_blocks[2].resnets[0], count("read")),
        forward_hook(unet.up_blocks[3].resnets[0], count("later")),
        forward_hook(unet.conv_out, count("later")),
    ):
        extract(tiny_backbone("sd1"), tmp_path / "a")
    assert calls == {"read": 2, "later": 0}  # one frame to see the sizes, then one chunk
    assert all(unet.attn_processors[name] is processor for name, processor in before.items())
    assert not unet.up_blocks[2]._forward_hooks


def test_processors_are_restored_when_stopped(tiny_backbone: Callable[[str], Backbone], tmp_path: Path) -> None:
    unet = tiny_backbone("sd1").unet
    before = dict(unet.attn_processors)
    seen: list[Progress] = []
    with pytest.raises(Stopped):
        extract(tiny_backbone("sd1"), tmp_path / "a", report=seen.append, stop=lambda: len(seen) > 0)
    assert all(unet.attn_processors[name] is processor for name, processor in before.items())

    def broken(*_: Any) -> None:
        raise RuntimeError("broken layer")

    with forward_hook(unet.mid_block, broken), pytest.raises(RuntimeError, match="broken layer"):
        extract(tiny_backbone("sd1"), tmp_path / "b")
    assert all(unet.attn_processors[name] is processor for name, processor in before.items())
    assert not unet.up_blocks[2]._forward_hooks
