"""Fine detail of the source, given back where the edit leaves it alone.

An autoencoder loses detail: letters, faces, textures. What it loses of the source is known exactly, the source less
its own reconstruction, and belongs wherever the edited picture is that reconstruction.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

# Changes of the colours, as parts of the frame's largest, up to which all and from which none of the detail comes
# back. Chosen on the drawn world's validation scenes: further up, background edits gain and changes of style lose.
SAME, OTHER = 0.05, 0.3
LARGEST = 0.98  # the quantile that stands for the largest change
FAINTEST = 20.0  # levels of 0..255: a largest change under this is taken for this


def restore_detail(
    edited: np.ndarray,  # [F, H, W, 3] uint8
    reconstruction: np.ndarray,  # [F, H, W, 3] uint8, the source through the autoencoder
    source: np.ndarray,  # [F, H, W, 3] uint8
    strength: float,
    device: torch.device,
) -> np.ndarray:
    """`edited` [F, H, W, 3] uint8 with the detail that the source has and its reconstruction lacks."""
    edit, rebuilt, frames = (
        rearrange(torch.from_numpy(np.array(x)).to(device).float(), "f h w c -> f c h w")
        for x in (edited, reconstruction, source)
    )
    share = strength * unchanged(edit - rebuilt)
    restored = (edit + share * (frames - rebuilt)).round().clamp(0, 255).to(torch.uint8)
    return rearrange(restored, "f c h w -> f h w c").cpu().numpy()


def unchanged(change: Tensor) -> Tensor:
    """[F, 1, H, W] 0..1, how far a picture is the same, from its change [F, 3, H, W] on a scale of 0..255."""
    size = change.square().mean(dim=1, keepdim=True).sqrt()
    for _ in range(2):  # two boxes are nearly a Gaussian of 2 pixels
        size = F.avg_pool2d(F.pad(size, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    largest = torch.stack([_quantile(frame, LARGEST) for frame in size]).clamp(min=FAINTEST)[:, None, None, None]
    return 1 - ((size / largest - SAME) / (OTHER - SAME)).clamp(0, 1)


def _quantile(values: Tensor, share: float) -> Tensor:
    flat = values.flatten()  # torch.quantile refuses frames above 2**24 pixels
    return flat.kthvalue(max(1, round(share * flat.numel()))).values
