"""Narrow Stable Diffusion pipelines with random weights: the layouts that the engine must know, and how they draw."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch

from adaflow_core.model.backbone import Backbone
from adaflow_core.model.ddim import cfg, ddim_step, edit_timesteps, step_targets

WORDS = ["a", "red", "blue", "ball", "rolls", "over", "snow", "photo", "watercolour", "of", "the"]
LAYOUTS = ("sd1", "sd2", "v")
SIZE = 64  # pixels: 8 x 8 latents, grids of 8 x 8, 4 x 4, 2 x 2 and 1 x 1 tokens


def save_pipeline(layout: str, folder: Path) -> Path:
    """A pipeline of SD 1.x's layout, of SD 2.x's (linear projections, heads by block), or that with v prediction."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from scenes.training.embedded import build_tokenizer

    torch.manual_seed(LAYOUTS.index(layout))
    tokenizer = build_tokenizer(WORDS)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            projection_dim=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=tokenizer.model_max_length,
            hidden_act="quick_gelu" if layout == "sd1" else "gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    shape: dict[str, object] = {"block_out_channels": (16, 32, 32, 32), "attention_head_dim": 2}
    if layout != "sd1":  # wider than the features are reduced to
        shape = {
            "block_out_channels": (16, 72, 72, 72),
            "attention_head_dim": (1, 2, 2, 4),
            "use_linear_projection": True,
        }
    unet = UNet2DConditionModel(
        sample_size=SIZE // 8, layers_per_block=1, cross_attention_dim=32, norm_num_groups=8, **shape
    )
    vae = AutoencoderKL(
        sample_size=SIZE,
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=1.0,
        force_upcast=False,
    )
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction" if layout == "v" else "epsilon",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe.save_pretrained(folder)
    return folder


def save_checker(folder: Path, threshold: float) -> None:
    """Give the pipeline in `folder` a safety checker with random weights; `threshold` is of the cosine to a concept."""
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPVisionConfig

    torch.manual_seed(0)
    narrow = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(
            text_config=CLIPTextConfig(**narrow).to_dict(),
            vision_config=CLIPVisionConfig(**narrow, image_size=32, patch_size=8).to_dict(),
            projection_dim=8,
        )
    )
    torch.nn.init.normal_(checker.concept_embeds)
    checker.concept_embeds_weights.data.fill_(threshold)
    checker.special_care_embeds_weights.data.fill_(2.0)  # none is near
    checker.save_pretrained(folder / "safety_checker")
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder / "feature_extractor")
    index = folder / "model_index.json"
    parts = json.loads(index.read_text(encoding="utf-8"))
    parts["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    parts["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    index.write_text(json.dumps(parts), encoding="utf-8")


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def sampled(backbone: Backbone, noise: torch.Tensor, prompt: str, steps: int) -> torch.Tensor:
    x, negative, positive = noise, backbone.embed("").prompt_embeds, backbone.embed(prompt).prompt_embeds
    timesteps = edit_timesteps(backbone.schedule, steps)
    for here, there in zip(timesteps.tolist(), step_targets(backbone.schedule, timesteps).tolist(), strict=True):
        output = cfg(backbone.predict(x, here, negative), backbone.predict(x, here, positive), 7.5)
        x = ddim_step(backbone.schedule, x, output, here, there)
    return x
