"""Checks whether the parts of a checkpoint work and fit together, for the first run with other weights.

The parts are tried on drawn pictures with known descriptions; if all pass, a clip is inverted and edited.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sized
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.editing.inversion import invert, load_inversion
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.ddim import CLEAN, add_noise, ddim_step, edit_timesteps, predict_x0_eps
from adaflow_core.model.loading import EMBEDDED, fitting
from adaflow_core.progress import Monitor, Report, Stop
from adaflow_core.report.scores import psnr
from adaflow_core.types import Plan
from adaflow_core.version import __version__
from adaflow_core.video.decode import decode_video

CLIPS = EMBEDDED.parent / "clips"
PICTURES = ("ball.mp4", "star.mp4", "rocket.mp4", "duck.mp4")  # one frame of each; they show different things
_SIGNAL = (0.8, 0.5)  # shares of the picture in the noised latents at which structure decides, hardly the prompt
_PROMPTED = (0.1,)  # a share at which the prompt matters
_CONTRASTS = (0.7, 1.0, 1.4)  # 1.4 is between the scaling factors of SD and SDXL
_LEFT = 0.5  # share of the error: shipped models leave up to 0.4 at half their size, with wrong latents 0.6 and more
_FLAT = 2.0  # standard deviation, in levels, under which a picture shows one colour
_NOT_FINITE = "damaged weights; fetch the checkpoint again"


@dataclass(frozen=True)
class _Shown:
    """The pictures on which the parts are tried."""

    pictures: np.ndarray  # [B, H, W, 3] uint8
    latents: Tensor  # [B, 4, h, w]
    prompts: list[str]  # what each shows


@dataclass
class Findings:
    """The results: a row for each check, and a sentence for each that failed, the likeliest cause first."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)  # check, seen, expected, verdict
    problems: list[str] = field(default_factory=list)

    def check(self, what: str, value: float, low: float, high: float, unit: str, advice: str) -> None:
        good = low <= value <= high  # false for nan; inf is the PSNR of equal frames
        expected = f"at least {low:g}" if high == np.inf else f"{low:g} to {high:g}" if low else f"at most {high:g}"
        self.rows.append((what, f"{value:.3g} {unit}".strip(), expected, "ok" if good else "FAIL"))
        if not good:
            self.problems.append(f"{what} is {value:.3g} {unit}".strip() + f": {advice}")

    def compare(self, what: str, seen: str, expected: str, advice: str) -> None:
        self.rows.append((what, seen, expected, "ok" if seen == expected else "FAIL"))
        if seen != expected:
            self.problems.append(f"{what} is {seen}, not {expected}: {advice}")

    def note(self, what: str, seen: str) -> None:
        self.rows.append((what, seen, "", ""))

    @property
    def table(self) -> str:
        """The rows as a Markdown table, for an issue."""
        lines = [("check", "seen", "expected", ""), ("---",) * 4, *self.rows]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


@torch.inference_mode()
def selfcheck(
    engine: AdaFlow,
    video: Path | None = None,
    *,
    frames: int = 4,
    steps: int = 25,
    progress: Report | None = None,
    stop: Stop | None = None,
) -> Findings:
    """Check the parts of a checkpoint, then an inversion of `steps` steps and an edit of `frames` frames of `video`.

    `video`: by default a bundled clip. Raises AdaFlowError for one that cannot be read or shows one colour only.
    """
    with fitting(engine.backbone.device, "the check"):
        return _findings(engine, video, frames, steps, progress, stop)


