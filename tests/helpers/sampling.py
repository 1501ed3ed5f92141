"""Text to image by the engine's model and its DDIM steps, as diffusers' pipeline does it."""

from __future__ import annotations

import torch

from adaflow_core.model.backbone import Backbone
from adaflow_core.model.ddim import cfg, ddim_step, edit_timesteps, step_targets


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def sampled(backbone: Backbone, noise: torch.Tensor, prompt: str, steps: int) -> torch.Tensor:
    x, negative, positive = noise, backbone.embed("").states, backbone.embed(prompt).states
    timesteps = edit_timesteps(backbone.schedule, steps)
    for here, there in zip(timesteps.tolist(), step_targets(backbone.schedule, timesteps).tolist(), strict=True):
        output = cfg(backbone.predict(x, here, negative), backbone.predict(x, here, positive), 7.5)
        x = ddim_step(backbone.schedule, x, output, here, there)
    return x
