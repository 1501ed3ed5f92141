"""Adds LoRAs, another autoencoder and textual inversions to a checkpoint."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from adaflow_core.errors import AdaFlowError, first_line
from adaflow_core.model.files.check import LORA_FILE, check_latents, read_json, refuse
from adaflow_core.model.files.folder import load_part, load_vae_file
from adaflow_core.model.files.parts import split_value
from adaflow_core.model.files.single import load_vae
from adaflow_core.model.files.weights import bit_sum, read_header

logger = logging.getLogger(__name__)
# The usual names of such files in folders and repositories.
EMBEDDING_FILE, VAE_FILE = "learned_embeds.safetensors", "diffusion_pytorch_model.safetensors"
_CHOICE = "choose one that was trained on the same version of Stable Diffusion"
# Names of the two matrices of a LoRA layer: kohya's, peft's and diffusers' older ones.
_HALVES = (
    ("lora_down.", "lora_up."),
    ("lora_A.", "lora_B."),
    ("lora.down.", "lora.up."),
    ("lora_linear_layer.down.", "lora_linear_layer.up."),
)
_OLD_TEXT_NAMES = re.compile(r"^(text_encoder\..*)\.to_(q|k|v|out)_lora\.")


def fuse_lora(pipe: Any, name: str) -> None:
    """Add a LoRA, "FILE" or "FILE=WEIGHT", to the weights of UNet and text encoder, by diffusers' own functions.

    Raises AdaFlowError if the file is no LoRA, or is made for another kind of model.
    """
    file, value = split_value(name)
    path, weight = _file(file, "LoRA", LORA_FILE), _weight(value, name)
    shapes, _ = read_header(path)
    if not any("lora" in key for key in shapes):
        raise AdaFlowError(f"{path} is no LoRA that can be fused; give one in kohya's or diffusers' names")
    _check_halves(path, shapes)
    before = {part: _digest(getattr(pipe, part)) for part in ("unet", "text_encoder")}
    tensors = load_file(path)
    try:
        _load(pipe, tensors)
        left_out = _left_out(pipe, tensors)
        pipe.fuse_lora(lora_scale=weight)
        pipe.unload_lora_weights()
    # diffusers and peft raise any of these for unknown keys or shapes that do not fit.
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as problem:
        raise AdaFlowError(
            f"the LoRA {path} does not fit this checkpoint ({first_line(problem)}); {_CHOICE}"
        ) from problem
    if weight and before == {part: _digest(getattr(pipe, part)) for part in before}:
        raise AdaFlowError(f"the LoRA {path} changes nothing in this checkpoint; choose one of its kind")
    if left_out:
        more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        raise AdaFlowError(
            f"the LoRA {path} does not fit this checkpoint, which has no layer for {left_out[0]}{more}; {_CHOICE}"
        )


def _check_halves(path: Path, keys: Collection[str]) -> None:
    """Raise AdaFlowError for no plain LoRA, or one that lacks a matrix of a layer, which would be left out silently."""
    if any("hada_" in key or "lokr_" in key for key in keys):
        raise AdaFlowError(f"{path} is a LoHa or LoKr, which cannot be fused; choose a plain LoRA")
    for key in keys:
        other = _other_half(key)
        if other and other not in keys:
            raise AdaFlowError(f"the LoRA {path} lacks {other}; it is damaged: fetch it again")
    if any(key.endswith("dora_scale") for key in keys):
        logger.warning("the LoRA %s is a DoRA; the magnitudes in it are left out", path)


def _other_half(key: str) -> str:
    """Return the key of the other matrix of the LoRA layer of `key`; "" if `key` is no such matrix."""
    if key.endswith(".weight"):
        for down, up in _HALVES:
            for half, rest in ((down, up), (up, down)):
                if half in key:
                    return key.replace(half, rest)
    return ""


def _load(pipe: Any, tensors: dict[str, Tensor]) -> None:
    """Load a LoRA's layers into UNet and text encoder without fusing them into the weights."""
    named, alphas, metadata = pipe.lora_state_dict(dict(tensors), return_lora_metadata=True)
    if unknown := next((key for key in named if "lora" not in key), None):
        raise ValueError(f"{unknown} is no part of a LoRA")
    # diffusers recognises the names that it converts kohya's to only if an output projection is among them.
    named = {_OLD_TEXT_NAMES.sub(r"\1.\2_proj.lora_linear_layer.", key): tensor for key, tensor in named.items()}
    common = {"network_alphas": alphas, "metadata": metadata, "low_cpu_mem_usage": True, "_pipeline": pipe}
    pipe.load_lora_into_unet(named, unet=pipe.unet, **common)
    pipe.load_lora_into_text_encoder(named, text_encoder=pipe.text_encoder, **common)


