"""Reads a checkpoint in diffusers' folder format, or one part of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from adaflow_core.errors import AdaFlowError, first_line
from adaflow_core.model.files.check import (
    BESIDE_TEXT_ENCODER,
    PARTS,
    check_configs,
    check_latents,
    read_json,
    refuse,
    weight_files,
)
from adaflow_core.model.files.weights import check_names, fill, in_parts, read_header

# Names of the VAE's attention layers in files from before 2023 -> today's names.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def load_folder(folder: Path, name: str, dtype: torch.dtype) -> Any:
    """Load a `StableDiffusionPipeline` from `folder`. Raises AdaFlowError with what is wrong and what to do."""
    from diffusers import DDIMScheduler
    from transformers import CLIPTokenizer

    if not (folder / "model_index.json").is_file():
        raise _not_a_model(folder, name)
    check_configs(folder, name)
    parts = {part: load_part(folder / part, part, name, dtype) for part in PARTS}
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
    except Exception as problem:  # the libraries raise many types for a damaged tokenizer
        raise refuse(name, f"has a damaged tokenizer ({first_line(problem)})", "fetch tokenizer/ again") from problem
    config = read_json(folder / "scheduler" / "scheduler_config.json", name)
    # The pipeline would set these two in schedulers of old checkpoints and other classes, with 20 lines of warnings.
    scheduler = DDIMScheduler.from_config(config | {"clip_sample": False, "steps_offset": 1})
    return as_pipeline(parts, tokenizer, scheduler, name)


def as_pipeline(parts: dict[str, Any], tokenizer: Any, scheduler: Any, name: str) -> Any:
    """Make a diffusers pipeline of the parts; raise AdaFlowError if tokenizer and text encoder do not fit."""
    from diffusers import StableDiffusionPipeline

    text = parts["text_encoder"].config
    if len(tokenizer) > text.vocab_size:
        raise refuse(
            name,
            f"has a tokenizer of {len(tokenizer)} words and a text encoder of {text.vocab_size}",
            "they are of different checkpoints: fetch both again",
        )
    tokenizer.model_max_length = min(tokenizer.model_max_length, text.max_position_embeddings)
    return StableDiffusionPipeline(
        **parts,
        tokenizer=tokenizer,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def load_part(inside: Path, part: str, name: str, dtype: torch.dtype) -> Any:
    """Load the UNet, VAE or text encoder from the part's folder `inside`."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    kind = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}[part]
    variant, files = weight_files(inside, part, name, half=dtype != torch.float32)
    for file in files:
        read_header(file)
    try:
        module, found = kind.from_pretrained(
            str(inside),
            dtype=dtype,
            variant=variant,
            use_safetensors=True,
            output_loading_info=True,
            local_files_only=True,
        )
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as problem:
        raise refuse(name, f"has a {part} that cannot be loaded ({first_line(problem)})", "fetch it again") from problem
    unexpected = set(found["unexpected_keys"]) - (BESIDE_TEXT_ENCODER if part == "text_encoder" else set())
    check_names(part, f"model {name!r}", found["missing_keys"], unexpected)
    return module


def load_vae_file(path: Path, name: str, dtype: torch.dtype) -> Any:
    """Load a VAE from a file with diffusers' names and the config.json beside it; other files there are ignored."""
    from accelerate import init_empty_weights
    from diffusers import AutoencoderKL

    beside = path.with_name("config.json")
    if not beside.is_file():
        raise refuse(
            name,
            "is an autoencoder in diffusers' format without its config.json",
            "put that beside it, or choose another",
        )
    config = read_json(beside, name)
    if config.get("_class_name") != "AutoencoderKL":
        raise refuse(name, f"has the config.json of a {config.get('_class_name')} beside it", "put its own there")
    check_latents(config, name)
    with init_empty_weights():
        vae = AutoencoderKL.from_config(config)
    shapes, _ = read_header(path)
    attention = rf"(attentions\.\d+)\.({'|'.join(_OLD_ATTENTION)})\."
    names = {re.sub(attention, lambda old: f"{old[1]}.{_OLD_ATTENTION[old[2]]}.", key): key for key in shapes}
    fill(vae, "vae", path, in_parts(path, names), dtype)
    return vae.eval()


def _not_a_model(folder: Path, name: str) -> AdaFlowError:
    """Return an error that says what a folder without model_index.json is."""
    files = sorted(file.name for file in folder.iterdir())
    single = [file for file in files if file.endswith((".safetensors", ".ckpt"))]
    if "adapter_config.json" in files or "pytorch_lora_weights.safetensors" in files:
        return refuse(name, "is a LoRA", "give it with --lora, beside a checkpoint as --model")
    if "config.json" in files:
        return refuse(name, "is one part of a checkpoint", "give the folder that holds model_index.json")
    if single:
        return refuse(name, "is a folder of single files", f"give one of them: --model {folder / single[0]}")
    return refuse(
        name,
        "has no model_index.json",
        "give the folder of a whole checkpoint in diffusers' format, or a .safetensors file",
    )
