"""What is added to a checkpoint: LoRAs, another autoencoder, textual inversions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from adaflow_core.errors import AdaFlowError
from adaflow_core.model.files.check import read_json, refuse
from adaflow_core.model.files.folder import first_line, load_part
from adaflow_core.model.files.parts import split_value
from adaflow_core.model.files.single import load_vae
from adaflow_core.model.files.weights import bit_sum, read_header

# What such files are called in folders and repositories.
LORA_FILE, EMBEDDING_FILE = "pytorch_lora_weights.safetensors", "learned_embeds.safetensors"
VAE_FILE = "diffusion_pytorch_model.safetensors"


def fuse_lora(pipe: Any, name: str) -> None:
    """Add a LoRA, "FILE" or "FILE=WEIGHT", to the weights of UNet and text encoder, by diffusers' own functions.

    AdaFlowError if it is none, or made for another kind of model.
    """
    file, value = split_value(name)
    path, weight = _file(file, "LoRA", LORA_FILE), _weight(value, name)
    shapes, _ = read_header(path)
    if not any("lora" in key for key in shapes):
        raise AdaFlowError(f"{path} is no LoRA that can be fused; give one in kohya's or diffusers' names")
    before = {part: _digest(getattr(pipe, part)) for part in ("unet", "text_encoder")}
    try:
        pipe.load_lora_weights(load_file(path))
        pipe.fuse_lora(lora_scale=weight)
        pipe.unload_lora_weights()
    # diffusers and peft have no error of their own for keys they do not know or shapes that do not fit.
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as problem:
        raise AdaFlowError(
            f"the LoRA {path} does not fit this checkpoint ({first_line(problem)}); choose one that was trained on "
            "the same version of Stable Diffusion"
        ) from problem
    if weight and before == {part: _digest(getattr(pipe, part)) for part in before}:
        raise AdaFlowError(f"the LoRA {path} changes nothing in this checkpoint; choose one of its kind")


def _digest(module: Any) -> int:
    """Changes where any weight does."""
    return sum(int(bit_sum(tensor)) for tensor in module.parameters())


def other_vae(name: str, unet: Any, dtype: torch.dtype) -> Any:
    """The autoencoder in a folder (its own or a checkpoint's) or a file; AdaFlowError if the UNet's latents differ."""
    path = Path(name).expanduser()
    if path.is_dir():
        inside = path / "vae" if (path / "vae").is_dir() else path
        kind = read_json(inside / "config.json", name).get("_class_name")
        if kind != "AutoencoderKL":
            raise refuse(name, f"is no autoencoder of Stable Diffusion ({kind})", "choose another --vae")
        vae = load_part(inside, "vae", name, dtype)
    else:
        path = _file(name, "autoencoder")
        vae = load_vae(path, read_header(path)[0], dtype)
    if vae.config.latent_channels != unet.config.in_channels:
        raise refuse(
            name,
            f"has latents of {vae.config.latent_channels} channels, and this UNet takes {unet.config.in_channels}",
            "choose an autoencoder of Stable Diffusion 1.x or 2.x",
        )
    return vae


def add_embedding(pipe: Any, name: str) -> None:
    """Teach the text encoder a word: "FILE=WORD", or "FILE", whose name is then the word unless it holds one."""
    file, word = split_value(name)
    path = _file(file, "textual inversion", EMBEDDING_FILE)
    shapes, _ = read_header(path)
    width = pipe.text_encoder.config.hidden_size
    if len(shapes) != 1 or not next(iter(shapes.values())) or next(iter(shapes.values()))[-1] != width:
        raise AdaFlowError(
            f"{path} is no textual inversion of this model's text encoder (one tensor of width {width}); choose one "
            "that was trained on the same version of Stable Diffusion"
        )
    ((key, tensor),) = load_file(path).items()
    word = word or (path.stem if key == "emb_params" else key)
    try:
        pipe.load_textual_inversion(tensor, token=word)
    except ValueError as problem:
        raise AdaFlowError(
            f"the word {word!r} of {path} is known already; name another: --embedding FILE=WORD"
        ) from problem


def _file(name: str, what: str, inside: str = "") -> Path:
    path = Path(name).expanduser()
    if inside and path.is_dir():
        path = path / inside
    if not path.is_file():
        raise AdaFlowError(
            f"the {what} {name!r} is not there; give the path of a .safetensors file or an id of the Hub (OWNER/NAME)"
        )
    return path


def _weight(value: str, name: str) -> float:
    try:
        weight = float(value or 1)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight) or abs(weight) > 10:
        raise AdaFlowError(f"the LoRA {name!r} has a weight that is no number from -10 to 10; give FILE=0.8")
    return weight
