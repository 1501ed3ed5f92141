"""Small pictures of latents while they are denoised."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adaflow_core.model.memory import to_device
from adaflow_core.video.types import Video


def latent_preview(latents: np.ndarray, video: Video, samples: int = 4) -> Callable[[Tensor], Tensor]:
    """Return a function that makes small pictures [K, h, w, 3] uint8 of latents [K, 4, h, w], on their device.

    It is a linear map from latents to colours, fitted on `samples` frames of this video: cheaper than decoding.
    """
    chosen = np.unique(np.linspace(0, len(video) - 1, samples).round().astype(np.int64))
    sample = torch.from_numpy(latents[chosen]).float()  # [F, 4, h, w]
    pixels = torch.from_numpy(video.frames[chosen]).float().permute(0, 3, 1, 2)
    colours = F.adaptive_avg_pool2d(pixels, (sample.shape[-2], sample.shape[-1])).permute(0, 2, 3, 1).reshape(-1, 3)

    def design(x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        return torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)

    mapping = torch.linalg.lstsq(design(sample), colours).solution.numpy()  # [5, 3]

    def picture(x: Tensor) -> Tensor:
        flat = (design(x.float()) @ to_device(mapping, x.device)).clamp(0, 255).to(torch.uint8)
        return flat.reshape(len(x), *x.shape[-2:], 3)

    return picture
