"""Video quality by DOVER (arXiv 2211.04894): prepares its input views, and runs its own weights as TorchScript.

No package of the Python index holds DOVER (the one of that name numbers versions). So its network is taken as a
TorchScript file, made once in a checkout of VQAssessment/DOVER with its DOVER.pth: build the two backbones and heads as
its convert_to_onnx.py does, then

    torch.jit.trace(model, (torch.randn(1, 3, 32, 224, 224), torch.randn(3, 3, 32, 224, 224))).save("dover.pt")

It takes the aesthetic view [1, 3, 32, 224, 224] and the technical view [3, 3, 32, 224, 224] and gives the aesthetic and
the technical score. DOVER draws its places in a video at random; here they are the middle ones, so that a video has
one score.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from adaflow_core.errors import AdaFlowError

CLIP_FRAMES, CLIPS, INTERVAL = 32, 3, 2  # technical: clips of 32 frames, every other one
SIDE, CELLS = 224, 7  # the views' side, and their 7x7 fragments of 32 pixels
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet's, in 0..255
# Mean and standard deviation of each score over the training videos, and its weight (DOVER's fuse_results).
TECHNICAL, AESTHETIC = (0.1107, 0.07355, 0.6104), (-0.08285, 0.03774, 0.3896)
HINT = "see the head of benchmarks/longv/dover.py for how to make the file, and name it with --dover"


@lru_cache(maxsize=1)
def load_dover(path: str, device: torch.device) -> Any:
    if not Path(path).is_file():
        raise AdaFlowError(f"{path} does not exist; {HINT}")
    try:
        return torch.jit.load(path, map_location=device).eval()
    except RuntimeError as problem:
        raise AdaFlowError(f"{path} is no TorchScript file; {HINT}") from problem


def aesthetic_frames(count: int) -> np.ndarray:
    """Return [32] the middle frames of 32 equal stretches of a video of `count` frames."""
    return ((np.arange(CLIP_FRAMES) + 0.5) * count / CLIP_FRAMES).astype(int)


def technical_frames(count: int) -> np.ndarray:
    """Return [3, 32] every other frame in the middle of each third; a short video is repeated."""
    length = count // CLIPS
    spare = max(0, length - CLIP_FRAMES * INTERVAL) // 2
    starts = np.arange(CLIPS) * length + spare
    return (starts[:, None] + np.arange(CLIP_FRAMES) * INTERVAL) % count


def resize_frame(frame: np.ndarray) -> Tensor:
    """The whole frame [H, W, 3] uint8 at 224 by 224: [3, 224, 224] float, normalised."""
    pixels = rearrange(torch.from_numpy(frame).float(), "h w c -> 1 c h w")
    return _normalize(F.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)[0])


def sample_fragments(frame: np.ndarray) -> Tensor:
    """A 32-pixel piece at full sharpness from the middle of each cell of a 7x7 grid: [3, 224, 224], normalised."""
    piece = SIDE // CELLS
    pixels = rearrange(torch.from_numpy(frame).float(), "h w c -> 1 c h w")
    short = min(pixels.shape[2:])
    if short < SIDE:
        size = [round(side * SIDE / short) for side in pixels.shape[2:]]
        pixels = F.interpolate(pixels, size, mode="bilinear")
    corners = [
        [i * side // CELLS + max(0, side // CELLS - piece) // 2 for i in range(CELLS)] for side in pixels.shape[2:]
    ]
    rows = [torch.cat([pixels[0, :, y : y + piece, x : x + piece] for x in corners[1]], dim=2) for y in corners[0]]
    return _normalize(torch.cat(rows, dim=1))


def _normalize(pixels: Tensor) -> Tensor:
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def fuse(aesthetic: float, technical: float) -> float:
    """Combine the aesthetic and the technical score into one, 0..1."""
    total = 0.0
    for value, (mean, deviation, weight) in ((technical, TECHNICAL), (aesthetic, AESTHETIC)):
        total += weight * (value - mean) / deviation
    return float(1 / (1 + np.exp(-total)))


class VideoQuality:
    """Takes the frames of a video one after another and holds the 128 small views that the model looks at."""

    def __init__(self, model: Any, count: int, device: torch.device) -> None:
        self._model, self._device, self._number = model, device, 0
        self._places = {"aesthetic": aesthetic_frames(count), "technical": technical_frames(count)}
        self._views: dict[str, dict[int, Tensor]] = {"aesthetic": {}, "technical": {}}

    def update(self, frames: np.ndarray) -> None:
        """Take the next frames [F, H, W, 3] uint8."""
        for frame in frames:
            for name, view in (("aesthetic", resize_frame), ("technical", sample_fragments)):
                if self._number in self._places[name]:
                    self._views[name][self._number] = view(frame)
            self._number += 1

    @torch.inference_mode()
    def result(self) -> float:
        views = []
        for name, clips in (("aesthetic", 1), ("technical", CLIPS)):
            chosen = [self._views[name][int(number)] for number in self._places[name].flatten()]
            views.append(rearrange(torch.stack(chosen), "(k t) c h w -> k c t h w", k=clips).to(self._device))
        aesthetic, technical = (float(torch.as_tensor(score).mean()) for score in self._model(*views))
        return fuse(aesthetic, technical)
