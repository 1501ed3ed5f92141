"""Reads a checkpoint from one .safetensors file in the original layout of Stable Diffusion.

Such a file holds no configurations: they are those of Stable Diffusion 1.x and 2.x, with sizes taken from the shapes of
its weights. The tokenizer is CLIP's, which is in assets/.
"""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import torch

from adaflow_core.model.files.check import BESIDE_TEXT_ENCODER, check_scheduler, check_unet, refuse
from adaflow_core.model.files.folder import as_pipeline
from adaflow_core.model.files.weights import Header, fill, in_parts, read_header, read_tensors

VOCABULARY = Path(__file__).resolve().parents[3] / "assets" / "clip-tokenizer" / "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 48_894  # of the vocabulary that CLIP uses
_UNET, _VAE, _TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
_FIRST = f"{_UNET}input_blocks.0.0.weight"
_OPEN_CLIP = f"{_TEXT}model.token_embedding.weight"  # in Stable Diffusion 2.x
_OPEN_CLIP_LAYERS = 23  # of 24: the prompt's hidden states are taken before the last layer
_CHECKPOINT = "give a whole checkpoint of Stable Diffusion 1.x or 2.x"
# Pattern in the names of a file's tensors -> what the file is, and what to do with it.
_WITH_UNET = (
    (r"^conditioner\.", "Stable Diffusion XL", _CHECKPOINT),
    (r"label_emb", "a model whose UNet takes more than a prompt, as unCLIP's or an upscaler's", _CHECKPOINT),
    (r"^control_model\.", "a ControlNet", _CHECKPOINT),
    (r"motion_modules|temporal|time_stack", "a video model", _CHECKPOINT),
)
_WITHOUT_UNET = (
    (r"lora_|\.lora|hada_|lokr_", "a LoRA", "give it with --lora, beside a checkpoint as --model"),
    (r"^emb_params$|^clip_[lg]$|^<", "a textual inversion", "give it with --embedding, beside a checkpoint as --model"),
    (r"controlnet_cond|^control_model", "a ControlNet", _CHECKPOINT),
    (r"joint_blocks", "Stable Diffusion 3", _CHECKPOINT),
    (r"double_blocks|single_stream|distilled_guidance", "Flux or one of its kind", _CHECKPOINT),
    (r"motion_modules|temporal|time_stack|patchify_proj|self_attn\.norm_k", "a video model", _CHECKPOINT),
    (r"^(first_stage_model\.)?decoder\.", "an autoencoder", "give it with --vae, beside a checkpoint as --model"),
    (r"(down|up)_blocks\.", "one part of a checkpoint in diffusers' format", "give the folder of the whole"),
)


def load_single(path: Path, dtype: torch.dtype, *, with_vae: bool = True) -> Any:
    """Load a `StableDiffusionPipeline` from a file. Raises AdaFlowError with what is wrong and what to do.

    with_vae: if false, the pipeline has no autoencoder, as another one will take its place.
    """
    shapes, remarks = read_header(path)
    _check_kind(shapes, path, with_vae)
    second = _OPEN_CLIP in shapes
    about = _remarks(path, shapes, remarks)
    prediction = about.get("prediction") or ("" if second else "epsilon")
    scheduler = _scheduler(path, prediction or "v_prediction", "zero" in about)
    empty = _empty_unet(path, shapes)
    own = dict(_empty_vae(path, shapes).config) if with_vae else {}
    check_unet(dict(empty.config) | {"_class_name": type(empty).__name__},
               own | {"_class_name": "AutoencoderKL"}, str(path))  # fmt: skip
    # The largest part is loaded last, when the tensors read for the others are released.
    text_encoder = _text_encoder(path, shapes, dtype)
    vae = load_vae(path, shapes, dtype) if with_vae else None
    unet = _filled_unet(empty, path, shapes, dtype)
    tokenizer = clip_tokenizer(pad="!" if second else "<|endoftext|>")
    pipe = as_pipeline({"unet": unet, "vae": vae, "text_encoder": text_encoder}, tokenizer, scheduler, str(path))
    if not prediction:
        prediction = _tried_prediction(pipe)
        pipe.scheduler = _scheduler(path, prediction, "zero" in about)
    # Only the v models of 2.x were trained at 768 pixels.
    unet.register_to_config(sample_size=96 if second and prediction == "v_prediction" else 64)
    return pipe


