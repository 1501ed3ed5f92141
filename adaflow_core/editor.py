"""The denoising loop: all keyframes jointly, then every other frame along its correspondence.

AdaFlow (arXiv 2502.05433) with Plug-and-Play injection (arXiv 2211.12572). By default what propagates is not a
keyframe's self-attention output but what the edit changed of it: each frame adds that to its own source's output.
Where a correspondence is a little off, the frame then keeps its own detail, and an edit that changes nothing
gives the source back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from adaflow_core.attention import AttentionState, ConvInjection, Halt, editing_attention, forward_hook, injected_conv
from adaflow_core.backbone import Backbone
from adaflow_core.bounded import HostOutputs, cut_feed_forwards
from adaflow_core.config import EditConfig
from adaflow_core.ddim import CLEAN, add_noise, guide, move, split
from adaflow_core.memory import in_chunks
from adaflow_core.progress import Monitor
from adaflow_core.resume import Checkpoint
from adaflow_core.storage.arrays import scratch
from adaflow_core.transfer import BLOCK, upload
from adaflow_core.types import Embedding, Inversion, Layout

LATENTS_ON_DEVICE = 2**30  # bytes of x up to which it stays there: 16,000 frames of 384x672
PART_OF_LARGEST = 0.5  # what counts as the usual change of an edit that leaves most of a frame as it is
Layouts = Callable[[int], Layout]
"""Step -> the keyframes, kept tokens and correspondences that hold in it."""


@dataclass
class _Step:
    """What one denoising step knows."""

    timestep: int
    target: int  # the next timestep, or CLEAN
    layout: Layout
    source: np.ndarray  # [T, 4, h, w] the inversion's latents at this timestep
    source_after: np.ndarray  # and at the next
    guided: bool
    inject_attention: bool
    inject_conv: bool


class Editor:
    """Runs one edit. The UNet carries its processors and hooks only inside `run`."""

    def __init__(
        self,
        backbone: Backbone,
        source: Embedding,
        negative: Embedding,
        positive: Embedding,
        config: EditConfig,
        monitor: Monitor,
    ) -> None:
        assert config.guidance is not None and config.chunk
        assert config.fidelity is not None and config.tolerance is not None
        self.backbone, self.config, self.monitor = backbone, config, monitor
        self.chunk, self.fidelity = config.chunk, config.fidelity
        self.tolerance = config.tolerance
        self.guidance = config.guidance
        self.source = source.states
        self.prompts = [negative.states, positive.states]
        self.edit = self.prompts  # of the present step: unguided ones need the positive alone
        self.attention = AttentionState(
            attend=backbone.attend,
            gather=backbone.gather,
            check=monitor.check,
            changes=config.propagation == "change",
            host=HostOutputs() if config.low_memory else None,
        )
        self.conv = ConvInjection()

    @torch.inference_mode()
    def run(
        self,
        inversion: Inversion,
        clean: np.ndarray,  # [T, 4, h, w]
        layouts: Layouts,
        preview: Callable[[Tensor], np.ndarray] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> tuple[Tensor, int]:
        """Edited clean latents [T, 4, h, w] float32, on the device or not, and after how many steps it went on.

        `clean` are the source's. `preview` turns the keyframes' predicted clean latents [K, 4, h, w] into small
        pictures. `checkpoint` is where each step's latents are left, and taken up from.
        """
        backbone, config = self.backbone, self.config
        timesteps = [int(t) for t in inversion.timesteps]
        S = len(timesteps)
        x = self._room(inversion.latents.shape[1:])  # [T, 4, h, w]
        T, home = len(x), x.device
        resumed = 0 if checkpoint is None else checkpoint.load(x)
        if not resumed:
            for begin in range(0, T, BLOCK):
                x[begin : begin + BLOCK] = upload(inversion.latents[0, begin : begin + BLOCK], home).float()
        with (
            editing_attention(backbone.unet, self.attention),
            forward_hook(injected_conv(backbone.unet), self.conv),
            cut_feed_forwards(backbone.unet) as self.feed_forwards,
            self.monitor.stage("edit", S * T) as stage,
        ):
            laid_out = None
            stage.skip(resumed * T)
            for i, timestep in enumerate(timesteps[resumed:], start=resumed):
                last = i + 1 == S
                step = _Step(
                    timestep,
                    CLEAN if last else timesteps[i + 1],
                    layouts(i),
                    inversion.latents[i],
                    clean if last else inversion.latents[i + 1],
                    guided=i < config.guided_steps,
                    inject_attention=i < round((config.injection_attention or 0.0) * S),
                    inject_conv=i < round((config.injection_conv or 0.0) * S),
                )
                # Without guidance the negative prediction has no part in the result.
                self.edit = self.prompts if step.guided else self.prompts[1:]
                self.attention.edits, self.conv.branches = len(self.edit), 1 + len(self.edit)
                if step.layout is not laid_out:
                    self._lay_out(step.layout)
                    laid_out = step.layout
                keyframes = step.layout.keyframes
                if step.layout.slimming is None:
                    parts = np.array_split(keyframes, -(-len(keyframes) // self.chunk))
                else:
                    parts = [keyframes]
                for part in parts:
                    there = upload(part, home)
                    moved, guided = self._keyframe_pass(x[there], step, part)
                    x[there] = moved.to(home)
                    picture = None
                    if preview is not None and len(parts) == 1:
                        picture = preview(guided)
                    stage.advance(len(part), preview=picture)
                others = np.setdiff1d(np.arange(T), keyframes)

                def propagate(part: slice, step: _Step = step, others: np.ndarray = others) -> None:
                    frames = others[part]
                    there = upload(frames, home)
                    x[there] = self._propagation_pass(x[there], step, frames).to(home)
                    stage.advance(len(frames))

                self.chunk = in_chunks(len(others), self.chunk, propagate)
                self.attention.outputs.clear()
                self.attention.key_tokens.clear()
                if checkpoint is not None:
                    checkpoint.save(i + 1, x)
        return x, resumed

    def _room(self, shape: tuple[int, ...]) -> Tensor:
        """Uninitialised float32: on the device, where no pass has to wait for its latents, or in a file."""
        if 4 * math.prod(shape) <= LATENTS_ON_DEVICE:
            return torch.empty(shape, device=self.backbone.device)
        return torch.from_numpy(scratch(np.float32, shape))

    def _lay_out(self, layout: Layout) -> None:
        """What all passes of a layout share, on the device."""
        state, slimming, device = self.attention, layout.slimming, self.backbone.device
        state.match = layout.correspondence.by_layer
        state.kept, state.sampled = None, {}
        if slimming is not None:
            state.kept = {g.n: upload(part.kept, device).long() for g, part in slimming.items()}
            state.sampled = {g.n: (part.sampled, part.mass) for g, part in slimming.items()}

    def _keyframe_pass(self, x: Tensor, step: _Step, frames: np.ndarray) -> tuple[Tensor, Tensor]:
        """The keyframes [K, 4, h, w] one step on; keeps every layer's self-attention output."""
        state = self.attention
        with_source = step.inject_attention or self._whole_source
        if step.inject_conv and not with_source:
            self._source_pass(step, frames)
        if step.inject_conv:
            self.conv.mode = "batch" if with_source else "stored"
        state.mode, state.source, state.inject = "keyframes", with_source, step.inject_attention
        state.keep_outputs = len(step.layout.keyframes) < len(step.source)
        try:
            output = self._predict(x, step, frames, with_source)
        finally:
            state.mode, state.source, state.inject, state.keep_outputs = "own", False, False, False
            self.conv.mode = "off"
        return self._move(x, output, step, frames)

    def _propagation_pass(self, x: Tensor, step: _Step, frames: np.ndarray) -> Tensor:
        """Frames [F, 4, h, w] one step on, their self-attention gathered from the keyframes."""
        state, device = self.attention, self.backbone.device
        with_source = self._whole_source
        if step.inject_conv and not with_source:
            self._source_pass(step, frames)
        if step.inject_conv:
            self.conv.mode = "batch" if with_source else "stored"
        correspondence = step.layout.correspondence
        slots = correspondence.slots[frames]
        # Where all frames name one keyframe twice, the second has no weight.
        P = 1 if (slots == slots[:, :1]).all() else 2
        if state.host is not None:
            used, slots = np.unique(slots, return_inverse=True)
            state.used, slots = used.tolist(), slots.reshape(len(frames), -1)
        state.slots = upload(slots[:, :P], device)
        state.index = {g.n: upload(index[frames, :P], device).long() for g, index in correspondence.index.items()}
        state.weights = {g.n: upload(weights[frames, :P], device) for g, weights in correspondence.weights.items()}
        state.mode, state.source = "propagate", with_source
        try:
            output = self._predict(x, step, frames, with_source)
        finally:
            state.mode, state.source, self.conv.mode = "own", False, "off"
        return self._move(x, output, step, frames)[0]

    @property
    def _whole_source(self) -> bool:
        """Whether every step needs the source's whole pass, and not only what is injected."""
        return self.config.whole_source or self.attention.match

    def _predict(self, x: Tensor, step: _Step, frames: np.ndarray, with_source: bool) -> Tensor:
        """The UNet's output by branch [1 to 3, F, 4, h, w]: the source's where it rides along, then the edit's."""
        latents, states = [x.to(self.backbone.device)] * len(self.edit), list(self.edit)
        if with_source:
            latents.insert(0, upload(step.source[frames], self.backbone.device).float())
            states.insert(0, self.source)
        self.attention.prompts = len(states)
        prompts = torch.cat([s.expand(len(frames), -1, -1) for s in states])
        self.feed_forwards.cut(len(prompts))
        output = self.backbone.predict(torch.cat(latents), step.timestep, prompts)
        return rearrange(output, "(b f) c h w -> b f c h w", f=len(frames))

    def _source_pass(self, step: _Step, frames: np.ndarray) -> None:
        """The source's features at the injected convolution into `self.conv.features`; the pass ends there."""
        self.conv.mode, self.attention.prompts = "record", 1
        self.feed_forwards.cut(len(frames))
        latents = upload(step.source[frames], self.backbone.device).float()
        with suppress(Halt):
            self.backbone.predict(latents, step.timestep, self.source)
        self.conv.mode = "off"

    def _move(self, x: Tensor, output: Tensor, step: _Step, frames: np.ndarray) -> tuple[Tensor, Tensor]:
        """One guided DDIM step of `x`, and the clean latents it heads for; `output` as `_predict` gives it.

        Changes of the source within `tolerance` are taken back. What the source's own step misses of the stored path
        is added back by `fidelity` ("direct inversion", arXiv 2310.01506). Where both prompts agree, the edit then
        stays on the source.
        """
        schedule, device = self.backbone.schedule, self.backbone.device
        x = x.to(device)
        guided = output[-1] if len(self.edit) == 1 else guide(output[-2], output[-1], self.guidance)
        here = upload(step.source[frames], device).float()
        clean, noise = split(schedule, x, guided, step.timestep)
        if self.tolerance > 0:
            before = split(schedule, here, output[0], step.timestep)[0]
            clean = before + (clean - before) * significance(clean - before, self.tolerance)
            alpha = schedule.alpha(step.timestep)
            noise = (x - alpha**0.5 * clean) / (1 - alpha) ** 0.5
        moved = add_noise(schedule, clean, noise, step.target)
        if self.fidelity > 0:
            there = upload(step.source_after[frames], device).float()
            moved += self.fidelity * (there - move(schedule, here, output[0], step.timestep, step.target))
        return moved, clean


def significance(change: Tensor, tolerance: float) -> Tensor:
    """[F, 1, h, w] how much of a change [F, 4, h, w] of the predicted clean latents to believe.

    Nothing below `tolerance` times what is usual in the frame, all from three times that; a change is measured by its
    root mean square over 3x3 tokens. What an edit leaves alone moves a little at every step, and those movements add
    up. Usual is the median; where most of the frame stays as it is, a part of the largest change instead.
    """
    size = F.avg_pool2d(change.square().mean(dim=1, keepdim=True), 3, stride=1, padding=1, count_include_pad=False)
    size = size.sqrt()
    sizes = size.flatten(1)
    usual = torch.maximum(sizes.median(dim=1).values, PART_OF_LARGEST * sizes.quantile(0.98, dim=1))
    low = tolerance * usual.clamp(1e-6, 1.0)[:, None, None, None]
    return ((size - low) / (2 * low)).clamp(0, 1)