def _findings(
    engine: AdaFlow,
    video: Path | None,
    frames: int,
    steps: int,
    progress: Report | None,
    stop: Stop | None,
) -> Findings:
    findings, monitor = Findings(), Monitor(progress, stop)
    if video is not None:
        _check_video(video, engine.backbone.profile.size, frames, monitor.quiet())
    with monitor.stage("selfcheck", 4) as stage:
        _check_weights(engine.backbone, findings)
        stage.advance()
        shown: _Shown | None = None
        for check in (_check_autoencoder, _check_denoising, _check_prompts):
            if not findings.problems:  # a first fault causes others, which would hide it
                shown = shown or _show(engine.backbone, monitor)
                check(engine.backbone, shown, findings, monitor)
            stage.advance()
    if findings.problems:
        findings.note("inversion and edit", "not tried")
    else:
        plan = engine.plan(
            video or CLIPS / PICTURES[0], PlanConfig(keyframes=2), frames=slice(0, frames), progress=progress, stop=stop
        )
        _check_inversion(engine.backbone, plan, steps, findings, monitor)
        edited = engine.edit(plan, "a watercolour painting", EditConfig(), progress=progress, stop=stop).forget_state()
        _check_edit(plan, np.asarray(edited.frames), findings)
    _describe(engine.backbone, findings)
    return findings


def _check_video(video: Path, size: int, frames: int, monitor: Monitor) -> None:
    """Raise AdaFlowError for a video that cannot be checked, before the other checks, which may take minutes."""
    decoded = decode_video(video, size=size, frames=slice(0, frames), monitor=monitor)
    if np.asarray(decoded.frames).std() < _FLAT:
        raise AdaFlowError(f"{video} shows one colour only; give a clip that shows something as --video")


def _describe(backbone: Backbone, findings: Findings) -> None:
    findings.note("model", backbone.name)
    findings.note("prediction type", backbone.schedule.prediction)
    findings.note("scaling factor", f"{backbone.vae.config.scaling_factor:.5g}")
    findings.note("device, precision", f"{backbone.device}, {str(backbone.dtype).removeprefix('torch.')}")
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers"))
    findings.note("versions", f"adaflow {__version__}, {packages}")


def _check_weights(backbone: Backbone, findings: Findings) -> None:
    for part in ("text_encoder", "vae", "unet"):
        bad = [name for name, value in getattr(backbone, part).named_parameters() if not value.isfinite().all()]
        shown = f" ({bad[0]})" if bad else ""
        findings.check(f"weights of {part} that are no numbers", len(bad), 0, 0, "", f"{_NOT_FINITE}{shown}")


def _show(backbone: Backbone, monitor: Monitor) -> _Shown:
    about = {clip["file"]: clip["source_prompt"] for clip in json.loads((CLIPS / "clips.json").read_text("utf-8"))}
    size = backbone.profile.size
    frames = [decode_video(CLIPS / name, size=(size, size), frames=slice(0, 1)).frames[0] for name in PICTURES]
    pictures = np.stack(frames)
    return _Shown(pictures, _encode(backbone, pictures, monitor), [about[name] for name in PICTURES])


def _one_by_one(pieces: Sized, monitor: Monitor) -> Iterator[slice]:
    """Yield a slice for each piece, after a look at the stop signal: on a CPU a piece takes the model seconds."""
    for t in range(len(pieces)):
        monitor.check()
        yield slice(t, t + 1)


def _encode(backbone: Backbone, frames: np.ndarray, monitor: Monitor) -> Tensor:
    return torch.cat([backbone.encode(frames[one]) for one in _one_by_one(frames, monitor)]).cpu()


def _decode(backbone: Backbone, latents: Tensor, monitor: Monitor) -> np.ndarray:
    return np.concatenate([backbone.decode(latents[one]) for one in _one_by_one(latents, monitor)])


def _predict(backbone: Backbone, latents: Tensor, timestep: int, prompt_embeds: Tensor, monitor: Monitor) -> Tensor:
    """Return the UNet's output for each of the latents; `prompt_embeds` [B or 1, L, d]."""
    states = prompt_embeds.expand(len(latents), -1, -1)
    outputs = [backbone.predict(latents[one], timestep, states[one]) for one in _one_by_one(latents, monitor)]
    return torch.cat([output.cpu() for output in outputs])