def _scheduler(path: Path, prediction: str, zero: bool) -> Any:
    """Return Stable Diffusion's scheduler; with `zero` its schedule ends in pure noise.

    Raises AdaFlowError if that does not go with the prediction.
    """
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
        rescale_betas_zero_snr=zero,
        timestep_spacing="trailing" if zero else "leading",
    )
    check_scheduler(dict(scheduler.config) | {"_class_name": "DDIMScheduler"}, str(path), single=True)
    return scheduler


def _check_kind(shapes: Header, path: Path, with_vae: bool) -> None:
    """Raise AdaFlowError if a file, by its tensors' names, is no whole checkpoint of Stable Diffusion 1.x or 2.x."""
    for pattern, what, remedy in _WITH_UNET if _FIRST in shapes else _WITHOUT_UNET:
        if any(re.search(pattern, key) for key in shapes):
            raise refuse(str(path), f"is {what}", remedy)
    if _FIRST not in shapes:
        raise refuse(str(path), "is no checkpoint of Stable Diffusion in the original layout", _CHECKPOINT)
    if not any(key.startswith(_TEXT) for key in shapes):
        raise refuse(str(path), "holds no text encoder", _CHECKPOINT)
    if with_vae and not any(key.startswith(_VAE) for key in shapes):
        raise refuse(str(path), "holds no autoencoder", "give one with --vae, or a whole checkpoint")


def _remarks(path: Path, shapes: Header, remarks: dict[str, str]) -> dict[str, str]:
    """Return "prediction" and, if the schedule ends in pure noise, "zero", as far as a file states them.

    It may state them in its metadata (modelspec), by empty tensors (kohya), by its number of training steps (the first
    2.x of 512 pixels), or in a .yaml beside it.
    """
    beside = path.with_suffix(".yaml")
    yaml = beside.read_text(encoding="utf-8", errors="replace") if beside.is_file() else ""
    about = {}
    stated = remarks.get("modelspec.prediction_type", "")
    if stated or "v_pred" in shapes or re.search(r"parameterization:\s*['\"]?v\b", yaml):
        about["prediction"] = "epsilon" if stated.startswith("eps") else "v_prediction"
    elif "global_step" in shapes and int(read_tensors(path, ["global_step"])["global_step"]) == 875_000:
        about["prediction"] = "epsilon"
    if "ztsnr" in shapes or re.search(r"(zsnr|zero_snr|zero_terminal_snr):\s*true", yaml, re.IGNORECASE):
        about["zero"] = "yes"
    return about


@torch.inference_mode()
def _tried_prediction(pipe: Any) -> str:
    """Find out whether a UNet predicts epsilon or v: given pure noise, an epsilon model returns it, a v model does not.

    With this project's models, noise of 16 x 16 comes back as well as noise of 32 x 32 (a cosine of 0.999) in a quarter
    of the time, which matters as half precision is slow on a CPU.
    """
    noise = torch.randn(1, pipe.unet.config.in_channels, 16, 16, generator=torch.Generator().manual_seed(0))
    ids = pipe.tokenizer("", padding="max_length", return_tensors="pt").input_ids
    states = pipe.text_encoder(ids).last_hidden_state
    output = pipe.unet(noise.to(pipe.unet.dtype), 999, states, return_dict=False)[0].float()
    alike = torch.nn.functional.cosine_similarity(noise.flatten(), output.flatten(), dim=0)
    return "epsilon" if alike > 0.5 else "v_prediction"