def _left_out(pipe: Any, tensors: dict[str, Tensor]) -> list[str]:
    """Return a LoRA's keys whose tensors are in no layer after loading: diffusers drops them silently.

    Tensors are compared by value, as every format has other names.
    """
    taken = {
        _value(tensor, pipe.dtype)
        for part in (pipe.unet, pipe.text_encoder)
        for name, tensor in part.state_dict().items()
        if "lora_" in name
    }
    halves = [key for key in sorted(tensors) if _other_half(key)]
    return [key for key in halves if _value(tensors[key], pipe.dtype) not in taken]


def _value(tensor: Tensor, dtype: torch.dtype) -> bytes:
    """Return a digest of a tensor's values, whatever its shape."""
    values = tensor.detach().to("cpu", dtype).contiguous().flatten()
    return hashlib.blake2b(values.view(torch.uint8).numpy().tobytes(), digest_size=16).digest()


def _digest(module: Any) -> int:
    """Return a number that changes with any weight."""
    return sum(int(bit_sum(tensor)) for tensor in module.parameters())


def other_vae(name: str, unet: Any, dtype: torch.dtype) -> Any:
    """Load the autoencoder from its folder, a checkpoint's folder or a file; raise AdaFlowError if it does not fit."""
    path = Path(os.path.expanduser(name))
    if os.path.isdir(path):
        inside = path / "vae" if (path / "vae").is_dir() else path
        config = read_json(inside / "config.json", name)
        kind = config.get("_class_name")
        if kind != "AutoencoderKL":
            raise refuse(name, f"is no autoencoder of Stable Diffusion ({kind})", "choose another --vae")
        check_latents(config, name)
        vae = load_part(inside, "vae", name, dtype)
    else:
        path = _file(name, "autoencoder")
        shapes, _ = read_header(path)
        if any(key.startswith("conditioner.") for key in shapes):
            raise refuse(name, "is Stable Diffusion XL", "choose an autoencoder of Stable Diffusion 1.x or 2.x")
        if any(re.match(r"(first_stage_model\.)?encoder\.down\.", key) for key in shapes):
            vae = load_vae(path, shapes, dtype)
        elif any(key.startswith("encoder.down_blocks.") for key in shapes):
            vae = load_vae_file(path, name, dtype)
        else:
            raise refuse(name, "is no autoencoder of Stable Diffusion", "choose another --vae")
    if vae.config.latent_channels != unet.config.in_channels:
        raise refuse(
            name,
            f"has latents of {vae.config.latent_channels} channels, and this UNet takes {unet.config.in_channels}",
            "choose an autoencoder of Stable Diffusion 1.x or 2.x",
        )
    return vae


def add_embedding(pipe: Any, name: str) -> None:
    """Add a textual inversion: "FILE=WORD", or "FILE", which gives the word or is named after it."""
    file, word = split_value(name)
    path = _file(file, "textual inversion", EMBEDDING_FILE)
    shapes, _ = read_header(path)
    width = pipe.text_encoder.config.hidden_size
    shape = next(iter(shapes.values()), ())
    if len(shapes) != 1 or len(shape) not in (1, 2) or shape[-1] != width:
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
    path = Path(os.path.expanduser(name))
    if inside and os.path.isdir(path):
        path = path / inside
    if not os.path.isfile(path):  # Path's own raises for what this user may not look at
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
