"""The injection of Plug-and-Play (arXiv 2211.12572): its steps, and the features that are injected.

The features are the source's output of one convolution; they replace that of the edit's branches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adaflow_core.config import FilledEdit
from adaflow_core.model.attention import Halt
from adaflow_core.planning.matching import on_grid
from adaflow_core.types import EditLayout

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


@dataclass(frozen=True)
class StepPasses:
    """The branches of the passes of one step, and which parts of the source are injected in it."""

    guided: bool
    inject_attention: bool
    inject_conv: bool
    inject_inside: bool  # the injection also applies in the place of the edit
    whole_source: bool  # frames need the source's whole pass, not only its injected features

    @property
    def edits(self) -> int:
        """The number of the edit's branches. Without guidance there is none for the negative prompt."""
        return 2 if self.guided else 1

    @property
    def keyframes_source(self) -> bool:
        """Whether the source's branch rides along in the keyframes' pass."""
        return self.inject_attention or self.whole_source


def step_passes(config: FilledEdit, layout: EditLayout) -> list[StepPasses]:
    """The passes of every step, for the edit and for its forecast, which does not know `structure` yet."""
    S = config.steps
    whole_source = config.whole_source or layout.correspondence.by_layer
    attention, conv = round(config.injection_attention * S), round(config.injection_conv * S)
    inside = S if config.structure is None else round(config.structure * S)
    return [StepPasses(i in config.guided_steps, i < attention, i < conv, i < inside, whole_source) for i in range(S)]


@dataclass
class ConvInjection:
    """The hook at that convolution."""

    features: Tensor | None = None  # [F, c, h, w]
    _mode: str = "off"
    _branches: int = 3
    _place: Tensor | None = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Within the block, a pass ends at the convolution, and its output becomes `features`."""
        with self._during("record"):
            yield

    @contextmanager
    def injecting(self, branches: int, *, source: bool, place: Tensor | None = None) -> Iterator[None]:
        """Within the block, the output of all branches is replaced: by that of the batch's first branch if it is the
        `source`'s, else by `features`.

        `place`: [F, h, w] 0..1, at any size; where it is 1 nothing is replaced. None: everything is.
        """
        with self._during("batch" if source else "stored", branches, place):
            yield

    @contextmanager
    def _during(self, mode: str, branches: int = 1, place: Tensor | None = None) -> Iterator[None]:
        self._mode, self._branches, self._place = mode, branches, place
        try:
            yield
        finally:
            self._mode, self._place = "off", None

    def __call__(self, _module: Any, _inputs: Any, output: Tensor) -> Tensor | None:
        if self._mode == "record":
            self.features = output
            raise Halt
        if self._mode == "off":
            return None
        features = self.features if self._mode == "stored" else output[: len(output) // self._branches]
        assert features is not None
        copies = len(output) // len(features)
        injected = torch.cat([features] * copies)  # which keeps the memory layout
        if self._place is None:
            return injected
        inside = on_grid(self._place, (output.shape[2], output.shape[3])).to(output.dtype)
        return torch.lerp(injected, output, inside[:, None].repeat(copies, 1, 1, 1))


def injected_conv(unet: UNet2DConditionModel) -> nn.Module:
    """The convolution whose output Plug-and-Play injects."""
    conv: nn.Module = unet.up_blocks[1].resnets[1].conv2
    return conv
