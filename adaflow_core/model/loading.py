"""Loads a Stable Diffusion 1.x or 2.x checkpoint: by name, from the Hub, from a folder or a file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from adaflow_core.config import ModelProfile
from adaflow_core.errors import AdaFlowError, first_line
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.backends import pick_attention
from adaflow_core.model.ddim import Schedule
from adaflow_core.model.files.check import LORA_FILE, PARTS, check_configs, note_on_steps, read_json
from adaflow_core.model.files.extras import EMBEDDING_FILE, VAE_FILE, add_embedding, fuse_lora, other_vae
from adaflow_core.model.files.folder import load_folder
from adaflow_core.model.files.parts import ModelParts, split_value
from adaflow_core.model.files.single import load_single
from adaflow_core.model.files.weights import check_finite
from adaflow_core.model.fused import accelerate, memory_format
from adaflow_core.model.hub.client import hub_file, hub_folder, is_file_id, on_disk
from adaflow_core.model.memory import on_device
from adaflow_core.progress import Monitor

logger = logging.getLogger(__name__)
EMBEDDED = Path(__file__).resolve().parents[2] / "assets" / "embedded-sd"
# Checkpoints whose layout the engine knows.
KNOWN_MODELS: dict[str, str] = {
    "embedded": "the small model of this project: drawn scenes, 256 pixels, no download",
    "sd15": "Stable Diffusion 1.5, 512 pixels, epsilon prediction",
    "sd21-base": "Stable Diffusion 2.1 base, 512 pixels, epsilon prediction",
    "sd21": "Stable Diffusion 2.1, 768 pixels, v prediction",
}


def pick_device(name: str) -> torch.device:
    """Return the device of that name, or for "auto" a CUDA GPU that runs here, else the CPU.

    Apple's GPUs are used only if named: this program was never run on one. Raises AdaFlowError for a device that cannot
    be used.
    """
    if name != "auto":
        try:
            return _tried(name)
        except Exception as problem:  # torch raises several types for a device that cannot be used
            raise AdaFlowError(f"device {name!r} cannot be used here; try --device auto or cpu") from problem
    if torch.cuda.is_available():
        try:
            return _tried("cuda")
        except Exception as problem:  # e.g. this build of torch has no kernels for the GPU
            logger.warning("the GPU cannot be used (%s); the CPU is, which is slower", first_line(problem))
            return torch.device("cpu")
    return torch.device("cpu")


def _tried(name: str) -> torch.device:
    """Return the device of that name after a trial computation on it."""
    device = torch.device(name)
    (torch.zeros(1, device=device) + 1).cpu()  # the sum, unlike zeros, needs a kernel
    return device


@contextmanager
def fitting(device: torch.device, what: str) -> Iterator[None]:
    """Make `device` current within the block; on out-of-memory raise AdaFlowError that names `what`."""
    try:
        with on_device(device):
            yield
    except torch.OutOfMemoryError:
        # From None: the allocator's message is of no use to a user.
        raise AdaFlowError(
            f"{what} does not fit the device's free memory; close what else uses it, or run on another: --device cpu"
        ) from None


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the named precision; "auto" is float16 on CUDA, bfloat16 on a CPU that multiplies it, else float32.

    Other CPUs are slower in half precision, and on Metal the VAE overflows in it. Raises AdaFlowError for other names.
    """
    if name == "auto":
        if device.type == "cpu" and multiplies_bfloat16():
            return torch.bfloat16
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in ("float16", "bfloat16", "float32"):
        raise AdaFlowError(f"dtype {name!r} is unknown; choose auto, float16, bfloat16 or float32")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def fits_half(dtype: str, device: torch.device) -> bool:
    """Whether weights in half precision, half the download, are enough for the precision of `pick_dtype`."""
    return pick_dtype(dtype, device) != torch.float32


def multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions that multiply bfloat16; with AVX-512 they run at four times float32's rate."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def load_backbone(
    model: str | ModelParts = "embedded",
    *,
    device: str = "auto",
    dtype: str = "auto",
    attention: str = "auto",
    monitor: Monitor | None = None,
) -> Backbone:
    """Load "embedded", a model of the Hub ("sd15", "OWNER/NAME@REVISION"), a folder in diffusers' format, or a file.

    The text may also name LoRAs, a VAE and embeddings, as `ModelParts.parse` reads it. Reads safetensors only and runs
    no code of a checkpoint. `monitor` follows a download. Raises AdaFlowError with the remedy.
    """
    target = pick_device(device)
    kind = pick_dtype(dtype, target)
    parts = model if isinstance(model, ModelParts) else ModelParts.parse(model)
    folder = model_folder(parts.model, half=fits_half(dtype, target), monitor=monitor)
    here = _extras_here(parts, monitor)
    with quiet():
        pipe, profile = _load_pipeline(here, folder, kind)
    modules = {part: getattr(pipe, part) for part in PARTS}
    for part, module in modules.items():
        check_finite(module, part, f"model {parts.model!r}")
    config = pipe.scheduler.config
    schedule = Schedule(
        pipe.scheduler.alphas_cumprod.double(),
        prediction=config.prediction_type,
        offset=config.steps_offset,
        spacing=config.timestep_spacing,
        ends_clean=config.set_alpha_to_one,
    )
    with fitting(target, f"the model {parts}"):
        fused = place(modules["unet"], modules["vae"], modules["text_encoder"], target, kind)
        attend = pick_attention(attention, target, kind)
    logger.info("loaded %s on %s in %s", parts, target, kind)
    return Backbone(
        str(parts), **modules, tokenizer=pipe.tokenizer, schedule=schedule, profile=profile, device=target, dtype=kind,
        attend=attend, fused=fused, notes=_notes(parts, folder),
    )  # fmt: skip


