"""Stand-ins for speed measurements: a pipeline with Stable Diffusion's shapes, and a film.

Time and memory depend on shapes alone, so random weights are enough; they are made in memory on the device.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from adaflow_core.config import ModelProfile
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.backends import pick_attention
from adaflow_core.model.ddim import Schedule
from adaflow_core.model.loading import EMBEDDED, load_backbone, pick_device, pick_dtype, place
from adaflow_core.picture.region import Region
from adaflow_core.video.types import Video

ARCHITECTURES = ("sd21", "embedded")


def make_backbone(architecture: str, device: str = "auto", dtype: str = "auto") -> Backbone:
    """ "embedded": the model itself; "sd21": random weights in the shape of Stable Diffusion 2.1 base."""
    if architecture == "embedded":
        return load_backbone("embedded", device=device, dtype=dtype)
    target = pick_device(device)
    return _random_sd21(target, pick_dtype(dtype, target))


def _random_sd21(device: torch.device, dtype: torch.dtype) -> Backbone:
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTokenizer

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(str(EMBEDDED / "tokenizer"))
    with device:
        unet = UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(320, 640, 1280, 1280),
            attention_head_dim=(5, 10, 20, 20),
            cross_attention_dim=1024,
            use_linear_projection=True,
        )
        vae = AutoencoderKL(
            sample_size=512,
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
            scaling_factor=0.18215,
        )
        text_encoder = _random_text_encoder(tokenizer)
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    for module in (unet, vae, text_encoder):
        module.to(dtype=dtype)
    fused = place(unet, vae, text_encoder, device, dtype)
    return Backbone(
        "sd21-random",
        vae,
        unet,
        text_encoder,
        tokenizer,
        Schedule(scheduler.alphas_cumprod.double(), offset=scheduler.config.steps_offset),
        ModelProfile(size=512),
        device,
        dtype,
        pick_attention("auto", device, dtype),
        fused,
    )


def _random_text_encoder(tokenizer: Any) -> Any:
    """Two layers instead of 23: a prompt is embedded once in an edit."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=1024,
            intermediate_size=4096,
            projection_dim=512,
            num_hidden_layers=2,
            num_attention_heads=16,
            max_position_embeddings=tokenizer.model_max_length,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def check_finite(backbone: Backbone, width: int, height: int) -> None:
    """Raises AdaFlowError where a pass of the UNet or of the autoencoder overflows."""
    latents = torch.randn(1, 4, height // backbone.factor, width // backbone.factor)
    prediction = backbone.predict(latents, 500, backbone.embed("").prompt_embeds)
    picture = backbone.encode(backbone.decode(latents))
    for name, values in (("the UNet", prediction), ("the autoencoder", picture)):
        if not torch.isfinite(values).all():
            raise AdaFlowError(f"{name} overflows in {backbone.dtype}")


def make_film(folder: Path, frames: int, width: int, height: int, shots: int = 2) -> Video:
    """Smooth noise under a wandering camera, `shots` times another one; frames in a memory map in `folder`."""
    path = folder / "film.npy"
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(frames, height, width, 3))
    borders = np.linspace(0, frames, min(shots, frames) + 1).round().astype(int)
    for shot, (start, end) in enumerate(pairwise(borders)):
        sheet = _sheet(shot, width + width // 4, height + height // 4)
        for t in range(start, end):
            phase = 2 * np.pi * (t - start) / 240  # the camera's way closes after ten seconds
            y = round((0.5 + 0.5 * np.sin(phase)) * (height // 4))
            x = round((0.5 + 0.5 * np.cos(1.5 * phase)) * (width // 4))
            out[t] = sheet[y : y + height, x : x + width]
    out.flush()
    name = f"film-{frames}-{width}x{height}-{shots}"
    return Video(np.load(path, mmap_mode="r"), Fraction(24), name)


def make_region(frames: int, width: int, height: int, share: float, crop: str) -> Region:
    """A square of `share` of the frame, that wanders to and fro in it."""
    side = min(round((share * width * height) ** 0.5), height)
    masks = np.zeros((frames, height, width), bool)
    for t in range(frames):
        phase = 2 * np.pi * t / 240
        y = round((0.5 + 0.4 * np.sin(phase)) * (height - side))
        x = round((0.5 + 0.4 * np.cos(1.5 * phase)) * (width - side))
        masks[t, y : y + side, x : x + side] = True
    return Region(masks=masks, crop=crop)


def _sheet(seed: int, width: int, height: int) -> np.ndarray:
    """[height, width, 3] uint8: coarse and fine noise, smoothly enlarged."""
    generator = torch.Generator().manual_seed(seed)
    sheet = torch.zeros(1, 3, height, width)
    for cells, strength in ((6, 70.0), (40, 30.0)):
        noise = torch.randn(1, 3, cells, cells * width // height, generator=generator)
        sheet += strength * F.interpolate(noise, size=(height, width), mode="bicubic")
    return (sheet[0] + 128).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
