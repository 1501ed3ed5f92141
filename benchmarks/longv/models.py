"""The models behind LongV-EVAL's scores, from a folder or from what the Hub's own command has downloaded.

Nothing is downloaded while scoring, as each worker would do it again. Where weights are missing, AdaFlowError names
them and the command that gets them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adaflow_core.errors import AdaFlowError

CLIP = "openai/clip-vit-large-patch14"  # the one that LAION's aesthetic heads were trained on
DINO = "facebook/dinov2-base"
WEIGHTS = "model.safetensors"


def is_available(name: str) -> bool:
    """Whether a model, a folder or a Hub id, can be loaded without a download."""
    if Path(name).is_dir():
        return (Path(name) / WEIGHTS).is_file()
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, WEIGHTS), str)


def remedy(name: str) -> str:
    return f"run: hf download {name}, or give a folder that holds it"


@lru_cache(maxsize=4)  # a worker scores one edit after another
def _loaded(name: str, device: torch.device) -> tuple[Any, Any]:
    """Model and image processor. Safetensors only, no code of the checkpoint's."""
    from transformers import AutoImageProcessor, AutoModel

    try:
        model = AutoModel.from_pretrained(name, local_files_only=True, use_safetensors=True)
        processor = AutoImageProcessor.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as problem:
        raise AdaFlowError(f"{name} is not on this machine; {remedy(name)}") from problem
    return model.to(device).eval().requires_grad_(False), processor


def _pixels(processor: Any, frames: np.ndarray, device: torch.device) -> Tensor:
    """[F, H, W, 3] uint8 -> [F, 3, h, w], scaled, cropped and normalised as the model was trained."""
    values: Tensor = processor(images=list(frames), return_tensors="pt")["pixel_values"]
    return values.to(device)


@dataclass(frozen=True)
class Clip:
    """CLIP (arXiv 2103.00020): pictures and sentences in one space."""

    name: str
    device: torch.device

    @torch.inference_mode()
    def images(self, frames: np.ndarray) -> Tensor:
        """[F, H, W, 3] uint8 -> [F, d] unit rows."""
        model, processor = _loaded(self.name, self.device)
        rows = model.get_image_features(pixel_values=_pixels(processor, frames, self.device)).pooler_output
        return F.normalize(rows.float(), dim=-1).cpu()

    @torch.inference_mode()
    def text(self, prompt: str) -> Tensor:
        """[d] of unit length; a prompt that is too long is cut, as CLIP does."""
        from transformers import AutoTokenizer

        model, _ = _loaded(self.name, self.device)
        tokens = AutoTokenizer.from_pretrained(self.name, local_files_only=True)(
            prompt, truncation=True, max_length=model.config.text_config.max_position_embeddings, return_tensors="pt"
        )
        ids, mask = tokens["input_ids"].to(self.device), tokens["attention_mask"].to(self.device)
        row = model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output[0]
        return F.normalize(row.float(), dim=-1).cpu()


@dataclass(frozen=True)
class Dino:
    """DINO or DINOv2 (arXiv 2104.14294, 2304.07193): the class token of the last layer describes a picture."""

    name: str
    device: torch.device

    @torch.inference_mode()
    def images(self, frames: np.ndarray) -> Tensor:
        """[F, H, W, 3] uint8 -> [F, d] unit rows."""
        model, processor = _loaded(self.name, self.device)
        rows = model(pixel_values=_pixels(processor, frames, self.device)).last_hidden_state[:, 0]
        return F.normalize(rows.float(), dim=-1).cpu()


HEAD_HINT = (
    "get sa_0_4_vit_l_14_linear.pth from LAION-AI/aesthetic-predictor (or sac+logos+ava1-l14-linearMSE.pth from "
    "christophschuhmann/improved-aesthetic-predictor) and name it with --aesthetic"
)


@lru_cache(maxsize=2)
def load_aesthetic(path: str) -> tuple[Tensor, Tensor]:
    """LAION's head as one linear map of CLIP's unit rows: weight [d], bias [].

    The first predictor is a single layer. The improved one has several with nothing but dropout between them, so they
    are multiplied out.
    """
    if not Path(path).is_file():
        raise AdaFlowError(f"{path} does not exist; {HEAD_HINT}")
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        stems = sorted((name.removesuffix("weight") for name in state if name.endswith("weight")), key=_number)
        weight, bias = state[f"{stems[0]}weight"].double(), state[f"{stems[0]}bias"].double()
        for stem in stems[1:]:
            following = state[f"{stem}weight"].double()
            weight, bias = following @ weight, following @ bias + state[f"{stem}bias"].double()
        return weight[0].float(), bias[0].float()
    except (LookupError, RuntimeError, OSError, EOFError, UnpicklingError, AttributeError, TypeError) as problem:
        raise AdaFlowError(f"{path} is no aesthetic head; {HEAD_HINT}") from problem


def _number(stem: str) -> int:
    """Return the number of a layer that is named like "layers.4."; a layer without one is the only layer."""
    digits = "".join(c for c in stem if c.isdigit())
    return int(digits) if digits else 0
