"""`torch.compile` as an option: the whole UNet for passes that are all alike, its residual blocks for the others.

A pass is compiled for one batch size, and smaller batches are filled up. What cannot be compiled is said once, and
goes on as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from adaflow_core.types import Stopped

logger = logging.getLogger(__name__)

# Residual blocks of different widths are one piece of code, which torch compiles eight times and then no more.
RECOMPILE_LIMIT = 256


class CompiledForward:
    """The UNet under its present processors, compiled for batches of `rows`; called as the UNet is."""

    def __init__(self, unet: Any, rows: int) -> None:
        self._unet, self._rows = unet, rows
        self._compiled: Any = torch.compile(unet.forward, dynamic=False)

    def __call__(self, sample: Tensor, time: Tensor, *, encoder_hidden_states: Tensor, return_dict: bool) -> Any:
        rows = len(sample)
        if self._compiled is not None and rows <= self._rows:
            missing = self._rows - rows
            full = [_filled(x, missing) for x in (sample, encoder_hidden_states)]
            try:
                output = self._compiled(full[0], time, encoder_hidden_states=full[1], return_dict=False)[0]
                return (output[:rows],)
            except Stopped:
                raise
            except torch.OutOfMemoryError:
                self._compiled = None  # the caller halves its batch, which must not be filled up again
                raise
            except Exception as problem:  # compilers fail in many ways, and all of them mean the plain pass
                _say(problem)
                self._compiled = None
        return self._unet(sample, time, encoder_hidden_states=encoder_hidden_states, return_dict=return_dict)


def _filled(x: Tensor, missing: int) -> Tensor:
    """`missing` rows more, copies of the last; in any case laid out as a batch of its own."""
    return torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) if missing else x


@contextmanager
def compiled_blocks(unet: Any, wanted: bool) -> Iterator[None]:
    """The residual blocks and feed-forwards compiled for the time of the `with` block, whatever processors there are.

    The block whose convolution is injected stays as it is: its hook ends passes.
    """
    if not wanted:
        yield
        return
    injected = unet.up_blocks[1].resnets[1]
    kinds = ("ResnetBlock2D", "FeedForward")
    modules = [m for m in unet.modules() if type(m).__name__ in kinds and m is not injected]
    before = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    try:
        failed: list[Exception] = []
        for module in modules:
            module.compile()
            module._compiled_call_impl = _Forgiving(module, failed)
        yield
    finally:
        torch._dynamo.config.recompile_limit = before
        for module in modules:
            module._compiled_call_impl = None


class _Forgiving:
    """A module's compiled call for batches of any size; the plain one where that fails."""

    def __init__(self, module: Any, failed: list[Exception]) -> None:
        self._module, self._compiled, self._failed = module, module._compiled_call_impl, failed

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._compiled is not None:
            for x in args:
                if isinstance(x, Tensor):
                    torch._dynamo.maybe_mark_dynamic(x, 0)
            try:
                return self._compiled(*args, **kwargs)
            except (Stopped, torch.OutOfMemoryError):
                raise
            except Exception as problem:
                if not self._failed:
                    _say(problem)
                self._failed.append(problem)
                self._compiled = None
        return self._module._call_impl(*args, **kwargs)


def _say(problem: Exception) -> None:
    logger.warning("torch.compile fails here (%s); going on without it", str(problem).strip().split("\n")[0][:200])
