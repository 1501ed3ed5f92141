"""For whoever first has real weights: reconstruct, edit, and report what is off."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.editing.inversion import invert, load_inversion
from adaflow_core.engine import AdaFlow
from adaflow_core.model.ddim import CLEAN, ddim_step, edit_timesteps
from adaflow_core.model.loading import EMBEDDED
from adaflow_core.progress import Monitor, Progress
from adaflow_core.report.scores import psnr

CLIP = EMBEDDED.parent / "clips" / "ball.mp4"


@dataclass
class Findings:
    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def check(self, what: str, value: float, unit: str, low: float, advice: str) -> None:
        good = value >= low
        self.lines.append(f"{'ok  ' if good else 'FAIL'} {what}: {value:.1f} {unit} (at least {low:g} expected)")
        if not good:
            self.problems.append(f"{what} is {value:.1f} {unit}: {advice}")


@torch.inference_mode()
def selfcheck(
    engine: AdaFlow,
    video: Path | None = None,
    *,
    frames: int = 8,
    progress: Callable[[Progress], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Findings:
    """Autoencode, invert and sample back, edit; each against what a healthy checkpoint reaches."""
    findings = Findings()
    backbone = engine.backbone
    plan = engine.plan(video or CLIP, PlanConfig(keyframes=3), frames=slice(0, frames), progress=progress, stop=stop)
    source = np.asarray(plan.video.frames)
    latents = torch.cat([backbone.encode(source[t : t + 1]) for t in range(len(source))]).cpu()
    autoencoded = np.concatenate([backbone.decode(latents[t : t + 1]) for t in range(len(source))])
    findings.check(
        "autoencoder, PSNR to the source", psnr(source, autoencoded), "dB", 20,
        "wrong scaling factor, or half precision overflows in the VAE (try --dtype float32)",
    )  # fmt: skip
    findings.check(
        "latents, 100 / standard deviation distance from 1", 100 / (1 + abs(float(latents.std()) - 1)), "", 50,
        "the VAE's scaling factor does not belong to this checkpoint",
    )  # fmt: skip
    steps = max(25, backbone.profile.steps)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        invert(
            backbone, latents.numpy(), "", steps=steps, inversion_steps=steps, rows=backbone.rows(),
            folder=folder, monitor=Monitor(progress, stop),
        )  # fmt: skip
        x = torch.from_numpy(load_inversion(folder, backbone, steps, "").latents[0].astype(np.float32))
    noise = float(x.std())
    findings.check(
        "inverted noise, 100 / distance of its deviation from 1", 100 / (1 + abs(noise - 1)), "", 70,
        "wrong prediction type (epsilon or v) or schedule in the scheduler's configuration",
    )  # fmt: skip
    timesteps = [int(t) for t in edit_timesteps(backbone.schedule, steps)]
    states = backbone.embed("").states
    for here, there in zip(timesteps, [*timesteps[1:], CLEAN], strict=True):
        output = torch.cat([backbone.predict(x[t : t + 1], here, states).cpu() for t in range(len(x))])
        x = ddim_step(backbone.schedule, x, output, here, there)
    rebuilt = np.concatenate([backbone.decode(x[t : t + 1]) for t in range(len(x))])
    findings.check(
        "inversion and back, PSNR to the autoencoded source", psnr(autoencoded, rebuilt), "dB", 18,
        "wrong prediction type, timestep offset, or the UNet's precision",
    )  # fmt: skip
    agreement = 100 * plan.features.agreement
    findings.check("matches that survive the features' reduction", agreement, "%", 60, "the feature block is unusual")
    edited = engine.edit(plan, "a watercolour painting", EditConfig(), progress=progress, stop=stop)
    findings.check("edit, PSNR to the source", psnr(source, edited.frames), "dB", 8, "the edited frames are noise")
    difference = float(np.abs(edited.frames.astype(float) - source).mean())
    findings.check("edit, mean change", difference, "levels", 1, "the prompt has no effect")
    return findings
