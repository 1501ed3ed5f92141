"""Checkpoints of Stable Diffusion's own size, with drawn weights: numbers and memory when loaded from one file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adaflow_core.model.loading import load_backbone
from helpers.models.originals import narrow, save_single
from helpers.models.pipelines import relative, sampled

STEPS = 3
PROMPT = "a red ball"
MEASURE = """
import json, sys, torch
from adaflow_core.model import loading
from adaflow_core.model.memory import PeakMemory, resident_bytes
import diffusers, transformers
from diffusers import StableDiffusionPipeline

loading.load_backbone("embedded", device="cpu", dtype="float16")  # all that is imported on the way
before = resident_bytes()
with PeakMemory(torch.device("cpu"), interval=0.01) as peak:  # without the file's pages, which the system may drop
    backbone = loading.load_backbone(sys.argv[1], device="cpu", dtype="float16")
modules = backbone.unet, backbone.vae, backbone.text_encoder
weights = sum(p.numel() * p.element_size() for module in modules for p in module.parameters())
print(json.dumps({"weights": weights, "more": peak.bytes - before}))
"""


@pytest.mark.thorough
@pytest.mark.parametrize(("second", "prediction"), [(False, "epsilon"), (True, "epsilon"), (True, "v_prediction")])
def test_a_checkpoint_of_full_size(second: bool, prediction: str, tmp_path: Path) -> None:
    pipe = narrow(second, prediction=prediction, full=True).to(torch.float16)
    file = save_single(
        pipe, tmp_path / "model.safetensors", **{"modelspec.prediction_type": prediction.removesuffix("_prediction")}
    )
    pipe.to(torch.float32).set_progress_bar_config(disable=True)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = pipe(PROMPT, num_inference_steps=STEPS, latents=noise, output_type="latent").images
    picture = pipe.vae.decode(expected / pipe.vae.config.scaling_factor).sample.detach()
    del pipe

    backbone = load_backbone(str(file), device="cpu", dtype="float32")
    assert backbone.schedule.prediction == prediction
    found = sampled(backbone, noise, PROMPT, STEPS)
    assert relative(found, expected) < 1e-4
    decoded = torch.from_numpy(backbone.decode(found)[0]).permute(2, 0, 1)
    levels = ((picture[0] / 2 + 0.5).clamp(0, 1) * 255).round()
    assert (decoded - levels).abs().max() <= 1
    del backbone

    measured = json.loads(subprocess.run([sys.executable, "-c", MEASURE, file], capture_output=True, check=True).stdout)
    print(f"{measured['more'] / measured['weights']:.2f} times the weights ({measured['weights'] / 1e9:.2f} GB)")
    assert 0.5 * measured["weights"] < measured["more"] < 1.2 * measured["weights"]
