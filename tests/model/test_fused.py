"""The fused kernels against torch, and that a model with them is the same model."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adaflow_core.editing.injection import ConvInjection, injected_conv
from adaflow_core.model.attention import forward_hook
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.backends import gather_blend
from adaflow_core.model.fused import ConvWithoutBias, FusedGroupNorm, accelerate, fuse, kernels_run

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
def test_layer_norm(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (3 * torch.randn(shape, generator=generator) + 2).to(DEVICE)
    weight, bias = (torch.randn(shape[-1], generator=generator).to(DEVICE) for _ in range(2))
    expected = F.layer_norm(x, shape[-1:], weight, bias, 1e-5)
    torch.testing.assert_close(kernels.layer_norm(x, weight, bias, 1e-5), expected, rtol=1e-4, atol=1e-4)


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


def _plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's operations in place of the kernels, whose interpreter would take minutes."""

    def group_norm(
        x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool, shift: Tensor | None = None
    ) -> Tensor:
        normed = F.group_norm(x if shift is None else x + shift[:, :, None, None], groups, weight, bias, eps)
        return F.silu(normed) if silu else normed

    monkeypatch.setattr(kernels, "group_norm", group_norm)
    monkeypatch.setattr(kernels, "layer_norm", lambda x, w, b, eps: F.layer_norm(x, x.shape[-1:], w, b, eps))
    monkeypatch.setattr(kernels, "add", lambda a, b, bias: a + b + bias[:, None, None])
    monkeypatch.setattr(kernels, "enlarge", lambda x, height, width: F.interpolate(x, size=(height, width)))
    monkeypatch.setattr(kernels, "gate", lambda x: x.chunk(2, dim=-1)[0] * F.gelu(x.chunk(2, dim=-1)[1]))


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
    states = backbone.embed("a red ball").states.to(DEVICE).expand(2, -1, -1)
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
    states = backbone.embed("a red ball").states.to(DEVICE).expand(2, -1, -1)
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


def test_kernels_are_tried_before_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels_run(DEVICE, torch.float32)
    assert not accelerate(device=torch.device("cpu"), dtype=torch.float32), "on a CPU torch's are faster"
    monkeypatch.setattr(kernels, "gate", lambda x: 2 * F.glu(x))
    assert not kernels_run(DEVICE, torch.float32)
    monkeypatch.setattr(kernels, "gate", lambda x: 1 / 0)
    assert not kernels_run(DEVICE, torch.float32)
