"""DDIM in both directions (arXiv 2010.02502, eq. 12): the grids of timesteps and one deterministic move.

Nothing is ever clipped, and the clean end uses the schedule's first value (`set_alpha_to_one=False`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Prediction = Literal["epsilon", "v_prediction"]
CLEAN = -1  # stands for "no noise left" where a timestep is expected


@dataclass(frozen=True)
class Schedule:
    """The noise schedule of a checkpoint."""

    alphas_cumprod: Tensor  # [train_steps] float64 on the CPU
    prediction: Prediction = "epsilon"
    offset: int = 1  # `steps_offset`: the first visited timestep

    @property
    def train_steps(self) -> int:
        return len(self.alphas_cumprod)

    def alpha(self, timestep: int) -> float:
        """The cumulative signal share at a timestep, or at `CLEAN`."""
        return float(self.alphas_cumprod[max(timestep, 0)])


def edit_timesteps(schedule: Schedule, steps: int) -> np.ndarray:
    """[S] int64, descending: the "leading" spacing that SD's schedulers use."""
    stride = schedule.train_steps // steps
    return (np.arange(steps) * stride + schedule.offset)[::-1].copy().clip(max=schedule.train_steps - 1)


def inversion_timesteps(timesteps: np.ndarray, factor: int) -> np.ndarray:
    """[(S - 1) * factor + 1] int64, ascending: the edit's grid with every interval cut into `factor`.

    Every timestep that the edit visits is in it, so that each stored latent is one that was computed;
    they stand at the positions 0, factor, 2*factor ...
    """
    ascending = timesteps[::-1]
    marks = np.arange((len(ascending) - 1) * factor + 1) / factor
    return np.round(np.interp(marks, np.arange(len(ascending)), ascending)).astype(np.int64)


def predict_x0_eps(schedule: Schedule, sample: Tensor, output: Tensor, timestep: int) -> tuple[Tensor, Tensor]:
    """(x0, epsilon) from the model's output for a sample whose noise level is that of `timestep`."""
    alpha = schedule.alpha(timestep)
    signal, noise = alpha**0.5, (1 - alpha) ** 0.5
    if schedule.prediction == "v_prediction":
        return signal * sample - noise * output, signal * output + noise * sample
    return (sample - noise * output) / signal, output


def ddim_step(schedule: Schedule, sample: Tensor, output: Tensor, origin: int, target: int) -> Tensor:
    """The deterministic DDIM move from the noise level `origin` to `target`, towards noise or away from it."""
    return add_noise(schedule, *predict_x0_eps(schedule, sample, output, origin), target)


def add_noise(schedule: Schedule, clean: Tensor, noise: Tensor, timestep: int) -> Tensor:
    alpha = schedule.alpha(timestep)
    return alpha**0.5 * clean + (1 - alpha) ** 0.5 * noise


def cfg(negative: Tensor, positive: Tensor, scale: float, rescale: float = 0.0) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598) of outputs [B, 4, h, w].

    `rescale`: how far its spread is brought back to the positive output's (arXiv 2305.08891, section 3.4), 0..1.
    """
    guided = torch.lerp(negative, positive, scale)
    if not rescale:
        return guided
    spread = positive.std(dim=(1, 2, 3), keepdim=True) / guided.std(dim=(1, 2, 3), keepdim=True).clamp(min=1e-8)
    return guided * torch.lerp(torch.ones_like(spread), spread, rescale)