def _notes(parts: ModelParts, folder: Path) -> tuple[str, ...]:
    """Return sentences for the user about what was loaded."""
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json", parts.model) if folder.is_dir() else {}
    found = [
        note_on_steps(parts.model, str(scheduler.get("_class_name"))),
        *(note_on_steps(split_value(name)[0]) for name in parts.loras),
    ]
    return tuple(filter(None, found))


def model_folder(model: str, *, half: bool = False, monitor: Monitor | None = None) -> Path:
    """Return the path of a model's files; one on the Hub is downloaded first, if the engine can use it."""
    return local_folder(model) or hub_folder(
        model, half=half, check=lambda folder: check_configs(folder, model), monitor=monitor
    )


def local_folder(model: str) -> Path | None:
    """Return the path of a model on this machine; None if it can only be on the Hub."""
    return EMBEDDED if model == "embedded" else on_disk(model)


def _extras_here(parts: ModelParts, monitor: Monitor | None) -> ModelParts:
    """Download the LoRAs, VAE and embeddings that are on the Hub, and return the parts with their local paths."""

    def here(name: str, *usual: str) -> str:
        file, value = split_value(name)
        if on_disk(name) or on_disk(file) or not is_file_id(file):
            return name
        path = str(hub_file(file, usual, monitor=monitor))
        return f"{path}={value}" if value else path

    vae = parts.vae and here(parts.vae, VAE_FILE, f"vae/{VAE_FILE}")
    loras = tuple(here(name, LORA_FILE) for name in parts.loras)
    embeddings = tuple(here(name, EMBEDDING_FILE) for name in parts.embeddings)
    return ModelParts(parts.model, loras, vae, embeddings)


def _load_pipeline(parts: ModelParts, folder: Path, dtype: torch.dtype) -> tuple[Any, ModelProfile]:
    """Return a `StableDiffusionPipeline` with the LoRAs, VAE and embeddings added, and the model's profile."""
    try:
        if folder.is_file():
            pipe = load_single(folder, dtype, with_vae=not parts.vae)
        else:
            pipe = load_folder(folder, parts.model, dtype)
    except AdaFlowError as problem:
        if parts.model != "embedded":
            raise
        raise AdaFlowError(
            "the embedded model is missing or damaged: assets/embedded-sd belongs to the checkout; "
            "get it again, or give another --model"
        ) from problem
    if parts.vae:
        pipe.vae = other_vae(parts.vae, pipe.unet, dtype)
    profile = ModelProfile.load(folder if folder.is_dir() else folder.parent) or ModelProfile(size=trained_size(pipe))
    for name in parts.loras:
        fuse_lora(pipe, name)
    for name in parts.embeddings:
        add_embedding(pipe, name)
    return pipe, profile


def trained_size(pipe: Any) -> int:
    """Return the shorter side, in pixels, of the pictures that a pipeline was trained on."""
    size = pipe.unet.config.sample_size
    shorter = size if isinstance(size, int) else min(size)
    return int(shorter * 2 ** (len(pipe.vae.config.block_out_channels) - 1))


def place(unet: Any, vae: Any, text_encoder: Any, device: torch.device, dtype: torch.dtype) -> bool:
    """Move the modules to the device in its fastest layout; return whether UNet and VAE are fused."""
    fused = accelerate(unet, vae, device=device, dtype=dtype)
    for module in (unet, vae, text_encoder):
        module.to(device, memory_format=memory_format(device, fused)).eval().requires_grad_(False)
    return fused


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the libraries' loading bars and warnings about unused parts."""
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    # Importing diffusers already makes transformers print, so its level is set first.
    from diffusers.utils import logging as diffusers_logging

    levels = [(transformers_logging, before), (diffusers_logging, diffusers_logging.get_verbosity())]
    diffusers_logging.set_verbosity_error()
    for library, _ in levels:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, level in levels:
            library.set_verbosity(level)
            library.enable_progress_bar()
