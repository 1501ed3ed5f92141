"""What keeps a pass over many keyframes small: feed-forwards by parts, and kept outputs in the host's memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

# Rows of a batch that a feed-forward takes at once: its gate is eight times as wide as what goes in.
FEED_FORWARD_ROWS = 64


def feed_forward_part(rows: int, limit: int) -> int:
    """How many rows a feed-forward takes at once: parts must be equal, so a divisor of the batch."""
    divisors = [part for part in range(1, rows + 1) if rows % part == 0]
    small = [part for part in divisors if part <= limit]
    if small[-1] * 4 >= min(rows, limit):
        return small[-1]
    return divisors[len(small)]  # a large prime: rather one part that is too large than many that are too small


class FeedForwards:
    """The UNet's transformer blocks, told before each pass into what parts to cut their feed-forward."""

    def __init__(self, unet: Any) -> None:
        self._blocks = [module for module in unet.modules() if hasattr(module, "set_chunk_feed_forward")]
        self._part: int | None = None

    def cut(self, rows: int | None, limit: int | None = None) -> None:
        """For a batch of `rows`, of which `limit` may be taken at once; None: whole, as it was."""
        limit = limit or FEED_FORWARD_ROWS
        part = None if rows is None or rows <= limit else feed_forward_part(rows, limit)
        if part != self._part:
            for block in self._blocks:
                block.set_chunk_feed_forward(part, 0)
            self._part = part


@contextmanager
def cut_feed_forwards(unet: Any) -> Iterator[FeedForwards]:
    """For the time of the `with` block; whole again on the way out."""
    feed_forwards = FeedForwards(unet)
    try:
        yield feed_forwards
    finally:
        feed_forwards.cut(None)


@dataclass
class HostOutputs:
    """The keyframes' outputs in pinned host memory; a chunk of frames fetches those of its few keyframes.

    Copies both ways are given to the device in order with its work, so nothing waits for them here.
    """

    buffers: dict[str, Tensor] = field(default_factory=dict)  # layer -> [edits, K, n, d], kept from step to step

    def keep(self, layer: str, outputs: Tensor) -> Tensor:  # [edits, K, n, d] -> the same on the host
        buffer = self.buffers.get(layer)
        if buffer is None or buffer.shape != outputs.shape:
            pinned = outputs.device.type == "cuda"
            buffer = torch.empty(outputs.shape, dtype=outputs.dtype, pin_memory=pinned)
            self.buffers[layer] = buffer
        return buffer.copy_(outputs, non_blocking=True)

    @staticmethod
    def fetch(kept: Tensor, used: list[int], device: torch.device) -> Tensor:
        """[edits, K, n, d] on the host -> [edits, len(used), n, d] on the device."""
        edits, _, n, d = kept.shape
        there = torch.empty(edits, len(used), n, d, device=device, dtype=kept.dtype)
        for source, target in zip(kept, there, strict=True):
            for place, keyframe in enumerate(used):
                target[place].copy_(source[keyframe], non_blocking=True)
        return there
