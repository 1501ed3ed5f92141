"""Shows the source's own pixels where the edit leaves it unchanged.

An autoencoder loses detail: letters, faces, textures. Where the decoded edit equals the decoded source, nothing was
edited, and the source's own pixels are shown.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from adaflow_core.editing.finish.changes import ramp, relative_change
from adaflow_core.motion.pictures import as_levels, as_pictures

# Changes of the colours, as parts of the frame's largest, up to which the source is shown and from which the edit is.
# Chosen on the plain model's validation clips and the bundled ones.
SAME, OTHER = 0.02, 0.3
# Nor is it shown where that would change a colour by more than what the autoencoder lost there and this many levels of
# 0..255: beside what is edited such colours are outlines of what is gone, and mixtures with ground that is. Right
# beside it, where the autoencoder loses thin outlines too, not where it would change a colour by more than that.
SLIGHT = 10.0
BESIDE = 1  # pixels
EDITED = 0.2, 0.4  # parts of the largest change from which on a place counts as edited, a little and wholly
REACH = 3  # pixels: a place is as unchanged as the least changed within; an edge belongs to the side that stays


def restore_detail(
    edited: Tensor,  # [F, H, W, 3] uint8
    reconstruction: Tensor,  # [F, H, W, 3] uint8, the source through the autoencoder
    source: Tensor,  # [F, H, W, 3] uint8
    strength: float,
    renewed: Tensor | None = None,  # [F, 1, H, W] 0..1, where a thing takes another's place
) -> Tensor:
    """`edited` [F, H, W, 3] uint8 with the source shown where `edited` equals the source's reconstruction.

    `strength`: 0..1. Where `renewed` is 1 the source is not shown: outlines of the old thing would appear.
    """
    edit, rebuilt, frames = (as_pictures(x) for x in (edited, reconstruction, source))
    change = relative_change(edit - rebuilt)
    share = strength * (1 - ramp(-F.max_pool2d(-change, REACH, stride=1, padding=REACH // 2), SAME, OTHER))
    added, lost = ((frames - x).square().mean(dim=1, keepdim=True).sqrt() for x in (edit, rebuilt))
    share = share * (2 - added / (lost + SLIGHT)).clamp(0, 1)
    beside = ramp(F.max_pool2d(change, 2 * BESIDE + 1, stride=1, padding=BESIDE), *EDITED)
    share = share * (1 - beside * ramp(added, SLIGHT, 2 * SLIGHT))
    if renewed is not None:
        share = share * (1 - renewed)
    return as_levels(torch.lerp(edit, frames, share))
