"""The source itself, shown where the edit leaves it alone.

An autoencoder loses detail: letters, faces, textures. Where the decoded edit is the decoded source, nothing was edited,
and the source's own pixels are what belongs there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from adaflow_core.editing.finish.changes import ramp, relative_change
from adaflow_core.editing.finish.film import EditedFilm, as_levels
from adaflow_core.editing.finish.outlines import hold_outlines
from adaflow_core.editing.finish.smoothing import reach, smooth_edit
from adaflow_core.model.memory import rows_to_device
from adaflow_core.storage.arrays import copied
from adaflow_core.team.team import Team
from adaflow_core.video.types import Video

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
PART_OF_LARGEST = 0.5  # what counts as the usual change of an edit that leaves most of a frame as it is


def restore_detail(
    edited: Tensor,  # [F, H, W, 3] uint8
    reconstruction: Tensor,  # [F, H, W, 3] uint8, the source through the autoencoder
    source: Tensor,  # [F, H, W, 3] uint8
    strength: float,
    renewed: Tensor | None = None,  # [F, 1, H, W] 0..1, where a thing takes another's place
) -> Tensor:
    """`edited` [F, H, W, 3] uint8 with the source in the places where it is the source's reconstruction.

    Not where `renewed` is 1: there it would show outlines of what is gone.
    """
    edit, rebuilt, frames = (rearrange(x.float(), "f h w c -> f c h w") for x in (edited, reconstruction, source))
    change = relative_change(edit - rebuilt)
    share = strength * (1 - ramp(-F.max_pool2d(-change, REACH, stride=1, padding=REACH // 2), SAME, OTHER))
    added, lost = ((frames - x).square().mean(dim=1, keepdim=True).sqrt() for x in (edit, rebuilt))
    share = share * (2 - added / (lost + SLIGHT)).clamp(0, 1)
    beside = ramp(F.max_pool2d(change, 2 * BESIDE + 1, stride=1, padding=BESIDE), *EDITED)
    share = share * (1 - beside * ramp(added, SLIGHT, 2 * SLIGHT))
    if renewed is not None:
        share = share * (1 - renewed)
    restored = torch.lerp(edit, frames, share).round().clamp(0, 255).to(torch.uint8)
    return rearrange(restored, "f c h w -> f h w c")


def significance(change: Tensor, tolerance: float) -> Tensor:
    """[F, 1, h, w] how much of a change [F, 4, h, w] of the predicted clean latents to believe.

    Nothing below `tolerance` times what is usual in the frame, all from three times that; a change is measured by its
    root mean square over 3x3 tokens. What an edit leaves alone moves a little at every step, and those movements add
    up. Usual is the median; where most of the frame stays as it is, a part of the largest change instead.
    """
    size = F.avg_pool2d(change.square().mean(dim=1, keepdim=True), 3, stride=1, padding=1, count_include_pad=False)
    size = size.sqrt()
    sizes = size.flatten(1)
    usual = torch.maximum(sizes.median(dim=1).values, PART_OF_LARGEST * sizes.quantile(0.98, dim=1))
    low = tolerance * usual.clamp(1e-6, 1.0)[:, None, None, None]
    return ((size - low) / (2 * low)).clamp(0, 1)


def show_source(film: EditedFilm, edited: Tensor) -> np.ndarray:
    """Edited latents [T, 4, h, w] as frames [T, H, W, 3] uint8: without flicker, and the source where it stays."""
    backbone, config, monitor, video = film.backbone, film.config, film.monitor, film.video
    T, device, team, own = len(video), backbone.device, backbone.team, film.own
    rebuilt = film.rebuilt if config.detail or config.smoothing else None
    where = film.renewed_at

    def finished(frames: Tensor, ids: np.ndarray) -> Tensor:
        source = rows_to_device(video.frames, ids, device)
        if rebuilt is not None and config.detail:
            same = rows_to_device(rebuilt, ids, device)
            frames = restore_detail(frames, same, source, config.detail, None if where is None else where(ids))
        return hold_outlines(frames, source, config.outlines, backbone.factor) if config.outlines else frames

    smoothed = bool(config.smoothing) and T > 1
    with monitor.stage("decode frames", own.stop - own.start) as stage:
        out = film.decoded(edited, stage.advance, None if smoothed else finished)
    if smoothed:
        assert config.smoothing
        around = reach(range(T)[own], T, config.smoothing)
        pictures = film.beside_source(_left_alone(out[around.start : around.stop], team), around.start)

        def write(ids: np.ndarray, smooth: Tensor) -> None:
            out[ids] = finished(as_levels(smooth), ids).cpu().numpy()

        smooth_edit(pictures, film.flow, config.smoothing, film.cuts, write, monitor, where, own)
        team.wait()
    return out


def _left_alone(frames: np.ndarray, team: Team) -> np.ndarray:
    """Frames that this process still needs, and no other may overwrite."""
    if team.size == 1:
        return frames
    frames = copied(frames)
    team.wait()
    return frames


def latent_preview(latents: np.ndarray, video: Video, samples: int = 4) -> Callable[[Tensor], np.ndarray]:
    """A cheap picture of latents [K, 4, h, w] -> [K, h, w, 3] uint8: a linear map fitted on this video."""
    chosen = np.unique(np.linspace(0, len(video) - 1, samples).round().astype(np.int64))
    sample = torch.from_numpy(latents[chosen]).float()  # [F, 4, h, w]
    pixels = torch.from_numpy(video.frames[chosen]).float().permute(0, 3, 1, 2)
    colours = F.adaptive_avg_pool2d(pixels, (sample.shape[-2], sample.shape[-1])).permute(0, 2, 3, 1).reshape(-1, 3)

    def design(x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        return torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)

    mapping = torch.linalg.lstsq(design(sample), colours).solution  # [5, 3]

    def picture(x: Tensor) -> np.ndarray:
        flat = (design(x.float()) @ mapping.to(x.device)).clamp(0, 255).to(torch.uint8)
        return flat.reshape(len(x), *x.shape[-2:], 3).cpu().numpy()

    return picture