def _empty_unet(path: Path, shapes: Header) -> Any:
    """Build the UNet of a checkpoint from the shapes of its weights, on the meta device."""
    from accelerate import init_empty_weights
    from diffusers import UNet2DConditionModel

    widths = _widths(shapes, _UNET + "input_blocks.{}.0.out_layers.3.weight", (1, 4, 7, 10), path)
    attention = f"{_UNET}input_blocks.1.1."
    second = _OPEN_CLIP in shapes
    with init_empty_weights():
        return UNet2DConditionModel(
            sample_size=64,
            in_channels=shapes[_FIRST][1],
            out_channels=shapes[f"{_UNET}out.2.weight"][0],
            block_out_channels=widths,
            cross_attention_dim=shapes[f"{attention}transformer_blocks.0.attn2.to_k.weight"][1],
            # Numbers of heads (diffusers' name is wrong): 8 in 1.x, one for every 64 channels in 2.x.
            attention_head_dim=tuple(width // 64 for width in widths) if second else 8,
            use_linear_projection=len(shapes[f"{attention}proj_in.weight"]) == 2,
        )


def _filled_unet(unet: Any, path: Path, shapes: Header, dtype: torch.dtype) -> Any:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    # The function only renames keys, so it is given the names as values.
    names = convert_ldm_unet_checkpoint({key: key for key in shapes if key.startswith(_UNET)}, unet.config)
    fill(unet, "unet", path, in_parts(path, names), dtype)
    return unet.eval()


def load_vae(path: Path, shapes: Header, dtype: torch.dtype) -> Any:
    """Load the autoencoder from a checkpoint, or from a file of its own."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    vae, prefix = _empty_vae(path, shapes), _vae_prefix(shapes)
    tensors = read_tensors(path, [key for key in shapes if re.match(f"{prefix}(encoder|decoder|quant|post)", key)])
    fill(vae, "vae", path, [convert_ldm_vae_checkpoint(tensors, vae.config)], dtype)
    return vae.eval()


def _empty_vae(path: Path, shapes: Header) -> Any:
    """Build the autoencoder of a file from the shapes of its weights, on the meta device."""
    from accelerate import init_empty_weights
    from diffusers import AutoencoderKL

    prefix = _vae_prefix(shapes)
    widths = _widths(shapes, prefix + "encoder.down.{}.block.0.conv1.weight", range(4), path)
    with init_empty_weights():
        return AutoencoderKL(
            block_out_channels=widths,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=shapes[f"{prefix}decoder.conv_in.weight"][1],
            sample_size=512,
            scaling_factor=0.18215,
        )


def _vae_prefix(shapes: Header) -> str:
    return _VAE if any(key.startswith(_VAE) for key in shapes) else ""


def _text_encoder(path: Path, shapes: Header, dtype: torch.dtype) -> Any:
    from accelerate import init_empty_weights
    from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_open_clip_checkpoint
    from transformers import CLIPTextConfig, CLIPTextModel

    second = _OPEN_CLIP in shapes
    numbered = (re.match(rf"{_TEXT}.*\.(?:resblocks|layers)\.(\d+)\.", key) for key in shapes)
    layers = {found[1] for found in numbered if found}
    ends = ("token_embedding.weight", "positional_embedding", "position_embedding.weight", "0.mlp.fc1.weight",
            "0.mlp.c_fc.weight")  # fmt: skip
    sizes = {end: shapes[key] for end in ends for key in shapes if key.startswith(_TEXT) and key.endswith(end)}
    try:
        vocabulary, width = sizes["token_embedding.weight"]
        positions = (sizes.get("positional_embedding") or sizes["position_embedding.weight"])[0]
        inner = (sizes.get("0.mlp.c_fc.weight") or sizes["0.mlp.fc1.weight"])[0]
    except KeyError as problem:
        raise refuse(str(path), "has a text encoder of another kind than CLIP", _CHECKPOINT) from problem
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        projection_dim=width,
        num_hidden_layers=min(len(layers), _OPEN_CLIP_LAYERS) if second else len(layers),
        num_attention_heads=max(1, width // 64),
        max_position_embeddings=positions,
        hidden_act="gelu" if second else "quick_gelu",
    )
    with init_empty_weights():
        model = CLIPTextModel(config)
    tensors = read_tensors(path, [key for key in shapes if key.startswith(_TEXT)])
    found = convert_open_clip_checkpoint(model, tensors) if second else convert_ldm_clip_checkpoint(tensors)
    named = {key.removeprefix("text_model."): tensor for key, tensor in found.items()}
    for beside in (*BESIDE_TEXT_ENCODER, "embeddings.position_ids"):
        named.pop(beside, None)
    fill(model, "text_encoder", path, [named], dtype)
    return model.eval()


def _widths(shapes: Header, pattern: str, levels: Any, path: Path) -> tuple[int, ...]:
    """Return the number of channels of each level, from the shape of a weight in it."""
    try:
        return tuple(shapes[pattern.format(level)][0] for level in levels)
    except KeyError as problem:
        raise refuse(str(path), f"lacks {problem.args[0]}", _CHECKPOINT) from problem


def clip_tokenizer(pad: str = "<|endoftext|>") -> Any:
    """Build CLIP's tokenizer from its list of merges. `pad`: the padding token; 2.x was trained with "!"."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    with gzip.open(VOCABULARY, "rt", encoding="utf-8") as file:
        merges = [tuple(line.split()) for line in file.read().split("\n")[1 : 1 + _MERGES]]
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges)]
    vocabulary = {word: place for place, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=77)
