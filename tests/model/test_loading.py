"""Where a model is put: which device is taken, and what is said where its memory does not do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from adaflow_core import AdaFlow, EditConfig, PlanConfig
from adaflow_core.errors import AdaFlowError
from adaflow_core.model import loading
from adaflow_core.model.files.check import note_on_steps
from adaflow_core.model.loading import load_backbone, pick_device
from helpers.films import film


class OnUnknownGpu:
    """A tensor on a GPU that this build of torch has no kernels for: it can be filled with zeros, and no more."""

    def __add__(self, _: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with …")


def test_a_gpu_without_kernels_is_not_taken(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    zeros = torch.zeros
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch, "zeros", lambda n, device: OnUnknownGpu() if torch.device(device).type == "cuda" else zeros(n)
    )
    assert pick_device("auto") == torch.device("cpu")
    assert "the GPU cannot be used (CUDA error: no kernel image" in caplog.text and "Compile" not in caplog.text
    assert pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("cpu"), "Apple's are taken where they are named"
    with pytest.raises(AdaFlowError, match="device 'cuda:1' cannot be used here; try --device auto or cpu"):
        pick_device("cuda:1")


def test_a_model_distilled_for_few_steps_is_named(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    assert not note_on_steps("a/turbot@1f") and not note_on_steps("turbo/b.safetensors", "DDIMScheduler")
    for name in ("a/sd-turbo@1f", "a/lcm_b@refs/pr/3", "a/lcm/pytorch_lora_weights.safetensors", "Hyper-SD15"):
        assert "may be distilled for few steps, by its name; if it is, set guidance to 1" in note_on_steps(name)
    folder = shutil.copytree(tiny_folder("sd1"), tmp_path / "model")
    settings = folder / "scheduler" / "scheduler_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"_class_name": "LCMScheduler"}))
    backbone = load_backbone(str(folder), device="cpu", dtype="float32")
    engine, frames = AdaFlow(backbone), film(3, 64, 64)
    for guidance, named in ((None, True), (1.0, False)):  # at 1 there is nothing to say
        plan = engine.plan(frames, PlanConfig(keyframes=1), edit=EditConfig(guidance=guidance))
        assert any("model is distilled for few steps (it has the LCMScheduler)" in note for note in plan.notes) == named


def test_a_model_that_does_not_fit_is_said_in_a_sentence(
    tiny_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def place(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(loading, "place", place)
    with pytest.raises(AdaFlowError, match=r"the model \S+ does not fit the device's free memory; close") as problem:
        load_backbone(str(tiny_folder("sd1")), device="cpu", dtype="float32")
    assert problem.value.__cause__ is None and problem.value.__suppress_context__


@pytest.mark.parametrize(("device", "chosen"), [("cuda:1", [torch.device("cuda:1")]), ("cuda", []), ("cpu", [])])
def test_a_model_is_placed_and_tried_where_triton_launches_its_kernels(
    device: str, chosen: list[torch.device], tiny_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    current: list[torch.device] = []
    seen: list[list[torch.device]] = []

    @contextmanager
    def use(target: torch.device) -> Iterator[None]:
        current.append(target)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", use)
    monkeypatch.setattr(loading, "pick_device", torch.device)
    for name in ("place", "pick_attention"):
        monkeypatch.setattr(loading, name, lambda *_: seen.append(list(current)))
    monkeypatch.setattr(loading, "Backbone", lambda *_, **parts: SimpleNamespace(**parts))
    assert load_backbone(str(tiny_folder("sd1")), device=device, dtype="float32").device == torch.device(device)
    assert seen == [chosen, chosen] and not current
