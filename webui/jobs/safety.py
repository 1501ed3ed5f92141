"""The safety checker of a Stable Diffusion checkpoint, for pages that strangers use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from adaflow_core.errors import AdaFlowError, first_line
from adaflow_core.model.files.check import weight_files
from adaflow_core.model.files.parts import ModelParts
from adaflow_core.model.files.weights import check_finite, check_names, read_header
from adaflow_core.model.hub.client import hub_folder
from adaflow_core.model.hub.files import SAFETY, parts_of
from adaflow_core.model.loading import fitting, local_folder, pick_device, quiet
from adaflow_core.progress import Monitor

_CHUNK = 16  # frames per forward pass


@dataclass(frozen=True)
class SafetyChecker:
    """Compares CLIP's embedding of a frame with the concepts that the checkpoint's authors chose to block."""

    model: Any  # diffusers' StableDiffusionSafetyChecker
    processor: Any  # transformers.CLIPImageProcessor

    @torch.inference_mode()
    def unsafe(self, frames: np.ndarray, monitor: Monitor) -> np.ndarray:
        """[T, H, W, 3] uint8 -> [T] bool: which frames must not be shown. `Stopped` if the monitor is stopped."""
        unsafe = np.zeros(len(frames), dtype=bool)
        fits = fitting(self.model.device, "the safety checker's pass over the frames")
        with monitor.stage("check", len(frames)) as stage, quiet(), fits:
            for part in stage.chunks(len(frames), _CHUNK):
                pictures = list(np.asarray(frames[part]))
                pixels = self.processor(images=pictures, return_tensors="pt").pixel_values
                pixels = pixels.to(self.model.device, self.model.dtype)  # [B, 3, 224, 224]
                # The model blackens the `images` it is given, so it gets dummies instead of the frames.
                unsafe[part] = self.model(clip_input=pixels, images=[np.zeros(1)] * len(pictures))[1]
        return unsafe


def load_safety_checker(model: str, device: str = "auto", monitor: Monitor | None = None) -> SafetyChecker | None:
    """The safety checker of a checkpoint (named as for `load_backbone`), or None if it has none.

    AdaFlowError if the checkpoint names one that cannot be loaded: its frames must not be shown unchecked.
    """
    model = ModelParts.parse(model).model
    folder = local_folder(model) or hub_folder(model, parts=SAFETY, monitor=monitor)
    if folder.is_file():  # a file of weights alone, without a safety checker
        return None
    try:
        with quiet():
            if "safety_checker" not in parts_of(folder, SAFETY):
                return None
            checker, processor = _read(folder, model)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError, AdaFlowError) as problem:
        raise AdaFlowError(
            f"the safety checker of {model!r} cannot be loaded ({first_line(problem)}); complete the checkpoint "
            "(safetensors), or run this page for yourself only, without --public"
        ) from problem
    target = pick_device(device)
    with fitting(target, f"the safety checker of {model!r}"):
        return SafetyChecker(checker.to(target).eval().requires_grad_(False), processor)


def _read(folder: Path, model: str) -> tuple[Any, Any]:
    """Load the checker and its image processor; AdaFlowError if weights are missing or not finite.

    The library would fill in missing weights itself, and the checker would then block nothing.
    """
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessor

    inside = folder / "safety_checker"
    variant, files = weight_files(inside, "safety_checker", model, half=False)
    for file in files:
        read_header(file)
    checker, found = StableDiffusionSafetyChecker.from_pretrained(
        str(inside),
        dtype=torch.float32,
        variant=variant,
        use_safetensors=True,
        output_loading_info=True,
        local_files_only=True,
    )
    # Unexpected tensors in the file do no harm, so only missing ones are checked.
    check_names("safety checker", f"model {model!r}", found["missing_keys"], ())
    check_finite(checker, "safety checker", f"model {model!r}")
    return checker, CLIPImageProcessor.from_pretrained(str(folder / "feature_extractor"), local_files_only=True)
