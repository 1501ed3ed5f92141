"""The embedded model: a Stable Diffusion pipeline in SD 1.x's exact layout, small enough to ship.

Everything that reads SD folders reads this one: `StableDiffusionPipeline.from_pretrained(folder)`.
Beside diffusers' own files the folder holds `adaflow.json`, the model's profile: the settings that suit it
and the words it knows.
"""

import copy
import json
import re
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from tokenizers import AddedToken
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from scenes.captions import MAIN_WORDS

BEGIN, END, PAD, UNKNOWN = "<|startoftext|>", "<|endoftext|>", "<|pad|>", "<|unknown|>"
PUNCTUATION = (",", ".", "-", "'")
TOKENS = 77  # the length of a prompt, as in SD 1.x
TEXT_WIDTH = 128
FACTOR = 8  # pixels to a latent, each way
PROFILE = "adaflow.json"
CARD = "README.md"
MAX_SHARD = "12MB"
MAX_FILE_BYTES = 12 * 1024**2
MAX_FOLDER_BYTES = 32 * 1024**2
MAX_TAR_BYTES = 15 * 1024**2


def build_tokenizer(words: Iterable[str]) -> CLIPTokenizer:
    """Build a CLIP tokenizer in which each known word is one token, and an unknown word only unknown tokens.

    Known words are added tokens that match whole words only, after lower-casing. The byte-pair part below
    them knows the punctuation alone, so every character of an unknown word becomes the unknown token.
    """
    vocabulary = {token: index for index, token in enumerate((BEGIN, END, PAD, UNKNOWN))}
    for mark in PUNCTUATION:
        vocabulary[f"{mark}</w>"] = len(vocabulary)
    tokenizer = CLIPTokenizer(
        vocab=vocabulary,
        merges=[],
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,  # CLIP's default is the end of the text: an unknown word would cut the prompt
        model_max_length=TOKENS,
    )
    single = sorted({part for word in words for part in re.findall(r"[^\W\d_]+", word.lower())})
    tokenizer.add_tokens([AddedToken(word, single_word=True, normalized=True) for word in single])
    return tokenizer


def build_unet(size: int, widths: tuple[int, ...] = (32, 64, 128, 128)) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=size // FACTOR,
        block_out_channels=widths,
        attention_head_dim=(1, 2, 4, 4),  # diffusers reads these as numbers of heads, as for SD 1.x
        layers_per_block=2,
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=8,  # 32 groups of the 32 channels would normalise each channel by itself
    )