def _check_autoencoder(backbone: Backbone, shown: _Shown, findings: Findings, monitor: Monitor) -> None:
    latents = shown.latents
    overflow = "half precision overflows in the VAE; try --dtype float32"
    findings.check("latents that are no numbers", int((~latents.isfinite()).sum()), 0, 0, "", overflow)
    if findings.problems:
        return
    findings.check(
        "autoencoder, PSNR to the pictures", psnr(shown.pictures, _decode(backbone, latents, monitor)),
        20, np.inf, "dB",
        "the VAE does not give back what it is given; its weights are damaged or not those of its configuration",
    )  # fmt: skip
    deviation = float(latents.std())
    findings.check(
        "standard deviation of the latents", deviation, 0.5, 2, "",
        f"the scaling factor in vae/config.json does not belong to this VAE; {_fitting(backbone, deviation):.2g} would",
    )  # fmt: skip


def _fitting(backbone: Backbone, deviation: float) -> float:
    return float(backbone.vae.config.scaling_factor) / max(deviation, 1e-6)


def _noised(backbone: Backbone, latents: Tensor, shares: tuple[float, ...]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield (timestep, noised latents, noise) for each share of the picture in the noised latents."""
    schedule, generator = backbone.schedule, torch.Generator().manual_seed(0)
    for share in shares:
        timestep = int((schedule.alphas_cumprod - share).abs().argmin())
        noise = torch.randn(latents.shape, generator=generator)
        yield timestep, add_noise(schedule, latents, noise, timestep), noise


def _check_denoising(backbone: Backbone, shown: _Shown, findings: Findings, monitor: Monitor) -> None:
    latents = shown.latents
    # Zeros in place of a prompt, so that the text encoder does not matter.
    prompt_embeds = torch.zeros_like(backbone.embed("").prompt_embeds)
    ((timestep, noised, noise),) = _noised(backbone, latents, (0.5,))
    output = _predict(backbone, noised, timestep, prompt_embeds, monitor)
    alpha = backbone.schedule.alpha(timestep)
    targets = {
        "epsilon": noise,
        "v_prediction": alpha**0.5 * noise - (1 - alpha) ** 0.5 * latents,
        "sample": latents,
    }
    errors = {
        name: float((output - target).square().mean() / target.square().mean()) for name, target in targets.items()
    }
    findings.note("error as " + ", ".join(errors), ", ".join(f"{error:.2f}" for error in errors.values()))
    findings.compare(
        "what the UNet predicts", min(errors, key=errors.__getitem__), backbone.schedule.prediction,
        "set prediction_type in scheduler/scheduler_config.json to it",
    )  # fmt: skip
    if findings.problems:
        return
    left = {contrast: _noise_left(backbone, contrast * latents, prompt_embeds, monitor) for contrast in _CONTRASTS}
    best = min(left, key=left.__getitem__)
    # The contrast is wrong only if another one fits well.
    ratio = left[best] / left[1.0] if left[best] < _LEFT else 1.0
    findings.check(
        "error that denoising leaves at the best contrast, of that at the own", ratio, 0.75, np.inf, "",
        f"the UNet knows latents of {best:g} times this contrast: the scaling factor in vae/config.json is wrong; "
        f"try {best * backbone.vae.config.scaling_factor:.2g}",
    )  # fmt: skip
    if not findings.problems:
        findings.check(
            "error that denoising leaves, of a linear filter's", left[1.0], 0, _LEFT, "",
            "the UNet does not know these latents: the VAE is another model's, or the noise schedule is",
        )  # fmt: skip


def _noise_left(backbone: Backbone, latents: Tensor, prompt_embeds: Tensor, monitor: Monitor) -> float:
    """Return the error of the predicted clean latents, as a share of that of the best linear filter (Wiener's)."""
    power, shares = float(latents.square().mean()), []
    for timestep, noised, _ in _noised(backbone, latents, _SIGNAL):
        output = _predict(backbone, noised, timestep, prompt_embeds, monitor)
        clean, _ = predict_x0_eps(backbone.schedule, noised, output, timestep)
        alpha = backbone.schedule.alpha(timestep)
        wiener = power * (1 - alpha) / (alpha * power + 1 - alpha)
        shares.append(float((clean - latents).square().mean()) / wiener)
    return sum(shares) / len(shares)


def _check_prompts(backbone: Backbone, shown: _Shown, findings: Findings, monitor: Monitor) -> None:
    """Check that pictures are denoised better with their own prompt than with the others'."""
    latents = shown.latents
    embeddings = [backbone.embed(prompt) for prompt in shown.prompts]
    prompt_embeds = torch.cat([embedding.prompt_embeds for embedding in embeddings])
    own, others, spread = [], [], []
    for timestep, noised, _ in _noised(backbone, latents, _PROMPTED):
        for t in range(len(latents)):
            picture = noised[t : t + 1].expand(len(prompt_embeds), -1, -1, -1)
            output = _predict(backbone, picture, timestep, prompt_embeds, monitor)
            clean, _ = predict_x0_eps(backbone.schedule, picture, output, timestep)
            errors = (clean - latents[t]).square().mean(dim=(1, 2, 3))
            own.append(float(errors[t]))
            others.append(float((errors.sum() - errors[t]) / (len(errors) - 1)))
            spread.append(float(output.std(dim=0).mean() / output.std()))
    findings.check(
        "change of the prediction with the prompt", 100 * float(np.mean(spread)), 0.1, np.inf, "%",
        "the text encoder gives the same for every prompt; its weights are missing or another model's",
    )  # fmt: skip
    if not findings.problems:
        gain = 100 * float(np.mean([other / mine - 1 for other, mine in zip(others, own, strict=True)]))
        findings.check(
            "error under wrong prompts, above that under right ones", gain, 1, np.inf, "%",
            "the prompt does not help: the text encoder or its tokenizer is another model's, or incomplete",
        )  # fmt: skip


def _check_edit(plan: Plan, edited: np.ndarray, findings: Findings) -> None:
    source = np.asarray(plan.video.frames)
    agreement = 100 * plan.features.agreement
    findings.check("matches that survive the features' reduction", agreement, 60, np.inf, "%", "an unusual UNet")
    findings.check("contrast of the edited frames", edited.std(), _FLAT, np.inf, "levels", "they show one colour")
    findings.check("edit, PSNR to the source", psnr(source, edited), 8, np.inf, "dB", "the edited frames are noise")
    change = float(np.abs(edited.astype(float) - source).mean())
    findings.check("edit, mean change", change, 1, np.inf, "levels", "the prompt has no effect")


def _check_inversion(backbone: Backbone, plan: Plan, steps: int, findings: Findings, monitor: Monitor) -> None:
    latents = _encode(backbone, np.asarray(plan.video.frames), monitor)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        invert(
            backbone, latents.numpy(), "", steps=steps, inversion_steps=steps, rows=backbone.rows(),
            folder=folder, monitor=monitor,
        )  # fmt: skip
        x = torch.from_numpy(load_inversion(folder, backbone, steps, "").latents[0].astype(np.float32))
    findings.note("inverted noise, standard deviation", f"{float(x.std()):.2f}")
    timesteps = [int(t) for t in edit_timesteps(backbone.schedule, steps)]
    prompt_embeds = backbone.embed("").prompt_embeds
    for here, there in zip(timesteps, [*timesteps[1:], CLEAN], strict=True):
        x = ddim_step(backbone.schedule, x, _predict(backbone, x, here, prompt_embeds, monitor), here, there)
    findings.check(
        "inversion and back, PSNR to the autoencoded source",
        psnr(_decode(backbone, latents, monitor), _decode(backbone, x, monitor)),
        18, np.inf, "dB", "timestep offset or spacing of the scheduler, or the UNet's precision",
    )  # fmt: skip
