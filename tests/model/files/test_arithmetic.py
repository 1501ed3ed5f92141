"""Text to image by the engine's model and DDIM is diffusers' pipeline with the checkpoint's own scheduler."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaflow_core.editing.inversion import invert, load_inversion
from adaflow_core.model.ddim import edit_timesteps
from adaflow_core.model.loading import load_backbone
from adaflow_core.progress import Monitor
from helpers.models.pipelines import relative, sampled

STEPS = 7
SCHEDULERS: dict[str, dict[str, Any]] = {
    "leading": {},
    "no offset": {"steps_offset": 0, "set_alpha_to_one": True},
    "clipping": {"clip_sample": True},
    "trailing": {"timestep_spacing": "trailing"},
    "linspace": {"timestep_spacing": "linspace"},
    "v": {"prediction_type": "v_prediction"},
    "zero": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
    "Euler": {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"},
}


SELDOM = {"clipping", "trailing", "linspace"}  # which others stand for


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.thorough) if kind in SELDOM else kind for kind in SCHEDULERS]
)
def test_text_to_image_and_inversion_are_those_of_diffusers(
    kind: str, tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    from diffusers import DDIMInverseScheduler, DDIMScheduler, StableDiffusionPipeline

    folder = Path(shutil.copytree(tiny_folder("sd2"), tmp_path / "model"))
    config = folder / "scheduler/scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | SCHEDULERS[kind]))
    backbone = load_backbone(str(folder), device="cpu", dtype="float32")
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    if kind == "Euler":
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = pipe("a red ball", num_inference_steps=STEPS, latents=noise, output_type="latent").images
    assert relative(sampled(backbone, noise, "a red ball", STEPS), expected) < 1e-4

    monitor = Monitor()
    invert(
        backbone, noise.numpy(), "a ball", steps=STEPS, inversion_steps=STEPS, rows=1, folder=tmp_path, monitor=monitor
    )
    found = load_inversion(tmp_path, backbone, STEPS, "a ball").latents
    # diffusers' inversion refuses linspace; its steps do not need the spacing.
    inverse = DDIMInverseScheduler.from_config(pipe.scheduler.config, timestep_spacing="leading")
    inverse.set_timesteps(STEPS)
    states, _ = pipe.encode_prompt("a ball", "cpu", 1, False)
    x = noise
    with torch.inference_mode():
        for i, timestep in enumerate(edit_timesteps(backbone.schedule, STEPS)[::-1].tolist()):
            x = inverse.step(pipe.unet(x, timestep, states).sample, timestep, x).prev_sample
            assert relative(torch.from_numpy(np.array(found[STEPS - 1 - i])), x) < 1e-4
