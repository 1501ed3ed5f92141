"""DDIM inversion of frames under the source prompt (arXiv 2010.02502), and the coarse part of its noise."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adaflow_core.model.attention import PassState, frame_attention
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.ddim import ddim_step, edit_timesteps, inversion_moves
from adaflow_core.model.memory import in_passes, to_device
from adaflow_core.progress import Monitor
from adaflow_core.storage.arrays import begin_columns, end_columns, open_columns, taken
from adaflow_core.types import Inversion

_LATENTS = "latents.npy"
COARSE = 9  # pixels of latents, each way, whose mean counts as their coarse part


@torch.inference_mode()
def invert(
    backbone: Backbone,
    latents: np.ndarray,  # [T, 4, h, w] clean
    source_prompt: str,
    frame_ids: np.ndarray | None = None,  # [F] ascending, the frames that are needed; None: all
    *,
    steps: int,
    inversion_steps: int,
    rows: int,  # frames of a pass, at most
    folder: Path,
    monitor: Monitor,
) -> int:
    """Writes x_t at each of the edit's `steps` timesteps, [S, T, 4, h, w], to `folder`, for `load_inversion`.

    Returns the number of frames that were inverted. Frames that an earlier call finished in this folder are not
    inverted again. x_t is computed in float32 and stored in the model's precision. On a CPU a frame has the same bits
    whichever others are inverted with it.
    """
    timesteps = edit_timesteps(backbone.schedule, steps)
    factor = inversion_steps // steps
    moves = inversion_moves(backbone.schedule, timesteps, factor)
    prompt_embeds = backbone.embed(source_prompt).prompt_embeds
    stored_as = torch.float32 if backbone.dtype == torch.float32 else torch.float16
    frame_ids = np.arange(len(latents)) if frame_ids is None else frame_ids
    team, kept_as = backbone.team, np.float32 if stored_as == torch.float32 else np.float16
    missing = team.lead(partial(begin_columns, folder / _LATENTS, kept_as, (steps, *latents.shape), frame_ids))
    stored, done = open_columns(folder / _LATENTS)
    part, rows = backbone.share(len(missing), rows)
    own = missing[part]
    state = PassState(attend=backbone.attend, check=monitor.check, prompts=1)
    with (
        frame_attention(backbone.unet, state),
        monitor.stage("invert", (len(frame_ids) - len(missing) + len(own)) * len(moves)) as stage,
    ):
        stage.skip((len(frame_ids) - len(missing)) * len(moves))

        def run(ids: np.ndarray, count: int) -> None:
            x = to_device(latents[ids], backbone.device).float()
            kept = []
            with stage.again_if_it_fails():
                for i, (origin, target) in enumerate(moves):
                    # The model gets the timestep that x moves to, as the sampler will give it on the way back.
                    output = backbone.predict(x, target, prompt_embeds)
                    x = ddim_step(backbone.schedule, x, output, origin, target)
                    if i % factor == 0:
                        kept.append(x[:count].to(stored_as))
                    stage.advance(count)
                # Fetched together: each fetching waits for the device, and the device then for the next pass.
                stored[::-1, ids[:count]] = backbone.fetch(torch.stack(kept))
            done[ids[:count]] = True

        in_passes(own, rows, run)
    team.wait()
    team.lead(partial(end_columns, folder / _LATENTS))
    return len(missing)


def load_inversion(
    folder: Path, backbone: Backbone, steps: int, prompt: str, frame_ids: np.ndarray | None = None
) -> Inversion:
    """The inversion in `folder`: a memory map of all frames, or a copy of the frames `frame_ids` [F]."""
    latents = np.load(folder / _LATENTS, mmap_mode="r")
    if frame_ids is not None:
        latents = taken(latents, frame_ids, axis=1)
    return Inversion(edit_timesteps(backbone.schedule, steps), latents, prompt)


def coarse_part(latents: Tensor) -> Tensor:
    """The coarse part of latents [F, 4, h, w]: the mean of 9x9 pixels around each.

    It is close to zero in pure noise. But at the last timestep of Stable Diffusion's schedule some of the picture is
    left (arXiv 2305.08891), and it is in this part: from an inversion's noise the model still draws the source's light
    and colours.
    """
    around = F.pad(latents, (COARSE // 2,) * 4, mode="replicate")
    return F.avg_pool2d(around, COARSE, stride=1)
