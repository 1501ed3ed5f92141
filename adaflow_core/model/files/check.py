"""Checks by its configurations alone whether the engine can use a checkpoint, before weights are read or downloaded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from adaflow_core.errors import AdaFlowError

REMEDY = "choose a text-to-image checkpoint of Stable Diffusion 1.x or 2.x"
# Part of a pipeline's class name -> what kind of model it is.
_FAMILIES = {
    "StableDiffusionXL": "Stable Diffusion XL",
    "StableDiffusion3": "Stable Diffusion 3",
    "Flux": "Flux",
    "Video": "a video model",
    "Animate": "a video model",
    "Inpaint": "an inpainting model",
    "InstructPix2Pix": "an instruction model",
}
# Number of channels that a UNet takes besides the latents -> what kind of model it is.
_MORE_CHANNELS = {5: "an inpainting model", 4: "an instruction model", 3: "an upscaler", 1: "a depth-to-image model"}
LORA_FILE = "pytorch_lora_weights.safetensors"  # the usual name in folders and repositories
PARTS = ("unet", "vae", "text_encoder")
_BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")  # schedules that diffusers' DDIM computes
_FEW_STEPS = re.compile(r"(?<![a-z])(turbo|lcm|hyper[-_ ]?sd|lightning|tcd)(?![a-z])", re.IGNORECASE)
_FEW_STEPS_BY = ("LCMScheduler", "TCDScheduler")
_XL_SCALING = 0.13025  # scaling factor of Stable Diffusion XL's VAE, which has the same shapes as those of 1.x and 2.x
# CLIP's tensors beside the text encoder's own in some checkpoints; the prompt's hidden states do not depend on them.
BESIDE_TEXT_ENCODER = frozenset({"text_projection.weight", "logit_scale"})


def refuse(name: str, what: str, remedy: str = REMEDY) -> AdaFlowError:
    return AdaFlowError(f"model {name!r} {what}; {remedy}")


def check_configs(folder: Path, name: str) -> None:
    """Raise AdaFlowError if the engine cannot use the model `name` in diffusers' format; it says what the model is."""
    index = read_json(folder / "model_index.json", name)
    pipeline = str(index.get("_class_name"))
    family = next((what for part, what in _FAMILIES.items() if part in pipeline), None)
    if family is not None:
        raise refuse(name, f"is {family} ({pipeline})")
    for part in (*PARTS, "tokenizer", "scheduler"):
        if not isinstance(index.get(part), list) or index[part][1] is None:
            raise refuse(name, f"is a {pipeline}, which has no {part}")
        if index[part][0] not in ("diffusers", "transformers"):
            raise refuse(name, f"has a {part} with code of its own ({index[part][0]}), which is not run")
    configs = {part: read_json(folder / part / "config.json", name) for part in PARTS}
    check_unet(configs["unet"], configs["vae"], name)
    text = configs["text_encoder"]
    kinds = [*(text.get("architectures") or ()), text.get("model_type")]
    if not {"CLIPTextModel", "CLIPTextModelWithProjection", "clip_text_model"} & set(kinds):
        raise refuse(name, f"has a text encoder of another kind ({kinds[0]})")
    if text.get("hidden_size", 512) != configs["unet"].get("cross_attention_dim"):
        raise refuse(
            name,
            f"has a text encoder of width {text.get('hidden_size', 512)} and a UNet that takes "
            f"{configs['unet'].get('cross_attention_dim')}",
            "its parts are of different checkpoints: fetch it again",
        )
    check_scheduler(read_json(folder / "scheduler" / "scheduler_config.json", name), name)
    if not any((folder / "tokenizer" / file).is_file() for file in ("tokenizer.json", "vocab.json")):
        raise refuse(name, "has no tokenizer", "fetch its folder tokenizer/ too")


def check_unet(unet: dict[str, Any], vae: dict[str, Any], name: str) -> None:
    """Raise AdaFlowError if a UNet, by its configuration, takes or gives anything but latents, timestep and prompt."""
    if unet.get("_class_name") != "UNet2DConditionModel":
        video = " of a video model" if any(k in str(unet.get("_class_name")) for k in ("3D", "Motion", "Temp")) else ""
        raise refuse(name, f"has a {unet.get('_class_name')}{video}, not a UNet2DConditionModel")
    if vae.get("_class_name") != "AutoencoderKL":
        raise refuse(name, f"has an autoencoder of another kind ({vae.get('_class_name')})")
    if unet.get("addition_embed_type") is not None:
        raise refuse(name, "is Stable Diffusion XL, whose UNet takes more than a prompt")
    for added in ("class_embed_type", "num_class_embeds", "encoder_hid_dim", "time_cond_proj_dim"):
        if unet.get(added) is not None:
            raise refuse(name, f"has a UNet that takes more than a prompt ({added} is {unet[added]})")
    latents, taken = vae.get("latent_channels", 4), unet.get("in_channels", 4)
    if taken != latents or unet.get("out_channels", 4) != latents:
        kind = _MORE_CHANNELS.get(taken - latents)
        what = f"is {kind}" if kind else f"has an autoencoder of {latents} channels"
        raise refuse(name, f"{what}: its UNet takes {taken} channels and gives {unet.get('out_channels', 4)}")
    size = unet.get("sample_size")
    sizes = size if isinstance(size, list) else [size]
    if not all(isinstance(value, int) and value > 0 for value in sizes):
        raise refuse(
            name,
            f"does not say for which size it was trained (sample_size is {size!r})",
            "write it into unet/config.json: 64 for 512 pixels, 96 for 768",
        )


