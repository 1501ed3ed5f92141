"""A model that gives values that are not finite: every stage stops with the remedy, and nothing of it is kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from adaflow_core.cli.main import main
from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone, FiniteCheck
from adaflow_core.model.loading import load_backbone
from adaflow_core.storage.cache import Cache
from adaflow_core.types import Plan

VAE, UNET, TEXT = "vae/diffusion_pytorch_model", "unet/diffusion_pytorch_model", "text_encoder/model"


EDIT = EditConfig(steps=3, inversion_steps=3, focus=0, agreements=0)


@pytest.fixture(scope="module")
def broken_later(tiny_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Backbone, Plan]:
    """A model of these tests' own, and a plan that was made while it was whole."""
    backbone = load_backbone(str(tiny_folder("sd1")), device="cpu", dtype="float32")
    engine = AdaFlow(backbone, Cache(tmp_path_factory.mktemp("cache")))
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    return backbone, engine.plan(frames, PlanConfig(keyframes=1, source_prompt="a red ball"))


@pytest.fixture
def planned(broken_later: tuple[Backbone, Plan], tmp_path: Path) -> tuple[AdaFlow, Plan]:
    backbone, plan = broken_later
    return AdaFlow(backbone, Cache(tmp_path / "cache")), plan


@contextmanager
def breaking(module: torch.nn.Module, value: float = float("nan"), calls: int = 0) -> Iterator[None]:
    """Within, a module's output has one value that is not finite, after some calls that are as ever."""
    numbers = count()

    def spoil(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        if next(numbers) >= calls:
            output[(-1,) * output.ndim] = value
        return output

    hook = module.register_forward_hook(spoil)
    try:
        yield
    finally:
        hook.remove()


def kinds(engine: AdaFlow) -> set[str]:
    """What is in the cache."""
    return {entry.parent.name for entry in engine.cache.root.glob("*/*")}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_inversion(planned: tuple[AdaFlow, Plan], value: float) -> None:
    engine, plan = planned
    with (
        breaking(engine.backbone.unet.conv_out, value),
        pytest.raises(AdaFlowError, match=r"UNet gave values .*--dtype float32"),
    ):
        engine.edit(plan, "a blue ball", EDIT)
    assert kinds(engine) == {"latents"}


def test_a_step_of_the_edit(planned: tuple[AdaFlow, Plan]) -> None:
    engine, plan = planned
    # The inversion has three calls for all frames, and each step of the edit one for the keyframe and one for others.
    with breaking(engine.backbone.unet.conv_out, calls=3 + 2), pytest.raises(AdaFlowError, match="UNet"):
        engine.edit(plan, "a blue ball", EDIT)
    assert kinds(engine) == {"latents", "inversion", "edits"}
    assert engine.edit(plan, "a blue ball", EDIT).report["resumed_at_step"] == 1  # the step before is whole


def test_decoding(planned: tuple[AdaFlow, Plan]) -> None:
    engine, plan = planned
    with breaking(engine.backbone.vae.decoder.conv_out), pytest.raises(AdaFlowError, match="autoencoder gave"):
        engine.edit(plan, "a blue ball", EDIT)
    assert "reconstruction" not in kinds(engine)


def test_the_place(planned: tuple[AdaFlow, Plan]) -> None:
    engine, plan = planned
    with breaking(engine.backbone.unet.conv_out), pytest.raises(AdaFlowError, match="UNet"):
        engine.place(plan, "a blue ball", config=EditConfig(focus=1))
    assert kinds(engine) == {"latents"}


def test_a_prompt(planned: tuple[AdaFlow, Plan]) -> None:
    engine, plan = planned
    modules = engine.backbone.text_encoder.named_modules()
    last = next(module for name, module in modules if name.endswith("final_layer_norm"))
    with breaking(last), pytest.raises(AdaFlowError, match="text encoder"):
        engine.edit(plan, "a blue ball", EDIT)
    assert not kinds(engine)


@pytest.mark.parametrize(("module", "part"), [
    ("vae.encoder.conv_out", "autoencoder"), ("unet.conv_in", "UNet"), ("unet.conv_out", "UNet"),
])  # fmt: skip
def test_planning(planned: tuple[AdaFlow, Plan], module: str, part: str) -> None:
    engine, plan = planned
    taller = np.pad(plan.video.frames, ((0, 0), (0, 8), (0, 0), (0, 0)))  # of a size that was not timed yet
    with breaking(attrgetter(module)(engine.backbone)), pytest.raises(AdaFlowError, match=f"{part} gave"):
        engine.plan(taller, PlanConfig(keyframes=1))
    assert not {"calibration"} & kinds(engine)


@pytest.mark.parametrize(("name", "weight"), [("unet", "conv_out.bias"), ("vae", "decoder.conv_out.bias")])
def test_a_damaged_checkpoint_on_the_command_line(
    name: str, weight: str, tiny_folder: Callable[[str], Path], drawn_clip: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("ADAFLOW_CACHE", str(tmp_path / "cache"))
    model, out = shutil.copytree(tiny_folder("sd1"), tmp_path / "model"), tmp_path / "out.mp4"
    path = model / name / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights[weight][:] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})
    command = ["edit", str(drawn_clip), "--prompt", "a ball", "--size", "64x64", "--frames", "0:2", "--out", str(out)]
    assert main([*command, "--model", str(model), "--dtype", "float32", "--device", "cpu"]) == 2
    problem = capsys.readouterr().err.strip().splitlines()[-1]
    assert problem.startswith("adaflow: error: ") and f"the {name} of" in problem and weight in problem
    assert "--dtype float32" in problem and not out.exists()


def test_a_flag_is_read_when_asked_and_then_forgotten() -> None:
    check, there = FiniteCheck(), torch.zeros(2, device="meta")
    check.add("UNet", there)  # on a device nothing is read
    check.forget()
    check.check()
    with pytest.raises(AdaFlowError, match="UNet"):
        check.add("UNet", torch.tensor([1.0, float("-inf")]))
    check.add("UNet", torch.tensor([1e30, 1e30]))
    check.check()


def test_threads_share_the_check() -> None:
    """A prompt is looked at while an edit runs: neither disturbs the other, and what is not finite is found."""
    check, finite, broken = FiniteCheck(), torch.ones(4), torch.full((4,), torch.nan)

    def run(part: str) -> int:
        try:
            for _ in range(2000):
                check.add(part, finite)
            check.add(part, broken)
        except AdaFlowError:
            return 1
        return 0

    with ThreadPoolExecutor(4) as pool:
        found = sum(pool.map(run, ("UNet", "text encoder", "autoencoder", "UNet")))
    assert found >= 1  # by one thread for all, where they meet
