"""The fused kernels against torch, and that a model with them is the same model."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adaflow_core.backbone import Backbone
from adaflow_core.correspondence import gather_blend
from adaflow_core.fused import FusedGroupNorm, fuse, kernels_run

kernels = pytest.importorskip("adaflow_core.kernels", exc_type=ImportError)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("shape", [(2, 320, 6, 11), (1, 96, 5, 7), (2, 64, 20, 30)])
@pytest.mark.parametrize("silu", [True, False])
def test_group_norm(shape: tuple[int, ...], silu: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (3 * torch.randn(shape, generator=generator) + 2).to(DEVICE)
    weight, bias = (torch.randn(shape[1], generator=generator).to(DEVICE) for _ in range(2))
    expected = F.group_norm(x, 32, weight, bias, 1e-5)
    expected = F.silu(expected) if silu else expected
    found = kernels.group_norm(x.contiguous(memory_format=torch.channels_last), 32, weight, bias, 1e-5, silu)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_gate() -> None:
    x = torch.randn(3, 5, 2 * 1300, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    hidden, gate = x.chunk(2, dim=-1)
    torch.testing.assert_close(kernels.gate(x), hidden * F.gelu(gate), rtol=1e-4, atol=1e-5)


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


@torch.inference_mode()
def test_a_fused_model_is_the_same(monkeypatch: pytest.MonkeyPatch, tiny_backbone: Callable[[str], Backbone]) -> None:
    if DEVICE.type == "cpu":  # the interpreter would take minutes

        def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool) -> Tensor:
            normed = F.group_norm(x, groups, weight, bias, eps)
            return F.silu(normed) if silu else normed

        monkeypatch.setattr(kernels, "group_norm", group_norm)
        monkeypatch.setattr(kernels, "gate", lambda x: x.chunk(2, dim=-1)[0] * F.gelu(x.chunk(2, dim=-1)[1]))
    backbone = tiny_backbone("sd2")
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    states = backbone.embed("a red ball").states.to(DEVICE).expand(2, -1, -1)
    for model, run in (
        (backbone.unet, lambda unet: unet(x, 500, encoder_hidden_states=states).sample),
        (backbone.vae, lambda vae: vae.decode(x).sample),
    ):
        model, fused = copy.deepcopy(model).to(DEVICE), copy.deepcopy(model).to(DEVICE)
        fuse(fused)
        assert any(isinstance(module, FusedGroupNorm) for module in fused.modules())
        assert [name for name, _ in fused.named_parameters()] == [name for name, _ in model.named_parameters()]
        close = 1e-3 if DEVICE.type == "cpu" else 3e-2  # convolutions on a GPU round to TF32
        torch.testing.assert_close(run(fused), run(model), rtol=close, atol=close)


def test_kernels_are_tried_before_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels_run(DEVICE, torch.float32)
    monkeypatch.setattr(kernels, "gate", lambda x: 2 * F.glu(x))
    assert not kernels_run(DEVICE, torch.float32)
    monkeypatch.setattr(kernels, "gate", lambda x: 1 / 0)
    assert not kernels_run(DEVICE, torch.float32)