def build_vae(size: int) -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=size,
        block_out_channels=(16, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=1.0,
        force_upcast=False,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_scheduler() -> DDIMScheduler:
    """SD 1.x's scheduler: scaled-linear betas, epsilon prediction."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="epsilon",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
    )


def assemble(
    vae: AutoencoderKL, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, unet: UNet2DConditionModel
) -> StableDiffusionPipeline:
    """Build the pipeline of these parts, without a safety checker (the drawn world needs none)."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def build(words: Iterable[str], *, size: int = 256, seed: int = 0) -> StableDiffusionPipeline:
    """The untrained pipeline for `size`-pixel pictures, in float32."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(words)
    return assemble(build_vae(size), build_text_encoder(tokenizer), tokenizer, build_unet(size))


def profile(tokenizer: CLIPTokenizer, size: int) -> dict[str, object]:
    """Return the content of `adaflow.json`: the settings that suit the model, and the words that it knows.

    The names are those of `adaflow_core.config.ModelProfile`.
    """
    return {
        "size": size,
        "steps": 10,
        "inversion_steps": 10,
        "guidance": 1.0,
        "negative": "source",
        "injection_attention": 0.2,
        "injection_conv": 1.0,
        "fidelity": 1.0,
        "tolerance": 0.1,
        "focus": 0.0,
        "coarse": 1.0,
        "agreements": 0,
        "smoothing": 0.9,
        "prune": 0.6,
        "similarity": 0.94,
        "window_similarity": 0.62,
        "residual": 0.28,
        "vocabulary": sorted(token for token in tokenizer.get_vocab() if token.isalpha()),
        "words": MAIN_WORDS,
    }


def bare_profile(tokenizer: CLIPTokenizer, size: int) -> dict[str, object]:
    """Return a profile of the size and the words alone: such a model runs with Stable Diffusion's own settings."""
    return {name: profile(tokenizer, size)[name] for name in ("size", "vocabulary")}


def save(pipe: StableDiffusionPipeline, folder: Path | str, settings: dict[str, object] | None = None) -> None:
    """Write the pipeline as a diffusers folder of float16 shards; the pipeline itself is left as it is.

    The folder is replaced as a whole, so that a run that is stopped while saving leaves the earlier folder. An existing
    model card is kept, and so is a profile unless `settings` gives another: people edit these.
    """
    folder = Path(folder)
    parts = {name: copy.deepcopy(getattr(pipe, name)).cpu() for name in ("vae", "text_encoder", "unet")}
    for part in parts.values():
        nn.Module.half(part)  # diffusers' own half() warns of modules to keep in float32, and names none
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    assemble(tokenizer=pipe.tokenizer, **parts).save_pretrained(fresh, max_shard_size=MAX_SHARD)
    for path in fresh.rglob("*.json"):
        _clean_config(path)
    for name in (PROFILE, CARD):
        if (folder / name).exists():
            shutil.copy(folder / name, fresh / name)
    if settings is not None or not (fresh / PROFILE).exists():
        settings = settings or profile(pipe.tokenizer, pipe.unet.config.sample_size * FACTOR)
        (fresh / PROFILE).write_text(json.dumps(settings, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def _clean_config(path: Path) -> None:
    """Remove the path that a part was loaded from, and have the text encoder load in float32.

    diffusers loads its own models in float32 unless told otherwise; transformers takes the dtype of the configuration,
    and a pipeline of both precisions fails at its first step.
    """
    content = json.loads(path.read_text())
    changed = {name: value for name, value in content.items() if name != "_name_or_path"}
    if "dtype" in content:
        changed["dtype"] = "float32"
    if changed != content:
        path.write_text(json.dumps(changed, indent=2) + "\n")


def quiet() -> None:
    """Switch off progress bars of loading and saving, which would fill the logs."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def load(folder: Path | str, dtype: torch.dtype = torch.float32) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(folder, dtype=dtype)


def check_limits(folder: Path | str) -> dict[str, int]:
    """Return the bytes of each file in the folder; raises ValueError if one file or the whole is too large."""
    folder = Path(folder)
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }
    too_large = [name for name, size in sizes.items() if size > MAX_FILE_BYTES]
    if too_large:
        raise ValueError(f"files over {MAX_FILE_BYTES} bytes: {too_large}; save with smaller shards")
    if sum(sizes.values()) > MAX_FOLDER_BYTES:
        raise ValueError(f"{folder} holds {sum(sizes.values())} bytes; at most {MAX_FOLDER_BYTES} are allowed")
    return sizes


def keep(
    pipe: StableDiffusionPipeline, out: Path, packed: Path | None, settings: dict[str, object] | None = None
) -> None:
    """Write a checkpoint, and its packed copy where one is asked for; `settings`: see `save`."""
    save(pipe, out, settings)
    if packed is not None:
        pack(out, packed)
    print(f"  saved {out}", flush=True)


def pack(folder: Path | str, out: Path | str) -> list[Path]:
    """Pack a folder into `out/<folder's name>-1.tar`, `-2.tar` and so on, each of at most 15 MiB."""
    folder, out = Path(folder), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    parcels: list[list[Path]] = [[]]
    filled = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = path.stat().st_size + 2048  # the tar's header and padding
        if parcels[-1] and filled + size > MAX_TAR_BYTES:
            parcels.append([])
            filled = 0
        parcels[-1].append(path)
        filled += size
    tars = []
    for number, paths in enumerate(parcels, start=1):
        tars.append(out / f"{folder.name}-{number}.tar")
        with tarfile.open(f"{tars[-1]}.part", "w") as tar:
            for path in paths:
                tar.add(path, path.relative_to(folder).as_posix())
    for path in tars:  # the earlier packed copy stays until the new one is complete
        Path(f"{path}.part").rename(path)
    return tars


def unpack(tars: Iterable[Path | str], folder: Path | str) -> None:
    """Unpack all tars of `pack` into one folder."""
    for path in tars:
        with tarfile.open(path) as tar:
            tar.extractall(folder, filter="data")
