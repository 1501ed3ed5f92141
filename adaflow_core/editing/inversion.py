"""DDIM inversion of every frame under the source prompt (arXiv 2010.02502)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from adaflow_core.model.attention import PassState, frame_attention
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.ddim import ddim_step, edit_timesteps, inversion_moves
from adaflow_core.model.memory import in_chunks, to_device
from adaflow_core.progress import Monitor
from adaflow_core.storage.arrays import allocated
from adaflow_core.types import Inversion

_LATENTS = "latents.npy"
_DONE = "done.txt"  # how many frames are finished, while some are not


@torch.inference_mode()
def invert(
    backbone: Backbone,
    latents: np.ndarray,  # [T, 4, h, w] clean
    source_prompt: str,
    *,
    steps: int,
    inversion_steps: int,
    chunk: int,
    folder: Path,
    monitor: Monitor,
) -> None:
    """Writes x_t at each of the edit's `steps` timesteps, [S, T, 4, h, w], to `folder`, for `load_inversion`.

    The running x_t stays in float32; what is stored has the model's precision. Frames that an earlier call finished
    in this folder are not done again.
    """
    timesteps = edit_timesteps(backbone.schedule, steps)
    factor = inversion_steps // steps
    moves = inversion_moves(backbone.schedule, timesteps, factor)
    states = backbone.embed(source_prompt).states
    T = len(latents)
    stored_as, dtype = (torch.float32, np.float32) if backbone.dtype == torch.float32 else (torch.float16, np.float16)
    path, progress = folder / _LATENTS, folder / _DONE
    done = int(progress.read_text(encoding="ascii")) if progress.is_file() else 0
    stored = np.load(path, mmap_mode="r+") if done else allocated(path, dtype, (steps, *latents.shape))
    state = PassState(attend=backbone.attend, check=monitor.check, prompts=1)
    with (
        frame_attention(backbone.unet, state),
        monitor.stage("invert", T * len(moves)) as stage,
    ):
        stage.skip(done * len(moves))

        def run(chosen: slice) -> None:
            part = slice(done + chosen.start, done + chosen.stop)
            x = to_device(latents[part], backbone.device).float()
            kept = []
            for i, (origin, target) in enumerate(moves):
                # The model is told the timestep it moves to, as the sampler will be when it comes back.
                x = ddim_step(backbone.schedule, x, backbone.predict(x, target, states), origin, target)
                if i % factor == 0:
                    kept.append(x.to(stored_as))
                stage.advance(part.stop - part.start)
            # Fetched together: each fetching waits for the device, and the device then for the next pass.
            stored[::-1, part] = backbone.fetch(torch.stack(kept))
            trial = progress.with_suffix(".part")
            trial.write_text(str(part.stop), encoding="ascii")
            trial.replace(progress)

        in_chunks(T - done, min(T, chunk * backbone.single_rows), run)
    stored.flush()
    progress.unlink()


def load_inversion(folder: Path, backbone: Backbone, steps: int, prompt: str) -> Inversion:
    return Inversion(edit_timesteps(backbone.schedule, steps), np.load(folder / _LATENTS, mmap_mode="r"), prompt)
