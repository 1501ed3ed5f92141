"""The denoising loop: all keyframes jointly, then every other frame along its correspondence.

AdaFlow (arXiv 2502.05433) with Plug-and-Play injection (arXiv 2211.12572).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from adaflow_core.attention import AttentionState, Halt, editing_attention, forward_hook
from adaflow_core.backbone import Backbone
from adaflow_core.config import EditConfig
from adaflow_core.ddim import CLEAN, guide, move, split
from adaflow_core.types import Embedding, Inversion, Layout, Monitor

Layouts = Callable[[int], Layout]
"""Step -> the keyframes, kept tokens and correspondences that hold in it."""


@dataclass
class ConvInjection:
    """Plug-and-Play's feature injection: the source's output of one convolution in the edit branches.

    `mode`: "off"; "record" takes the output and ends the pass; "stored" puts `features` in both edit
    branches; "batch" copies the batch's first branch of three over the other two.
    """

    mode: str = "off"
    features: Tensor | None = None  # [F, c, h, w]

    def __call__(self, _module: Any, _inputs: Any, output: Tensor) -> Tensor | None:
        if self.mode == "record":
            self.features = output
            raise Halt
        if self.mode == "stored":
            assert self.features is not None
            return self.features.repeat(2, 1, 1, 1)
        if self.mode == "batch":
            return output[: len(output) // 3].repeat(3, 1, 1, 1)
        return None


@dataclass
class _Step:
    """What one denoising step knows."""

    timestep: int
    layout: Layout
    source: np.ndarray  # [T, 4, h, w] the inversion's latents at this timestep
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
        assert config.steps and config.guidance and config.chunk
        self.backbone, self.config, self.monitor = backbone, config, monitor
        self.chunk, self.guidance = config.chunk, config.guidance
        self.source = source.states
        self.edit = torch.cat([negative.states, positive.states])  # [2, L, d]
        self.attention = AttentionState(attend=backbone.attend, check=monitor.check)
        self.conv = ConvInjection()

    @torch.inference_mode()
    def run(
        self,
        inversion: Inversion,
        layouts: Layouts,
        preview: Callable[[Tensor], np.ndarray] | None = None,
    ) -> Tensor:
        """Edited clean latents [T, 4, h, w] float32 on the CPU.

        `preview` turns the keyframes' predicted clean latents [K, 4, h, w] into small pictures.
        """
        backbone, config = self.backbone, self.config
        timesteps = [int(t) for t in inversion.timesteps]
        S = len(timesteps)
        x = torch.from_numpy(np.array(inversion.latents[0], dtype=np.float32))  # [T, 4, h, w]
        T = len(x)
        conv = backbone.unet.up_blocks[1].resnets[1].conv2
        with (
            editing_attention(backbone.unet, self.attention),
            forward_hook(conv, self.conv),
            self.monitor.stage("edit", S * T) as stage,
        ):
            for i, timestep in enumerate(timesteps):
                step = _Step(
                    timestep,
                    layouts(i),
                    inversion.latents[i],
                    inject_attention=i < round((config.injection_attention or 0.0) * S),
                    inject_conv=i < round((config.injection_conv or 0.0) * S),
                )
                target = timesteps[i + 1] if i + 1 < S else CLEAN
                keyframes = step.layout.keyframes
                picture = None
                if step.layout.slimming is None:
                    parts = np.array_split(keyframes, -(-len(keyframes) // self.chunk))
                else:
                    parts = [keyframes]
                for part in parts:
                    output = self._keyframe_pass(x[part], step, part)
                    if preview is not None and len(parts) == 1:
                        picture = preview(split(backbone.schedule, x[part], output, timestep)[0])
                    x[part] = move(backbone.schedule, x[part], output, timestep, target)
                    stage.advance(len(part), preview=picture)
                others = np.setdiff1d(np.arange(T), keyframes)
                for start in range(0, len(others), self.chunk):
                    part = others[start : start + self.chunk]
                    output = self._propagation_pass(x[part], step, part)
                    x[part] = move(backbone.schedule, x[part], output, timestep, target)
                    stage.advance(len(part))
                self.attention.outputs.clear()
        return x

    def _keyframe_pass(self, x: Tensor, step: _Step, frames: np.ndarray) -> Tensor:
        """The guided output [K, 4, h, w] of the keyframes; keeps every layer's self-attention output."""
        state, slimming = self.attention, step.layout.slimming
        state.kept = None
        if slimming is not None:
            state.kept = {
                grid.n: torch.from_numpy(part.kept).to(self.backbone.device).long()
                for grid, part in slimming.items()
            }
        if step.inject_conv and not step.inject_attention:
            self._record_source(step, frames)
        state.mode, state.inject = "keyframes", step.inject_attention
        state.keep_outputs = len(step.layout.keyframes) < len(step.source)
        if step.inject_conv:
            self.conv.mode = "batch" if step.inject_attention else "stored"
        try:
            return self._guided(x, step, frames)
        finally:
            state.mode, state.inject, state.keep_outputs, self.conv.mode = (
                "own",
                False,
                False,
                "off",
            )

    def _propagation_pass(self, x: Tensor, step: _Step, frames: np.ndarray) -> Tensor:
        """The guided output [F, 4, h, w] of frames whose self-attention is gathered from the keyframes."""
        state, device = self.attention, self.backbone.device
        correspondence = step.layout.correspondence
        if step.inject_conv:
            self._record_source(step, frames)
            self.conv.mode = "stored"
        state.slots = torch.from_numpy(correspondence.slots[frames]).to(device)
        state.index = {
            g.n: torch.from_numpy(index[frames]).to(device).long() for g, index in correspondence.index.items()
        }
        state.weights = {
            g.n: torch.from_numpy(weights[frames]).to(device) for g, weights in correspondence.weights.items()
        }
        state.mode = "propagate"
        try:
            return self._guided(x, step, frames)
        finally:
            state.mode, self.conv.mode = "own", "off"

    def _guided(self, x: Tensor, step: _Step, frames: np.ndarray) -> Tensor:
        """The edit branches' guided output [F, 4, h, w]; the source branch rides along where it is injected."""
        latents, states = [x, x], [self.edit[:1], self.edit[1:]]
        if self.attention.inject:
            latents.insert(0, torch.from_numpy(np.array(step.source[frames])).float())
            states.insert(0, self.source)
        batch = torch.cat(latents)
        prompts = torch.cat([s.expand(len(frames), -1, -1) for s in states])
        output = self.backbone.predict(batch, step.timestep, prompts)
        negative, positive = rearrange(output, "(b f) c h w -> b f c h w", f=len(frames))[-2:]
        return guide(negative, positive, self.guidance).cpu()

    def _record_source(self, step: _Step, frames: np.ndarray) -> None:
        """The source's features at the injected convolution, into `self.conv.features`; ends the pass there."""
        self.attention.mode, self.conv.mode = "own", "record"
        latents = torch.from_numpy(np.array(step.source[frames])).float()
        try:
            self.backbone.predict(latents, step.timestep, self.source)
        except Halt:
            self.conv.mode = "off"
