"""What only a CUDA device can show: its kernels, half precision, memory that ends, and the host's part of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.model import fused
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.backends import _OPERATORS, FEW_KEYS, _with_sums, attend_sdpa
from adaflow_core.model.fused import kernels_run
from adaflow_core.model.loading import load_backbone
from adaflow_core.model.memory import Sent, rows_to_device, to_device, writing
from adaflow_core.storage.cache import Cache
from benchmarks.speed.stand_ins import make_backbone

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def on_gpu(tiny_folder: Callable[[str], Path]) -> Backbone:
    return load_backbone(str(tiny_folder("sd2")), device="cuda", attention="sdpa")


def edit(backbone: Backbone, frames: np.ndarray, folder: Path, config: EditConfig) -> np.ndarray:
    engine = AdaFlow(backbone, Cache(folder))
    plan = engine.plan(frames, PlanConfig(keyframes=3))
    return np.array(engine.edit(plan, "a blue ball", config).frames).astype(int)


def test_the_kernels_run(on_gpu: Backbone) -> None:
    device = torch.device("cuda")
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert kernels_run(device, dtype)
    assert on_gpu.fused and on_gpu.gather.__module__ == "adaflow_core.model.kernels"


@pytest.mark.parametrize("width", [40, 64, 80, 160])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sampled_keys_keep_the_fast_kernels(dtype: torch.dtype, width: int) -> None:
    device = torch.device("cuda", 0)
    assert _with_sums(_OPERATORS, device, dtype, width) is not None
    query, key, value = (torch.randn(2, 3, rows, width, device=device, dtype=dtype) for rows in (257, 1000, 1000))
    result = attend_sdpa(query, key, value, 0.2, 300, 3.5)
    expected = attend_sdpa(query.cpu().double(), key.cpu().double(), value.cpu().double(), 0.2, 300, 3.5)
    torch.testing.assert_close(result.cpu().double(), expected, rtol=0.02, atol=0.02)


def test_what_comes_to_the_host_is_of_before_what_was_given_after_it(tmp_path: Path) -> None:
    out = np.lib.format.open_memmap(tmp_path / "out.npy", mode="w+", dtype=np.float32, shape=(8, 64, 64))
    x, large = torch.zeros(2, 64, 64, device="cuda"), torch.randn(4096, 4096, device="cuda")
    with writing(out) as put:
        for number in range(4):
            x.fill_(number + 1)
            put(slice(2 * number, 2 * number + 2), Sent(x.transpose(1, 2)))
            for _ in range(20):
                large = (large @ large).clamp(-1, 1)
            x.zero_()
    assert [float(frame.min()) for frame in out] == [float(frame.max()) for frame in out] == [1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.int16, np.float16, np.float32, np.int64])
def test_what_goes_to_the_device_is_what_was_there(dtype: type, tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).integers(0, 2, (7, 5, 3)).astype(dtype)
    np.save(tmp_path / "film.npy", drawn)
    film, device = np.load(tmp_path / "film.npy", mmap_mode="r"), torch.device("cuda")
    for strided in (film, film[1:6], film[:, 2], film[::2]):
        np.testing.assert_array_equal(to_device(strided, device).cpu().numpy(), strided)
    rows = np.array([6, 0, 0, 3])
    np.testing.assert_array_equal(rows_to_device(film, rows, device).cpu().numpy(), drawn[rows])
    assert rows_to_device(film, rows[:0], device).shape == (0, 5, 3)


@pytest.mark.parametrize("width", [40, 64, 80, 160])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_few_keys_have_a_kernel_of_their_own(dtype: torch.dtype, width: int) -> None:
    device = torch.device("cuda", 0)
    assert (_with_sums(("flash",), device, dtype, width) is None) == (dtype == torch.float32)
    for keys in (77, 252, FEW_KEYS, FEW_KEYS + 1):
        query, key, value = (torch.randn(2, rows, 3, width, device=device, dtype=dtype) for rows in (257, keys, keys))
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))  # as a layer gives them
        result = attend_sdpa(query, key, value, 0.2)
        expected = attend_sdpa(query.cpu().double(), key.cpu().double(), value.cpu().double(), 0.2)
        torch.testing.assert_close(result.cpu().double(), expected, rtol=0.02, atol=0.02)


def test_fused_and_plain_predict_the_same(
    on_gpu: Backbone, tiny_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "kernels_run", lambda *_: False)
    plain = load_backbone(str(tiny_folder("sd2")), device="cuda", attention="sdpa")
    assert not plain.fused and plain.fingerprint == on_gpu.fingerprint
    x = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0)).cuda()
    for kernel, other in (
        tuple(each.predict(x, 500, each.embed("a").prompt_embeds) for each in (on_gpu, plain)),
        (on_gpu.decode_there(x).float() / 255, plain.decode_there(x).float() / 255),
    ):
        torch.testing.assert_close(kernel, other, rtol=0.02, atol=0.02)


def test_an_edit_again_and_in_low_memory(on_gpu: Backbone, drawn_frames: np.ndarray, tmp_path: Path) -> None:
    config = EditConfig(steps=2, injection_attention=0.5)
    first = edit(on_gpu, drawn_frames, tmp_path / "a", config)
    assert np.array_equal(edit(on_gpu, drawn_frames, tmp_path / "b", config), first)
    low = edit(on_gpu, drawn_frames, tmp_path / "c", replace(config, low_memory=True))
    assert np.abs(low - first).mean() < 1.0 < first.std()


def test_memory_that_ends_does_not_lose_the_run(
    on_gpu: Backbone, drawn_frames: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EditConfig(steps=2, chunk=8, agreements=0)  # random weights' autoencoder makes much of little
    expected = edit(on_gpu, drawn_frames, tmp_path / "a", config)
    predict = Backbone.predict

    def scarce(self: Backbone, latents: torch.Tensor, *rest: object) -> torch.Tensor:
        if len(latents) > 12:
            torch.empty(2**50, device="cuda", dtype=torch.uint8)
        return predict(self, latents, *rest)

    engine = AdaFlow(on_gpu, Cache(tmp_path / "b"))
    plan = engine.plan(drawn_frames, PlanConfig(keyframes=3))
    monkeypatch.setattr(Backbone, "predict", scarce)
    found = np.array(engine.edit(plan, "a blue ball", config).frames).astype(int)
    assert np.abs(found - expected).mean() < 1.0


def test_half_precision_goes_as_far_as_diffusers() -> None:
    """At the size of Stable Diffusion 2.1, weights scaled until diffusers' own pass is near its overflow."""
    from diffusers import UNet2DConditionModel

    ours = make_backbone("sd21", "cuda", "float16")
    torch.manual_seed(0)
    with torch.device("cuda"):
        exact = UNet2DConditionModel.from_config(ours.unet.config).eval()  # type: ignore[attr-defined]
    x = torch.randn(2, 4, 48, 84, generator=torch.Generator().manual_seed(1)).cuda()
    states = ours.embed("a red ball").prompt_embeds

    def predicted(unet: torch.nn.Module) -> torch.Tensor:
        dtype = next(unet.parameters()).dtype
        with torch.inference_mode():
            return unet(x.to(dtype), 500, states.to(dtype).expand(2, -1, -1)).sample.float()

    torch.testing.assert_close(ours.predict(x, 500, states), predicted(exact), rtol=0.02, atol=0.02)
    grown = ("conv_in.weight", "conv2.weight", "proj_out.weight", "to_out.0.weight", "ff.net.2.weight")

    def scale(unet: torch.nn.Module, factor: float) -> None:
        with torch.no_grad():
            for name, weights in unet.named_parameters():
                if name.endswith(grown):
                    weights.mul_(factor)

    factor = 1.0
    while True:  # by steps of 1.5
        half = copy.deepcopy(exact).half()
        scale(half, 1.5 * factor)
        if not torch.isfinite(predicted(half)).all():
            break
        factor *= 1.5
    assert factor > 100
    half = copy.deepcopy(exact).half()
    for unet in (exact, half, ours.unet):
        scale(unet, factor)
    expected = predicted(exact)
    found = predicted(half), ours.predict(x, 500, states)
    theirs, mine = ((each - expected).norm() / expected.norm() for each in found)
    print(f"weights times {factor:.0f}: diffusers' error {theirs:.4f}, ours {mine:.4f}")
    assert mine < 1.5 * theirs + 0.005
