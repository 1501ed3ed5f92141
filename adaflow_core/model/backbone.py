"""The diffusion model: encode, decode, embed, predict. Any Stable Diffusion 1.x or 2.x checkpoint."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from adaflow_core.config import ModelProfile
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backends import Attend, gather_blend
from adaflow_core.model.ddim import Schedule
from adaflow_core.model.files.weights import bit_sum
from adaflow_core.model.fused import memory_format
from adaflow_core.model.memory import Sent, even, to_device
from adaflow_core.team.team import ALONE, Team
from adaflow_core.types import Embedding, Grid

_FULL_FRAME = 384 * 672  # pixels of a frame for which the numbers of frames a call were chosen
_TOKENIZING = Lock()  # a tokenizer keeps how it cuts and pads: a prompt is looked at while an edit runs


class FiniteCheck:
    """Checks that all outputs of the model are finite.

    A flag on the device is updated with each output and read when results are fetched, so that no pass waits for it.
    Threads may share one: a prompt may be embedded while an edit runs.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._flags: dict[str, Tensor] = {}  # part -> 0, or not a number from the first output on that is not finite

    def add(self, part: str, output: Tensor) -> None:
        flag = 0 * output.sum(dtype=torch.float32)
        with self._lock:
            self._flags[part] = self._flags[part] + flag if part in self._flags else flag
        if output.device.type == "cpu":
            self.check()

    def forget(self) -> None:
        """Drops the flags, which a stopped job may have left."""
        self._take()

    def check(self) -> None:
        """Raise AdaFlowError for the parts whose outputs so far are not all finite."""
        self.sent()()

    def sent(self) -> Callable[[], None]:
        """A check of the outputs so far, to be called later; it then waits for these outputs and no later ones."""
        flags = self._take()
        if not flags:
            return lambda: None
        found = Sent(torch.stack(list(flags.values())).isfinite())

        def check() -> None:
            parts = [part for part, finite in zip(flags, found.array(), strict=True) if not finite]
            if parts:
                raise AdaFlowError(
                    f"the model's {' and '.join(parts)} gave values that are not finite numbers; run it in full "
                    "precision (--dtype float32), and if that is of no help fetch the checkpoint again or choose "
                    "another: its weights are damaged"
                )

        return check

    def _take(self) -> dict[str, Tensor]:
        with self._lock:
            flags, self._flags = self._flags, {}
        return flags


