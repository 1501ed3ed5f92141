"""The latents that an edit begins from, and those of the source in the same noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adaflow_core.config import EditConfig
from adaflow_core.editing.inversion import coarse_part
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.ddim import CLEAN
from adaflow_core.model.memory import BLOCK, to_device
from adaflow_core.storage.arrays import scratch
from adaflow_core.types import Inversion

LATENTS_ON_DEVICE = 2**30  # bytes of latents up to which they stay there: 16,000 frames of 384x672


def empty_latents(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Uninitialised float32: on the device, where no pass has to wait for them, or in a file if they are large."""
    if 4 * math.prod(shape) <= LATENTS_ON_DEVICE:
        return torch.empty(shape, device=device)
    return torch.from_numpy(scratch(np.float32, shape))


@dataclass(frozen=True)
class EditNoise:
    """The noise that an edit begins from: that of the inversion, mixed with fresh noise from the seed by `variation`.

    The source's latents are used in this noise as well. Propagated changes are differences from the source, and what is
    injected is the source's: in another noise than the edit's, the differences would contain noise, which lies
    elsewhere in each frame.
    """

    backbone: Backbone
    offset: Tensor | None  # [T, 4, h, w] float32, added to the inversion's noise; None: nothing is

    @classmethod
    def of(cls, backbone: Backbone, config: EditConfig, inversion: Inversion, clean: np.ndarray) -> EditNoise:
        """`clean`: the source's latents [T, 4, h, w]."""
        if not config.variation:
            return cls(backbone, None)
        return cls(backbone, _noise_offset(backbone, config, inversion, clean))

    def source(self, latents: np.ndarray, frame_ids: np.ndarray, timestep: int) -> Tensor:
        """The source's latents of the frames `frame_ids`: [F, 4, h, w] float32 on the device.

        `latents`: [T, 4, h, w], the source's at `timestep`, in the inversion's noise.
        """
        return self.put_into(to_device(latents[frame_ids], self.backbone.device).float(), frame_ids, timestep)

    def put_into(self, latents: Tensor, frame_ids: np.ndarray, timestep: int) -> Tensor:
        """`latents` [F, 4, h, w] at `timestep`, with this noise in place of the inversion's."""
        if self.offset is None or timestep == CLEAN:  # at CLEAN alpha is not quite one
            return latents
        offset = self.offset[to_device(frame_ids, self.offset.device)].to(latents.device)
        return latents + (1 - self.backbone.schedule.alpha(timestep)) ** 0.5 * offset

    def start(
        self,
        out: Tensor,  # [T, 4, h, w] float32
        inversion: Inversion,
        coarse: float,  # the share of the source's coarse light and colours that is kept
        place: Callable[[np.ndarray], Tensor | None],  # frame ids [F] -> where the edit takes place [F, h, w] 0..1
    ) -> None:
        """Writes the latents that an edit begins from."""
        for frame_ids in np.split(np.arange(len(out)), range(BLOCK, len(out), BLOCK)):
            found = self.source(inversion.latents[0], frame_ids, int(inversion.timesteps[0]))
            if coarse != 1:
                removed, inside = (1 - coarse) * coarse_part(found), place(frame_ids)
                found -= removed if inside is None else inside[:, None] * removed
            out[to_device(frame_ids, out.device)] = found.to(out.device)


def _noise_offset(backbone: Backbone, config: EditConfig, inversion: Inversion, clean: np.ndarray) -> Tensor:
    """Noise offset [T, 4, h, w]: added to the inversion's noise, it mixes in `variation` of fresh noise from the seed
    and keeps unit variance."""
    share, device, shape = config.variation, backbone.device, inversion.latents.shape[1:]
    alpha = backbone.schedule.alpha(int(inversion.timesteps[0]))
    # The same for every frame: it must not make frames differ.
    fresh = torch.randn(shape[1:], generator=torch.Generator().manual_seed(config.seed)).to(device)
    out = empty_latents(shape, device)
    for frame_ids in np.split(np.arange(len(out)), range(BLOCK, len(out), BLOCK)):
        noisy, source = (to_device(latents[frame_ids], device).float() for latents in (inversion.latents[0], clean))
        noise = (noisy - alpha**0.5 * source) / (1 - alpha) ** 0.5
        offset = (math.sqrt(1 - share**2) - 1) * noise + share * fresh
        out[to_device(frame_ids, out.device)] = offset.to(out.device)
    return out
