"""`torch.compile` as an option: the same results, plain passes where it fails, and nothing of it left behind."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from adaflow_core.attention import AttentionState, editing_attention
from adaflow_core.backbone import Backbone
from adaflow_core.compiled import CompiledForward, compiled_blocks

Tiny = Callable[[str], Backbone]


def inputs(backbone: Backbone, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return x, backbone.embed("a red ball").states


def eager(function: Any, **_options: Any) -> Any:
    """Dynamo without a compiler behind it: its tracing is what can go wrong, and a compiler takes a minute."""
    return real_compile(function, backend="eager")


real_compile = torch.compile


@torch.inference_mode()
def test_the_whole_unet(tiny_backbone: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", eager)
    backbone = tiny_backbone("sd2")
    with editing_attention(backbone.unet, AttentionState(attend=backbone.attend, prompts=1)):
        forward = CompiledForward(backbone.unet, 4)
        for rows in (4, 3):
            x, states = inputs(backbone, rows)
            found = backbone.predict(x, 500, states, forward)
            torch.testing.assert_close(found, backbone.predict(x, 500, states), rtol=1e-4, atol=1e-4)
        assert forward._compiled is not None


@torch.inference_mode()
def test_what_cannot_be_compiled_goes_on(
    tiny_backbone: Tiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    backbone = tiny_backbone("sd2")
    forward = CompiledForward(backbone.unet, 2)
    x, states = inputs(backbone, 2)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(backbone.predict(x, 500, states, forward), backbone.predict(x, 500, states))
        with compiled_blocks(backbone.unet, True):
            found = backbone.predict(x, 500, states)
    assert torch.equal(found, backbone.predict(x, 500, states))
    assert [record.getMessage().count("no compiler here") for record in caplog.records] == [1, 1]
    assert all(module._compiled_call_impl is None for module in backbone.unet.modules())


@torch.inference_mode()
def test_blocks(tiny_backbone: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", eager)
    backbone = tiny_backbone("sd2")
    with compiled_blocks(backbone.unet, True):
        for rows in (2, 3):
            x, states = inputs(backbone, rows)
            found = backbone.predict(x, 500, states)
            module = backbone.unet.up_blocks[0].resnets[0]
            assert module._compiled_call_impl._compiled is not None
            module._compiled_call_impl, kept = None, module._compiled_call_impl
            torch.testing.assert_close(found, backbone.predict(x, 500, states), rtol=1e-4, atol=1e-4)
            module._compiled_call_impl = kept