@dataclass(frozen=True)
class Backbone:
    """A loaded checkpoint.

    Once it is loaded, only the UNet's attention processors, forward hooks and feed-forward chunks change, each within a
    `with` block that restores them.
    """

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
    fused: bool = False  # whether its modules run as fused kernels
    finite: FiniteCheck = field(default_factory=FiniteCheck)
    team: Team = ALONE  # the processes that work on the same film
    notes: tuple[str, ...] = ()  # sentences for the user on the checkpoint

    @cached_property
    def fingerprint(self) -> str:
        """A digest of all that makes the numbers, for cache keys: weights, configurations, schedule, words, precision.

        Of each weight tensor: a few values, and the sum of all bits, which any order of adding gives alike.
        """
        schedule = vars(self.schedule) | {"alphas_cumprod": self.schedule.alphas_cumprod.tolist()}
        modules = (self.vae, self.unet, self.text_encoder)
        about = [str(self.dtype), schedule, *(_numbers_of(module.config) for module in modules)]
        digest = hashlib.blake2b(json.dumps(about, sort_keys=True, default=str).encode(), digest_size=16)
        # How long texts were cut and padded to when it was last used is no part of the model.
        words = json.loads(self.tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
        digest.update(json.dumps(words, sort_keys=True).encode())
        # Learned words are the last rows; of one with several vectors their order matters.
        learned = self.text_encoder.get_input_embeddings().weight.detach()[-64:]
        digest.update(learned.float().cpu().numpy().tobytes())
        for module in modules:
            tensors = [tensor.detach() for tensor in module.parameters()]
            samples = [tensor.flatten()[:: max(1, tensor.numel() // 8)] for tensor in tensors]
            digest.update(torch.cat(samples).float().cpu().numpy().tobytes())
            digest.update(torch.stack([bit_sum(tensor) for tensor in tensors]).cpu().numpy().tobytes())
        return digest.hexdigest()

    @property
    def gather(self) -> Callable[..., Tensor]:
        """`gather_blend`, as a kernel where those run."""
        if self.fused:
            from adaflow_core.model import kernels

            return kernels.gather_blend
        return gather_blend

    @property
    def factor(self) -> int:
        """Pixels per latent, each way."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def latent_channels(self) -> int:
        return int(self.vae.config.latent_channels)

    @property
    def chunk(self) -> int:
        """Frames per UNet call unless the settings give another number."""
        if self.device.type == "cuda":
            # By the card's size, not by what is free now: results depend on the chunk in their last bits.
            total = torch.cuda.get_device_properties(self.device).total_memory
            return next((frames for frames, gib in ((32, 20), (16, 11), (8, 7)) if total > gib * 2**30), 4)
        # On a CPU larger chunks gain nothing, and the stop signal must be seen within two seconds.
        return 8 if self.device.type == "cpu" else 16

    def chunk_for(self, width: int, height: int, low_memory: bool = False) -> int:
        """Frames of that size per UNet call, with `low_memory` at most what keeps a call well within 8 GiB.

        A GPU takes more frames if they are small: the host would need longer to issue a call of few than the GPU to
        run it.
        """
        chunk = min(16, self.chunk) if low_memory else self.chunk
        if self.device.type != "cuda":
            return chunk
        return chunk * max(1, min(4, _FULL_FRAME // (width * height)))

    def rows(self, chunk: int | None = None) -> int:
        """Most frames of a pass in which each frame is one row, if a call of an edit has `chunk` frames.

        It is small on a CPU, where the last pass of a draft of a few keyframes would be mostly padding. A GPU needs
        more work at a time, or it waits for the next kernel; in an edit, a frame has up to three rows.
        """
        if self.device.type == "cuda":
            return 2 * min(chunk or self.chunk, self.chunk)
        return min(4 if self.device.type == "cpu" else 16, chunk or self.chunk)

    def pass_size(self, count: int, rows: int) -> int:
        """The size of each pass, at most `rows` frames, when `count` frames are passed through the model.

        On a CPU every pass has `rows` frames, the last one being padded (`in_passes`): so a frame gets the same bits
        whichever others are passed with it. On a GPU passes are about equal: 148 frames in passes of at most 64 make
        passes of 50. With fewer than 24 frames a card waits for Python (2.3 ms a frame instead of 1.8; SD 2.1, 672x384,
        H200), and for a pass of another size, such as a small last one, it selects its kernels again.
        """
        return even(count, rows) if self.device.type == "cuda" else rows

    def whole(self, rows: int) -> int:
        """The unit, in frames, in which frames that pass in `rows` are shared out among the processes.

        On a CPU it is a whole pass, so that several processes make the same passes as one would; on a GPU one frame.
        """
        return 1 if self.device.type == "cuda" else rows

    def share(self, count: int, rows: int) -> tuple[slice, int]:
        """This process's part of range(count), and the size of its passes, at most `rows` frames."""
        own = self.team.own(count, self.whole(rows))
        return own, self.pass_size(own.stop - own.start, rows)

    def vae_chunk(self, width: int, height: int, low_memory: bool = False) -> int:
        """Frames per call of the autoencoder: 16 of 384x672 take 10 GiB on a GPU, and 5 elsewhere in float32."""
        if self.device.type == "cuda":
            limit, full = 4 if low_memory else min(16, self.chunk // 2), 16
        else:
            limit, full = min(self.rows(), 8), 5
        return max(1, min(limit, full * _FULL_FRAME // (width * height)))

    def grids(self, width: int, height: int) -> list[Grid]:
        """Token grids of the UNet's self-attention for frames of this size, finest first."""
        h, w = height // self.factor, width // self.factor
        levels = []
        for kind in self.unet.config.down_block_types:
            if "CrossAttn" in kind:
                levels.append(Grid(h, w))
            h, w = -(-h // 2), -(-w // 2)
        # The middle block attends on the coarsest level, whatever the last down block does.
        scale = 2 ** (len(self.unet.config.down_block_types) - 1)
        deepest = Grid(*(-(-(side // self.factor) // scale) for side in (height, width)))
        return [*levels, deepest] if deepest not in levels else levels

    @property
    def _latent_scaling(self) -> tuple[float, float]:
        """What is taken from the autoencoder's latents, and what they are then multiplied by."""
        return self.vae.config.shift_factor or 0.0, self.vae.config.scaling_factor

    @torch.inference_mode()
    def encode(self, frames: np.ndarray) -> Tensor:
        """[B, H, W, 3] uint8 -> latents [B, c, h, w] float32: the mean of the posterior, scaled."""
        return self.encode_there(to_device(frames, self.device))

    @torch.inference_mode()
    def encode_there(self, frames: Tensor) -> Tensor:
        """As `encode`, of frames on the device."""
        # Frames as they lie are channels-last pictures.
        pixels = rearrange(frames, "b h w c -> b c h w").to(self.dtype) / 127.5 - 1
        latents = self.vae.encode(pixels).latent_dist.mode()
        self.finite.add("autoencoder", latents)
        shift, scale = self._latent_scaling
        return ((latents - shift) * scale).float()

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> np.ndarray:
        """[B, 4, h, w] -> frames [B, H, W, 3] uint8."""
        return self.fetch(self.decode_there(latents))

    @torch.inference_mode()
    def decode_there(self, latents: Tensor) -> Tensor:
        """As `decode`, the frames left on the device."""
        shift, scale = self._latent_scaling
        pixels = self.vae.decode(latents.to(self.device, self.dtype) / scale + shift).sample.float()
        self.finite.add("autoencoder", pixels)
        levels = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return rearrange(levels, "b c h w -> b h w c")

    @torch.inference_mode()
    def embed(self, text: str) -> Embedding:
        """The prompt as the UNet takes it, with its unknown words and the part that the encoder truncates."""
        text = text.encode("utf-8", "replace").decode()  # half characters, of a command line in another encoding
        spoken, text = text, self._spell_out(text)
        limit = self.tokenizer.model_max_length
        with _TOKENIZING:
            whole = self.tokenizer(text, truncation=False, verbose=False, return_offsets_mapping=True)
            kept = self.tokenizer(
                text, padding="max_length", max_length=limit, truncation=True, return_tensors="pt"
            ).input_ids
            unknown = self._unknown_words(spoken)
        # The last position holds the end-of-text token.
        fits = len(whole.input_ids) <= limit
        dropped = "" if fits else text[whole.offset_mapping[limit - 1][0] :].strip()
        prompt_embeds = self.text_encoder(kept.to(self.device)).last_hidden_state
        self.finite.add("text encoder", prompt_embeds)
        special = {self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
        words = np.array([int(token) not in special for token in kept[0]])
        known = any(int(token) not in special | {self.tokenizer.unk_token_id} for token in kept[0])
        return Embedding(spoken, prompt_embeds, words, unknown, dropped, known)

    def _spell_out(self, text: str) -> str:
        """The text with each word that has several learned vectors written out as all of them ("word word_1 ...")."""
        known = self.tokenizer.added_tokens_encoder
        spelled = {
            word: " ".join([word, *(other for i in range(1, 99) if (other := f"{word}_{i}") in known)])
            for word in sorted((word for word in known if f"{word}_1" in known), key=len, reverse=True)
        }
        if not spelled:
            return text
        # All in one pass, the longest first: one word may end in another.
        any_of_them = rf"({'|'.join(map(re.escape, spelled))})(?!_?\w)"
        return re.sub(any_of_them, lambda found: spelled[found[1]], text)

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
    def predict(self, latents: Tensor, timestep: int, prompt_embeds: Tensor) -> Tensor:
        """The UNet's output [B, 4, h, w] float32 for latents [B, 4, h, w] at `timestep` and prompts [B or 1, L, d]."""
        prompt_embeds = prompt_embeds.expand(len(latents), -1, -1)
        sample = latents.to(self.device, self.dtype, memory_format=memory_format(self.device, self.fused))
        time = torch.full((), timestep, device=self.device)  # filled there: a copy would wait for the device
        output = self.unet(sample, time, encoder_hidden_states=prompt_embeds, return_dict=False)[0].float()
        self.finite.add("UNet", output)
        return output

    def send(self, results: Tensor) -> Sent:
        """Sends results to the host; their `array` raises AdaFlowError if any of the model's outputs is not finite.

        All results that are kept come to the host by this or by `fetch`.
        """
        return Sent(results, self.finite.sent())

    def fetch(self, results: Tensor) -> np.ndarray:
        """Results as an array, after all the device's work; raises as `send` does."""
        fetched = results.cpu().numpy()
        self.finite.check()
        return fetched


def _numbers_of(config: Any) -> dict[str, Any]:
    """A module's configuration without its name, and without the versions of what wrote it."""
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    left_out = ("_", "architectures", "dtype", "torch_dtype", "transformers_version", "sample_size")
    return {key: value for key, value in values.items() if not key.startswith(left_out)}


_WORDS, _LETTERS, _REST = 12, 40, 200  # quoted by a warning: words, letters of each, letters of what was truncated
# What other programs take for instructions: (word:1.3), ((word)), [word], <lora:name:1>, BREAK, AND.
_SYNTAX = re.compile(r"<\w+:[^<>]*>|\([^()]*:\s*[\d.]+\s*\)|\(\([^()]*\)\)|\[[^\[\]]+\]|\b(?:BREAK|AND)\b")


def foreign_syntax(text: str) -> str:
    """The instructions to other programs in a prompt, to be quoted; "" if there are none."""
    signs = list(dict.fromkeys(match[0] for match in _SYNTAX.finditer(text)))
    return ", ".join(_shorten(sign, _LETTERS) for sign in signs[:_WORDS])


def prompt_warnings(embedding: Embedding, name: str = "prompt") -> tuple[str, ...]:
    """Sentences on what the model does not take of the prompt that is called `name`."""
    found = []
    if embedding.unknown:
        words = [_shorten(word, _LETTERS) for word in embedding.unknown[:_WORDS]]
        more = f" and {len(embedding.unknown) - _WORDS} more" if len(embedding.unknown) > _WORDS else ""
        found.append(f"the model does not know: {', '.join(words)}{more}")
        if not embedding.known:
            found.append(f"the model knows no word of the {name}; say it in words that it was trained on")
    if signs := foreign_syntax(embedding.text):
        found.append(f"weights, LoRAs and breaks mean nothing in a {name} here, and are read as words: {signs}")
    if embedding.dropped:
        found.append(f"the {name} is too long; the model does not see: {_shorten(embedding.dropped, _REST)}")
    return tuple(found)


def _shorten(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
