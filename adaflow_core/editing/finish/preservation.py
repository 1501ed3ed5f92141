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

# The source is shown if the change, as a part of the frame's largest, is up to SAME, and the edit if it is OTHER or
# more; both are mixed between. Chosen on the plain model's validation clips and the bundled ones.
SAME, OTHER = 0.02, 0.3
# The source is not shown, either, where it would change the edit's colour by more than the autoencoder's loss there and
# this many levels of 0..255: beside edited places such colours are outlines of things that are gone, or mixtures with
# their background. Directly beside edited places the autoencoder's loss is not allowed for, since it loses thin
# outlines too: there the change must be below this many levels alone.
SLIGHT = 10.0
BESIDE = 1  # pixels from an edited place that count as directly beside it
EDITED = 0.2, 0.4  # parts of the largest change from which on a place counts as edited, a little and fully
REACH = 3  # pixels, the window in which the least change counts for its middle: an edge belongs to the unchanged side


def restore_detail(
    edited: Tensor,  # [F, H, W, 3] uint8
    reconstruction: Tensor,  # [F, H, W, 3] uint8, the source through the autoencoder
    source: Tensor,  # [F, H, W, 3] uint8
    strength: float,
    renewed: Tensor | None = None,  # [F, 1, H, W] 0..1, where a thing takes another's place
) -> Tensor:
    """Return `edited` [F, H, W, 3] uint8 with the source shown where `edited` equals the source's reconstruction.

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
