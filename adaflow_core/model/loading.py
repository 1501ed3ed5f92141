"""Loads a Stable Diffusion 1.x or 2.x checkpoint: by name, from the Hub, from a folder or a file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from adaflow_core.config import ModelProfile
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.backends import pick_attention
from adaflow_core.model.ddim import Schedule
from adaflow_core.model.files.check import LORA_FILE, PARTS, check_configs, note_on_steps, read_json
from adaflow_core.model.files.extras import EMBEDDING_FILE, VAE_FILE, add_embedding, fuse_lora, other_vae
from adaflow_core.model.files.folder import first_line, load_folder
from adaflow_core.model.files.parts import ModelParts, split_value
from adaflow_core.model.files.single import load_single
from adaflow_core.model.files.weights import check_finite
from adaflow_core.model.fused import accelerate, memory_format
from adaflow_core.model.hub.client import hub_file, hub_folder, is_file_id, on_disk
from adaflow_core.model.memory import on_device
from adaflow_core.progress import Monitor

logger = logging.getLogger(__name__)
EMBEDDED = Path(__file__).resolve().parents[2] / "assets" / "embedded-sd"
# Checkpoints whose layout the engine knows, with where their weights live today.
KNOWN_MODELS: dict[str, str] = {
    "embedded": "the small model of this project: drawn scenes, 256 pixels, no download",
    "sd15": "Stable Diffusion 1.5, 512 pixels, epsilon prediction",
    "sd21-base": "Stable Diffusion 2.1 base, 512 pixels, epsilon prediction",
    "sd21": "Stable Diffusion 2.1, 768 pixels, v prediction",
}


def pick_device(name: str) -> torch.device:
    """The device of that name, or for "auto" a GPU that runs here, else the CPU.

    Apple's GPUs are taken where they are named: nothing of this was run on one.
    """
    if name != "auto":
        try:
            return _tried(name)
        except Exception as problem:  # torch raises several types here, all with the same meaning
            raise AdaFlowError(f"device {name!r} cannot be used here; try --device auto or cpu") from problem
    if torch.cuda.is_available():
        try:
            return _tried("cuda")
        except Exception as problem:  # such as a GPU that this build of torch has no kernels for
            logger.warning("the GPU cannot be used (%s); the CPU is, which is slower", first_line(problem))
            return torch.device("cpu")
    return torch.device("cpu")


def _tried(name: str) -> torch.device:
    """The device of that name, once it has computed something."""
    device = torch.device(name)
    (torch.zeros(1, device=device) + 1).cpu()  # zeros alone need no kernel
    return device


@contextmanager
def fitting(device: torch.device, what: str) -> Iterator[None]:
    """Within, work goes to the device; AdaFlowError that names `what` where the device's memory does not do."""
    try:
        with on_device(device):
            yield
    except torch.OutOfMemoryError:
        # From None: how the allocator says it is of no use to a user.
        raise AdaFlowError(
            f"{what} does not fit the device's free memory; close what else uses it, or run on another: --device cpu"
        ) from None


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """float16 on CUDA; on a CPU bfloat16 where the processor multiplies it by itself; float32 elsewhere.

    A CPU without such products is slower in any half precision, and Metal's VAE overflows in it.
    """
    if name == "auto":
        if device.type == "cpu" and multiplies_bfloat16():
            return torch.bfloat16
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in ("float16", "bfloat16", "float32"):
        raise AdaFlowError(f"dtype {name!r} is unknown; choose auto, float16, bfloat16 or float32")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def multiplies_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; with AVX-512 that was measured at four times float32's rate."""
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

    A text may name more, as `ModelParts.parse` reads it. Reads safetensors only and runs no code of a checkpoint.
    Raises AdaFlowError with the remedy. `monitor` follows a download.
    """
    target = pick_device(device)
    kind = pick_dtype(dtype, target)
    parts = model if isinstance(model, ModelParts) else ModelParts.parse(model)
    folder = model_folder(parts.model, half=kind != torch.float32, monitor=monitor)
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
    """Sentences for the user on what was loaded."""
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json", parts.model) if folder.is_dir() else {}
    found = [
        note_on_steps(parts.model, str(scheduler.get("_class_name"))),
        *(note_on_steps(split_value(name)[0]) for name in parts.loras),
    ]
    return tuple(filter(None, found))


def model_folder(model: str, *, half: bool = False, monitor: Monitor | None = None) -> Path:
    """Where the files of a model are; those of a model of the Hub are fetched first, if the engine can use it."""
    return local_folder(model) or hub_folder(
        model, half=half, check=lambda folder: check_configs(folder, model), monitor=monitor
    )


def local_folder(model: str) -> Path | None:
    """The same without the Hub: None for a model that is there only."""
    return EMBEDDED if model == "embedded" else on_disk(model)


def _extras_here(parts: ModelParts, monitor: Monitor | None) -> ModelParts:
    """The parts with what is added to the checkpoint on this machine: what is on the Hub is fetched."""

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
    """A `StableDiffusionPipeline` with DDIM's schedule and what is added to the checkpoint, and its own values."""
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
    """Pixels of the shorter side that a pipeline was trained for."""
    size = pipe.unet.config.sample_size
    shorter = size if isinstance(size, int) else min(size)
    return int(shorter * 2 ** (len(pipe.vae.config.block_out_channels) - 1))


def place(unet: Any, vae: Any, text_encoder: Any, device: torch.device, dtype: torch.dtype) -> bool:
    """The modules on the device, as fast as they run there; says whether UNet and VAE are fused."""
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
