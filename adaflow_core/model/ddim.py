"""DDIM in both directions (arXiv 2010.02502, eq. 12): the grids of timesteps and one deterministic move.

It computes what diffusers' `DDIMScheduler` and `DDIMInverseScheduler` compute in the Stable Diffusion pipeline, where
nothing is clipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Prediction = Literal["epsilon", "v_prediction"]
Spacing = Literal["leading", "trailing", "linspace"]
CLEAN = -1  # stands for "no noise left" where a timestep is expected


@dataclass(frozen=True)
class Schedule:
    """The noise schedule of a checkpoint."""

    alphas_cumprod: Tensor  # [train_steps] float64 on the CPU
    prediction: Prediction = "epsilon"
    offset: int = 1  # `steps_offset`: the first visited timestep for leading spacing
    spacing: Spacing = "leading"  # of the visited timesteps (arXiv 2305.08891, table 2)
    ends_clean: bool = False  # `set_alpha_to_one`: `CLEAN` has no noise; else that of timestep 0

    @property
    def train_steps(self) -> int:
        return len(self.alphas_cumprod)

    def alpha(self, timestep: int) -> float:
        """Return the cumulative alpha at a timestep, or at `CLEAN`."""
        if timestep < 0 and self.ends_clean:
            return 1.0
        return float(self.alphas_cumprod[max(timestep, 0)])


def edit_timesteps(schedule: Schedule, steps: int) -> np.ndarray:
    """Return the timesteps that an edit of S steps visits, [S] int64, descending."""
    T = schedule.train_steps
    if schedule.spacing == "linspace":
        return np.linspace(0, T - 1, steps).round()[::-1].astype(np.int64)
    if schedule.spacing == "trailing":
        return np.round(np.arange(T, 0, -T / steps)[:steps]).astype(np.int64) - 1
    return (np.arange(steps) * (T // steps) + schedule.offset)[::-1].copy().clip(max=T - 1)


def step_targets(schedule: Schedule, timesteps: np.ndarray) -> np.ndarray:
    """Return the timestep whose noise level a step from each visited timestep leads to, or `CLEAN`: [S] int64.

    diffusers takes equal strides. If the timesteps are not evenly spaced, as with linspace, a step does not end at the
    level of the next timestep but a little before it, in sampling and in inversion alike.
    """
    return np.maximum(timesteps - schedule.train_steps // len(timesteps), CLEAN)


def inversion_moves(schedule: Schedule, timesteps: np.ndarray, factor: int) -> list[tuple[int, int]]:
    """Return the moves (from, to) of an inversion, ascending: the edit's steps reversed.

    Each step but the first is cut into `factor` moves, (S - 1) * factor + 1 in all. The moves to the timesteps that the
    edit visits are at the positions 0, factor, 2 * factor ..., so every stored latent is computed, not interpolated.
    """
    ascending = timesteps[::-1]
    origins = step_targets(schedule, ascending)
    moves = [(int(origins[0]), int(ascending[0]))]
    for low, high in zip(origins[1:], ascending[1:], strict=True):
        marks = np.round(np.linspace(low, high, factor + 1)).astype(int).tolist()
        moves += pairwise(marks)
    return moves


def predict_x0_eps(schedule: Schedule, sample: Tensor, output: Tensor, timestep: int) -> tuple[Tensor, Tensor]:
    """Return (x0, epsilon) from the model's output for a sample with the noise level of `timestep`."""
    alpha = schedule.alpha(timestep)
    signal, noise = alpha**0.5, (1 - alpha) ** 0.5
    if schedule.prediction == "v_prediction":
        return signal * sample - noise * output, signal * output + noise * sample
    return (sample - noise * output) / signal, output


def ddim_step(schedule: Schedule, sample: Tensor, output: Tensor, origin: int, target: int) -> Tensor:
    """Move a sample by deterministic DDIM from the noise level `origin` to `target`, in either direction."""
    return add_noise(schedule, *predict_x0_eps(schedule, sample, output, origin), target)


def add_noise(schedule: Schedule, clean: Tensor, noise: Tensor, timestep: int) -> Tensor:
    alpha = schedule.alpha(timestep)
    return alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise


def cfg(negative: Tensor, positive: Tensor, scale: float, rescale: float = 0.0) -> Tensor:
    """Apply classifier-free guidance (arXiv 2207.12598) to outputs [B, 4, h, w].

    `rescale`: how far to rescale the standard deviation to the positive output's, 0..1 (arXiv 2305.08891, section 3.4).
    """
    guided = torch.lerp(negative, positive, scale)
    if not rescale:
        return guided
    spread = positive.std(dim=(1, 2, 3), keepdim=True) / guided.std(dim=(1, 2, 3), keepdim=True).clamp(min=1e-8)
    return guided * torch.lerp(torch.ones_like(spread), spread, rescale)
