"""The fused kernels against torch, and that a model with them is the same model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.config.edit import Propagation
from adaflow_core.editing.injection import ConvInjection, injected_conv
from adaflow_core.engine import AdaFlow
from adaflow_core.model import memory as bounded
from adaflow_core.model.attention import forward_hook
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.backends import gather_blend
from adaflow_core.model.fused import ConvWithoutBias, FusedGroupNorm, accelerate, fuse, kernels_run
from adaflow_core.storage.cache import Cache

kernels = pytest.importorskip("adaflow_core.model.kernels", exc_type=ImportError)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("shape", "silu", "shifts"),
    [
        ((2, 320, 6, 11), True, 2),
        ((2, 320, 6, 11), False, 0),
        ((1, 96, 5, 7), True, 0),
        ((1, 96, 5, 7), False, 1),
        ((2, 64, 20, 30), True, 1),
        ((2, 64, 20, 30), False, 2),
    ],
)
def test_group_norm(shape: tuple[int, ...], silu: bool, shifts: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (3 * torch.randn(shape, generator=generator) + 2).to(DEVICE)
    weight, bias = (torch.randn(shape[1], generator=generator).to(DEVICE) for _ in range(2))
    shift = 2 * torch.randn(min(shifts, shape[0]), shape[1], generator=generator).to(DEVICE) if shifts else None
    expected = F.group_norm(x if shift is None else x + shift[:, :, None, None], 32, weight, bias, 1e-5)
    expected = F.silu(expected) if silu else expected
    found = kernels.group_norm(x.contiguous(memory_format=torch.channels_last), 32, weight, bias, 1e-5, silu, shift)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 7, 320), (3, 1, 1280), (5, 24)])
@pytest.mark.parametrize("adds", [True, False])
def test_sum_and_normalisation_of_rows(shape: tuple[int, ...], adds: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x, added = ((3 * torch.randn(shape, generator=generator) + 2).to(DEVICE) for _ in range(2))
    before, weight, bias = (torch.randn(shape[-1], generator=generator).to(DEVICE) for _ in range(3))
    total = x + before + (added if adds else 0)
    expected = F.layer_norm(total, shape[-1:], weight, bias, 1e-5)
    found = kernels.add_norm(x, added if adds else None, before, weight, bias, 1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(x, total, rtol=1e-5, atol=1e-5)


def test_sum_of_pictures_and_bias() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, 70, 5, 9, generator=generator).to(DEVICE) for _ in range(2))
    bias = torch.randn(70, generator=generator).to(DEVICE)
    found = kernels.add(a.contiguous(memory_format=torch.channels_last), b, bias)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, a + b + bias[:, None, None])


@pytest.mark.parametrize("size", [(12, 22), (11, 21), (6, 11), (13, 30)])
def test_enlarging(size: tuple[int, int]) -> None:
    x = torch.randn(2, 70, 6, 11, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    found = kernels.enlarge(x, *size)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, F.interpolate(x, size=size), rtol=0, atol=0)


def test_gate() -> None:
    generator = torch.Generator().manual_seed(0)
    x, bias = (torch.randn(*shape, 2 * 1300, generator=generator).to(DEVICE) for shape in ((3, 5), ()))
    hidden, gate = (x + bias).chunk(2, dim=-1)
    torch.testing.assert_close(kernels.gate(x, bias), hidden * F.gelu(gate), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("places", [1, 2])
@pytest.mark.parametrize("added", [True, False])
def test_gather(places: int, added: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, base = (torch.randn(k, 37, 80, generator=generator).to(DEVICE) for k in (4, 3))
    slots = torch.randint(0, 4, (3, places), generator=generator).to(DEVICE)
    index = torch.randint(0, 37, (3, places, 37), generator=generator).to(DEVICE)
    weights = torch.rand(3, places, 37, generator=generator).half().to(DEVICE)
    arguments = (outputs, slots, index, weights, base if added else None)
    torch.testing.assert_close(kernels.gather_blend(*arguments), gather_blend(*arguments), rtol=1e-4, atol=1e-5)


def _plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's operations in place of the kernels, whose interpreter would take minutes."""

    def group_norm(
        x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool, shift: Tensor | None = None
    ) -> Tensor:
        normed = F.group_norm(x if shift is None else x + shift[:, :, None, None], groups, weight, bias, eps)
        return F.silu(normed) if silu else normed

    monkeypatch.setattr(kernels, "group_norm", group_norm)

    def add_norm(
        rows: Tensor, added: Tensor | None, before: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        rows += before if added is None else added + before
        return F.layer_norm(rows, rows.shape[-1:], weight, bias, eps)

    def gate(x: Tensor, bias: Tensor) -> Tensor:
        hidden, gate = (x + bias).chunk(2, dim=-1)
        return hidden * F.gelu(gate)

    monkeypatch.setattr(kernels, "add_norm", add_norm)
    monkeypatch.setattr(kernels, "gate", gate)
    monkeypatch.setattr(kernels, "add", lambda a, b, bias: a + b + bias[:, None, None])
    monkeypatch.setattr(kernels, "enlarge", lambda x, height, width: F.interpolate(x, size=(height, width)))


@torch.inference_mode()
@pytest.mark.parametrize("layout", ["sd1", "sd2"])
@pytest.mark.parametrize("size", [8, 12])  # 12 is halved to an odd size
def test_a_fused_model_is_the_same(
    monkeypatch: pytest.MonkeyPatch, tiny_backbone: Callable[[str], Backbone], layout: str, size: int
) -> None:
    if DEVICE.type == "cpu":
        _plainly(monkeypatch)
    backbone = tiny_backbone(layout)
    x = torch.randn(2, 4, size, size, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    states = backbone.embed("a red ball").prompt_embeds.to(DEVICE).expand(2, -1, -1)
    for model, run in (
        (backbone.unet, lambda unet: unet(x, 500, encoder_hidden_states=states).sample),
        (backbone.vae, lambda vae: vae.decode(x).sample),
        (backbone.vae, lambda vae: vae.encode(x[:, :3]).latent_dist.mode()),
    ):
        model, fused = copy.deepcopy(model).to(DEVICE), copy.deepcopy(model)
        fuse(fused)
        fused.to(DEVICE, memory_format=torch.channels_last)
        assert any(isinstance(module, FusedGroupNorm) for module in fused.modules())
        assert any(isinstance(module, ConvWithoutBias) for module in fused.modules())
        assert [name for name, _ in fused.named_parameters()] == [name for name, _ in model.named_parameters()]
        assert fused.state_dict().keys() == model.state_dict().keys()
        close = 1e-3 if DEVICE.type == "cpu" else 3e-2  # convolutions on a GPU round to TF32
        torch.testing.assert_close(run(fused), run(model), rtol=close, atol=close)


@torch.inference_mode()
def test_injection_is_the_same_in_a_fused_model(
    monkeypatch: pytest.MonkeyPatch, tiny_backbone: Callable[[str], Backbone]
) -> None:
    """The injected convolution leaves out its bias, in the source as in the edit."""
    if DEVICE.type == "cpu":
        _plainly(monkeypatch)
    backbone = tiny_backbone("sd2")
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    states = backbone.embed("a red ball").prompt_embeds.to(DEVICE).expand(2, -1, -1)
    found = []
    for fused in (False, True):
        unet = copy.deepcopy(backbone.unet).to(DEVICE)
        if fused:
            fuse(unet)
        conv = ConvInjection()
        with forward_hook(injected_conv(unet), conv), conv.injecting(2, source=True):
            found.append(unet(x, 500, encoder_hidden_states=states).sample)
    assert (found[0][1] - backbone.unet.to(DEVICE)(x, 500, encoder_hidden_states=states).sample[1]).abs().max() > 1e-3
    close = 1e-3 if DEVICE.type == "cpu" else 3e-2
    torch.testing.assert_close(found[1], found[0], rtol=close, atol=close)


@pytest.mark.parametrize("propagation", ["change", pytest.param("output", marks=pytest.mark.thorough)])
def test_an_edit_by_a_fused_model_is_the_same(
    propagation: Propagation,
    monkeypatch: pytest.MonkeyPatch,
    tiny_backbone: Callable[[str], Backbone],
    drawn_frames: np.ndarray,
    tmp_path: Path,
) -> None:
    """Layers' outputs, without the bias that is added after them, are gathered from keyframes in its passes."""
    _plainly(monkeypatch)
    monkeypatch.setattr(bounded, "FEED_FORWARD_ROWS", 2)  # so that feed-forwards are cut
    backbone = tiny_backbone("sd2")
    config = EditConfig(steps=2, propagation=propagation, structure=1.0, agreements=0, stride=1)
    unet = copy.deepcopy(backbone.unet)
    fuse(unet)
    plain, fused = (
        AdaFlow(b, Cache(tmp_path / str(i))) for i, b in enumerate((backbone, replace(backbone, unet=unet)))
    )
    plan = plain.plan(drawn_frames, PlanConfig(keyframes=3, source_prompt="a red ball"))
    expected, found = (engine.edit(plan, "a blue ball", config).frames.astype(int) for engine in (plain, fused))
    assert np.abs(expected - drawn_frames).mean() > 1
    assert np.abs(found - expected).mean() < 0.1


@pytest.mark.thorough
def test_kernels_are_tried_before_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels_run(DEVICE, torch.float32)
    assert not accelerate(device=torch.device("cpu"), dtype=torch.float32), "on a CPU torch's are faster"
    monkeypatch.setattr(kernels, "gate", lambda x, _: 2 * F.glu(x))
    assert not kernels_run(DEVICE, torch.float32)
    monkeypatch.setattr(kernels, "gate", lambda x, _: 1 / 0)
    assert not kernels_run(DEVICE, torch.float32)
