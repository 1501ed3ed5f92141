"""What bounds the memory of a pass changes nothing of its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.model import memory as bounded
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.memory import HostOutputs, feed_forward_part
from adaflow_core.storage.cache import Cache


def test_parts_are_equal_and_small() -> None:
    assert [feed_forward_part(rows, 64) for rows in (1, 64, 288, 192, 291, 194)] == [1, 64, 48, 64, 97, 97]


def test_only_the_keyframes_asked_for_come_back() -> None:
    host = HostOutputs()
    outputs = torch.randn(2, 5, 3, 4)
    kept = host.keep("layer", outputs)
    assert torch.equal(host.fetch(kept, [1, 4], torch.device("cpu")), outputs[:, [1, 4]])
    assert host.keep("layer", 2 * outputs) is kept and torch.equal(kept, 2 * outputs)


@pytest.mark.parametrize("method", ["adaflow", pytest.param("tokenflow", marks=pytest.mark.thorough)])
def test_an_edit_in_low_memory_is_the_same(
    method: str,
    tiny_backbone: Callable[[str], Backbone],
    drawn_frames: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backbone = tiny_backbone("sd2")
    engine = AdaFlow(backbone, Cache(tmp_path))
    plan = engine.plan(drawn_frames, PlanConfig(method=method, keyframes=3))
    propagation = "output" if method == "tokenflow" else "change"
    config = EditConfig(
        steps=2, injection_attention=0.5, fidelity=0.0, propagation=propagation, agreements=0
    )  # fmt: skip
    expected = engine.edit(plan, "a blue ball", config).frames
    monkeypatch.setattr(bounded, "FEED_FORWARD_ROWS", 2)
    found = engine.edit(plan, "a blue ball", replace(config, low_memory=True)).frames
    assert np.abs(found.astype(int) - expected.astype(int)).mean() < 0.02  # sums in other orders
    blocks = [module for module in backbone.unet.modules() if hasattr(module, "_chunk_size")]
    assert blocks and all(block._chunk_size is None for block in blocks)
