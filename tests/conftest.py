"""What all tests share: the machine's cores, what it lacks, and a small drawn clip."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from adaflow_core.model.backbone import Backbone

# Kernels run by Triton's interpreter where there is no GPU; Triton reads this when it is first imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# No test asks the real Hub, which where there is no network takes long to fail. What asks a Hub of its own unsets this.
os.environ["HF_HUB_OFFLINE"] = "1"

# The workers of pytest-xdist share the cores; more threads than cores make small tensors slow.
_share = max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", _share)))


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacks = {
        "gpu": None if torch.cuda.is_available() else "no CUDA device here",
        "browser": None if _chromium() else "no Chromium here (apt install chromium)",
    }
    for item in items:
        for marker, reason in lacks.items():
            if reason is not None and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
    # Files with slow tests come first, so that no worker is left alone with one of them at the end.
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def calibrated_once() -> Iterator[None]:
    """A model is timed once for each size of frame, not again for each empty cache: the machine is the same."""
    # Where no test needs it, it is not imported.
    if forecast := sys.modules.get("adaflow_core.editing.forecasting.forecast"):
        made: dict[object, object] = {}

        def calibrate(backbone: Backbone, width: int, height: int) -> object:
            key = backbone.fingerprint, backbone.dtype, backbone.attend, width, height, torch.get_num_threads()
            if key not in made:
                made[key] = measure(backbone, width, height)
            return made[key]

        with pytest.MonkeyPatch.context() as patch:
            measure = forecast.calibrate
            patch.setattr(forecast, "calibrate", calibrate)
            yield
    else:
        yield


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in a fork: another number of threads sums in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where the browser is, for tests marked `browser`."""
    path = _chromium()
    assert path is not None
    return path


@pytest.fixture(scope="session")
def drawn_frames() -> np.ndarray:
    """[12, 64, 64, 3] uint8: a thing drifts through a drawn scene. Read-only."""
    from scenes.render import render
    from scenes.world import sample

    batch = sample(1, seed=0, split="test", motion="drift")
    rgb = render(batch, torch.linspace(0, 1, 12), size=64).rgb[0]  # [12, 3, 64, 64] in 0..1
    frames = (rgb.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    frames.setflags(write=False)
    return frames


@pytest.fixture(scope="session")
def drawn_clip(drawn_frames: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`drawn_frames` as a file of 12 frames a second."""
    from fractions import Fraction

    from adaflow_core.video.write import write_video

    return write_video(tmp_path_factory.mktemp("clips") / "drawn.mp4", drawn_frames, Fraction(12))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Layout ("sd1", "sd2", "v") -> the folder of a narrow pipeline with random weights."""
    from helpers.models.pipelines import save_pipeline

    @cache
    def folder(layout: str) -> Path:
        return save_pipeline(layout, tmp_path_factory.mktemp("tiny") / layout)

    return folder


@pytest.fixture(scope="session")
def tiny_backbone(tiny_folder: Callable[[str], Path]) -> Callable[[str], Backbone]:
    """Layout -> the engine's model, loaded once."""
    from adaflow_core.model.loading import load_backbone

    # Arithmetic is pinned in float32, whatever the processor would take by itself.
    return cache(lambda layout: load_backbone(str(tiny_folder(layout)), device="cpu", dtype="float32"))
