"""What can be said of an edit without knowing what it should look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from adaflow_core.model.ddim import add_noise, predict_x0_eps
from adaflow_core.progress import Monitor
from adaflow_core.types import Plan

if TYPE_CHECKING:
    from adaflow_core.model.backbone import Backbone


LOOKED_AT = 8  # keyframes that the model is asked about
MOMENTS = (0.2, 0.4, 0.6, 0.8)  # of the noise schedule
SAME = 8.0  # levels of 0..255: a root mean square change of the colours that is none
STILL = 0.2  # levels: a mean change between frames that is none


@dataclass(frozen=True)
class Scores:
    """Three figures on one edit."""

    agreement: float  # 0..1, see `prompt_agreement`
    untouched: float  # 0..1, share of the pixels that are as in the source
    liveliness: float | None  # change from frame to frame, the source's is 1; None: the source stands still


def score(
    backbone: Backbone, plan: Plan, frames: np.ndarray, prompts: Sequence[tuple[str, str] | None], monitor: Monitor
) -> Scores:
    """`frames` [T, H, W, 3] uint8 are an edit of `plan`.

    `prompts` [T]: what each shows, and what its source shows; None: it is not edited.
    """
    source = plan.video.frames
    keyframes = np.array([t for t in plan.segments.keyframes.tolist() if prompts[t]], np.int64)
    chosen = keyframes[np.unique(np.linspace(0, len(keyframes) - 1, min(LOOKED_AT, len(keyframes))).astype(int))]
    with monitor.stage("score", len(chosen) * len(MOMENTS)) as stage:
        agreed = []
        for frame in chosen:
            texts = prompts[frame]
            assert texts is not None
            agreed.append(prompt_agreement(backbone, frames[frame : frame + 1], *texts))
            stage.advance(len(MOMENTS))
    agreement = float(np.mean(agreed)) if agreed else 0.0
    return Scores(agreement, untouched(frames, source), liveliness(frames, source, plan.segments.cuts))


@torch.inference_mode()
def prompt_agreement(backbone: Backbone, frames: np.ndarray, prompt: str, other: str) -> float:
    """The share of looks in which the model itself finds `prompt` to describe frames [F, H, W, 3] better than `other`.

    A look predicts the clean latents from noisy ones under both prompts; the nearer one wins. The diffusion model is
    its own classifier (Li et al. 2023, arXiv 2303.16203), so any checkpoint will do and nothing else is loaded.
    """
    clean = backbone.encode(frames).float().cpu()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    schedule, wins = backbone.schedule, []
    for moment in MOMENTS:
        timestep = round(moment * (schedule.train_steps - 1))
        noisy = add_noise(schedule, clean, noise, timestep)
        errors = []
        for text in (prompt, other):
            states = backbone.embed(text).states.expand(len(frames), -1, -1)
            predicted = predict_x0_eps(
                schedule, noisy, backbone.predict(noisy, timestep, states).cpu().float(), timestep
            )[0]
            errors.append((predicted - clean).square().mean((1, 2, 3)))
        wins.append((errors[0] < errors[1]).float().mean())
    return float(torch.stack(wins).mean())


def untouched(frames: np.ndarray, source: np.ndarray) -> float:
    """Share of the pixels [T, H, W] whose colour changed by less than `SAME`."""
    shares = []
    for t in range(len(frames)):
        change = frames[t].astype(np.float32) - source[t]
        shares.append(float((np.square(change).mean(axis=-1) < SAME**2).mean()))
    return float(np.mean(shares))


def liveliness(frames: np.ndarray, source: np.ndarray, cuts: np.ndarray) -> float | None:
    """Mean change from frame to frame, as a part of the source's; cuts do not count."""
    pairs = np.setdiff1d(np.arange(1, len(frames)), cuts)
    if not len(pairs):
        return None

    def change(video: np.ndarray) -> float:
        return float(np.mean([np.abs(video[t].astype(np.int16) - video[t - 1]).mean() for t in pairs]))

    before = change(source)
    return change(frames) / before if before > STILL else None


def psnr(first: np.ndarray, second: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB of uint8 pictures [..., H, W, 3], over `mask` [..., H, W] if given."""
    difference = first.astype(np.float64) - second.astype(np.float64)
    if mask is not None:
        difference = difference[mask]
    if not difference.size:
        return float("nan")
    error = float(np.mean(difference**2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))
