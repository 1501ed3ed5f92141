"""Checkpoints as they are published: single files in the original layout, LoRAs and embeddings, of narrow pipelines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

_RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
           "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}  # fmt: skip
_OUTER = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
          "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}  # fmt: skip
_VAE = {"conv_shortcut": "nin_shortcut", "conv_norm_out": "norm_out", "mid_block.attentions.0": "mid.attn_1",
        "mid_block.resnets.0": "mid.block_1", "mid_block.resnets.1": "mid.block_2", "group_norm": "norm",
        "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}  # fmt: skip
_OPEN_CLIP = {"encoder.layers": "transformer.resblocks", "self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1",
              "layer_norm2": "ln_2", "fc1": "c_fc", "fc2": "c_proj", "final_layer_norm": "ln_final",
              "embeddings.token_embedding": "token_embedding",
              "embeddings.position_embedding.weight": "positional_embedding"}  # fmt: skip


def narrow(second: bool, folder: Path | None = None, prediction: str = "epsilon", full: bool = False) -> Any:
    """A pipeline of SD 1.x's or 2.x's exact layout and head counts, with few channels and CLIP's own tokenizer.

    `full`: with all their channels and layers, and weights that are drawn.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from adaflow_core.model.files.single import clip_tokenizer

    torch.manual_seed(int(second))
    widths = (320, 640, 1280, 1280) if full else (64, 64, 64, 64) if second else (32, 32, 32, 32)
    width = (1024 if second else 768) if full else 64
    unet = UNet2DConditionModel(
        sample_size=96 if prediction == "v_prediction" and second else 64,
        block_out_channels=widths,
        cross_attention_dim=width,
        attention_head_dim=tuple(channels // 64 for channels in widths) if second else 8,
        use_linear_projection=second,
    )
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512) if full else (32, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=512,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width if full else 128,
            projection_dim=width,
            num_hidden_layers=(23 if second else 12) if full else 2,
            num_attention_heads=width // 64,
            hidden_act="gelu" if second else "quick_gelu",
        )
    )
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                              set_alpha_to_one=False, steps_offset=1, prediction_type=prediction)  # fmt: skip
    pipe = StableDiffusionPipeline(
        vae=vae, unet=unet, text_encoder=text_encoder, tokenizer=clip_tokenizer("!" if second else "<|endoftext|>"),
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    if folder is not None:
        pipe.save_pretrained(folder)
    return pipe


def save_single(pipe: Any, path: Path, extra: dict[str, Tensor] | None = None, **remarks: str) -> Path:
    """The pipeline as one file in the layout that Stable Diffusion was published in."""
    tensors = {f"model.diffusion_model.{_unet(key)}": value for key, value in pipe.unet.state_dict().items()}
    for key, value in pipe.vae.state_dict().items():
        attention = "attentions" in key and value.ndim == 2
        tensors[f"first_stage_model.{_vae(key)}"] = value[:, :, None, None] if attention else value
    text = {key: value for key, value in pipe.text_encoder.state_dict().items() if "position_ids" not in key}
    if pipe.text_encoder.config.hidden_act == "gelu":
        tensors |= _open_clip(text)
    else:
        tensors |= {f"cond_stage_model.transformer.text_model.{key}": value for key, value in text.items()}
    save_file(
        {k: v.contiguous() for k, v in (tensors | (extra or {})).items()}, path, metadata={"format": "pt", **remarks}
    )
    return path


def _replaced(key: str, table: dict[str, str]) -> str:
    for new, old in table.items():
        key = re.sub(rf"(?<![a-z_]){re.escape(new)}(?![a-z_0-9])", old, key)
    return key


def _unet(key: str) -> str:
    found = re.match(r"(down_blocks|up_blocks|mid_block)(?:\.(\d))?\.(\w+)\.(\d)\.(.*)", key)
    if not found:
        return _replaced(key, _OUTER)
    block, i, kind, j, rest = found[1], int(found[2] or 0), found[3], int(found[4]), found[5]
    if kind == "downsamplers":
        return f"input_blocks.{3 * (i + 1)}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * i + 2}.{1 if i == 0 else 2}.{rest}"
    place = int(kind == "attentions")
    rest = rest if place else _replaced(rest, _RESNET)
    if block == "mid_block":
        return f"middle_block.{1 if place else 2 * j}.{rest}"
    side, number = ("input", 3 * i + j + 1) if block == "down_blocks" else ("output", 3 * i + j)
    return f"{side}_blocks.{number}.{place}.{rest}"


def _vae(key: str) -> str:
    key = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}", key)
    key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", key)
    return _replaced(key, _VAE)


def _open_clip(text: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for key, value in text.items():
        joined = re.match(r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(\w+)", key)
        if joined:
            parts = [text[key.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            tensors[f"transformer.resblocks.{joined[1]}.attn.in_proj_{joined[2]}"] = torch.cat(parts)
        elif not re.search(r"self_attn\.[kv]_proj", key):
            tensors[_replaced(key, _OPEN_CLIP)] = value
    return {f"cond_stage_model.model.{key}": value for key, value in tensors.items()}


def save_lora(
    pipe: Any, path: Path, kohya: bool, seed: int = 0, rank: int = 2, alpha: float = 1.0
) -> dict[str, Tensor]:
    """A random LoRA of the attention of UNet and text encoder; returns what weight 1 adds, by part and name."""
    dice = torch.Generator().manual_seed(seed)
    tensors, added = {}, {}
    for part, module, wanted in (
        ("unet", pipe.unet, r"attn[12]\.to_q$"),
        ("text_encoder", pipe.text_encoder, r"(q|out)_proj$"),
    ):
        for name, layer in module.named_modules():
            if not re.search(wanted, name):
                continue
            down = torch.randn(rank, layer.in_features, generator=dice) * 0.1
            up = torch.randn(layer.out_features, rank, generator=dice) * 0.1
            if kohya:
                inner = name if part == "unet" else f"text_model.{name}"
                key = f"lora_{'unet' if part == 'unet' else 'te'}_{inner.replace('.', '_')}"
                tensors |= {
                    f"{key}.lora_down.weight": down,
                    f"{key}.lora_up.weight": up,
                    f"{key}.alpha": torch.tensor(alpha),
                }
            else:
                inner = f"{part}.{name}" if part == "unet" else f"{part}.text_model.{name}"
                tensors |= {f"{inner}.lora_A.weight": down, f"{inner}.lora_B.weight": up}
            added[f"{part}.{name}.weight"] = up @ down * (alpha / rank if kohya else 1.0)
    save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    return added