def check_latents(vae: dict[str, Any], name: str) -> None:
    """Raise AdaFlowError if an autoencoder, by its configuration, is Stable Diffusion XL's, whose latents differ."""
    if vae.get("scaling_factor") == _XL_SCALING:
        raise refuse(
            name,
            f"is an autoencoder of Stable Diffusion XL (its scaling_factor is {_XL_SCALING})",
            "choose an autoencoder of Stable Diffusion 1.x or 2.x",
        )


def check_scheduler(config: dict[str, Any], name: str, *, single: bool = False) -> None:
    """Raise AdaFlowError if DDIM cannot compute the schedule of a scheduler's configuration.

    single: the configuration is of a single file, for which the remedy differs.
    """
    kind, prediction = str(config.get("_class_name")), config.get("prediction_type", "epsilon")
    remedy = "choose a checkpoint that predicts epsilon or v"
    if "Flow" in kind or config.get("use_flow_sigmas") or "flow" in prediction:
        raise refuse(name, f"was trained by flow matching ({kind})", remedy)
    if "EDM" in kind:
        raise refuse(name, f"has a noise schedule that is not one of betas ({kind})", remedy)
    betas = config.get("beta_schedule", "linear")
    if config.get("trained_betas") is None and betas not in _BETAS:
        raise refuse(name, f"has a noise schedule that DDIM does not compute (beta_schedule is {betas!r})")
    if prediction not in ("epsilon", "v_prediction"):
        raise refuse(name, f"predicts {prediction!r}", remedy)
    if config.get("rescale_betas_zero_snr") and prediction == "epsilon":
        raise refuse(
            name,
            "has a schedule that ends in pure noise, from which epsilon says nothing",
            'if it predicts v, say so in a .yaml of the same name beside it: parameterization: "v"'
            if single
            else "set rescale_betas_zero_snr to false or prediction_type to v_prediction in scheduler_config.json",
        )
    if config.get("thresholding"):
        raise refuse(
            name, "asks for thresholding, which latents do not have", "set it to false in scheduler_config.json"
        )


def note_on_steps(name: str, scheduler: str = "") -> str:
    """Return advice on a checkpoint or LoRA that is distilled for few steps; "" for others.

    It is recognised by its name, a path or an id of the Hub, or by its scheduler's class.
    """
    *above, last = re.sub(r"@(refs/\w+/[^/]+|[^/]+)", "", name.rstrip("/")).split("/")
    called = above[-1] if above and last == LORA_FILE else last
    if scheduler not in _FEW_STEPS_BY and not _FEW_STEPS.search(called):
        return ""
    remedy = "set guidance to 1 (--guidance 1), as more burns its pictures"
    if scheduler in _FEW_STEPS_BY:
        return f"{called} is distilled for few steps (it has the {scheduler}); {remedy}"
    return f"{called} may be distilled for few steps, by its name; if it is, {remedy}"


def read_json(path: Path, name: str) -> dict[str, Any]:
    """Read a configuration of the model `name`; raise AdaFlowError if it is missing or damaged."""
    shown = path.relative_to(path.parents[1]) if path.parent.name in (*PARTS, "scheduler") else path.name
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except PermissionError as problem:
        raise AdaFlowError(f"cannot read {path} ({problem.strerror}); check its rights") from problem
    except OSError as problem:
        raise refuse(
            name, f"has no {shown}", "its download is incomplete, or it is not in diffusers' format: fetch it again"
        ) from problem
    except ValueError as problem:
        raise refuse(name, f"has a damaged {shown} ({problem})", "fetch that file again") from problem
    if not isinstance(data, dict):
        raise refuse(name, f"has a damaged {shown}", "fetch that file again")
    return data


def weight_files(inside: Path, part: str, name: str, half: bool) -> tuple[str | None, list[Path]]:
    """Return the variant ("fp16" or None) of a part to load, and its files; raise AdaFlowError if files are missing.

    inside: the part's folder. half: prefer the fp16 variant, which is smaller, as half precision is enough.
    """
    stem = "diffusion_pytorch_model" if part in ("unet", "vae") else "model"
    for variant in ("fp16", None) if half else (None, "fp16"):
        middle, end = (f".{variant}", f".{variant}") if variant else ("", "")
        index = inside / f"{stem}.safetensors.index{end}.json"
        if index.is_file():
            files = {inside / str(file) for file in read_json(index, name).get("weight_map", {}).values()}
            missing = sorted(file.name for file in files if not file.is_file())
            if missing:
                raise refuse(name, f"lacks {part}/{missing[0]}", "its download is incomplete: fetch it again")
            return variant, sorted(files)
        if (inside / f"{stem}{middle}.safetensors").is_file():
            return variant, [inside / f"{stem}{middle}.safetensors"]
    pickles = sorted(file.name for end in ("*.bin", "*.ckpt", "*.pt") for file in inside.glob(end))
    if pickles:
        raise refuse(
            name,
            f"holds its weights as a pickle ({part}/{pickles[0]}), which can run code",
            "give one with safetensors, or convert it in a place that you can lose",
        )
    raise refuse(name, f"has no weights in {part}/", "its download is incomplete: fetch it again")
