"""Makes an edit's final frames: decodes them, smooths flicker, restores the source where it stays, holds outlines."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from adaflow_core.editing.finish.film import EditedFilm
from adaflow_core.editing.finish.outlines import hold_outlines
from adaflow_core.editing.finish.preservation import restore_detail
from adaflow_core.editing.finish.smoothing import reach, smooth_edit
from adaflow_core.model.memory import Sent, rows_to_device, writing
from adaflow_core.motion.pictures import as_levels
from adaflow_core.storage.arrays import copied
from adaflow_core.team.team import Team


def finished_frames(film: EditedFilm, edited: Tensor) -> np.ndarray:
    """The final frames [T, H, W, 3] uint8 of edited latents [T, 4, h, w], by the settings of the film."""
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
        around = reach(range(T)[own], T, config.smoothing)
        pictures = film.beside_source(_left_alone(out[around.start : around.stop], team), around.start)

        with writing(out) as put:

            def write(ids: np.ndarray, smooth: Tensor) -> None:
                put(ids, Sent(finished(as_levels(smooth), ids)))

            smooth_edit(pictures, film.flow, config.smoothing, film.cuts, write, monitor, where, own)
        team.wait()
    return out


def _left_alone(frames: np.ndarray, team: Team) -> np.ndarray:
    """The frames, or, if several processes write into them, a copy made before any does."""
    if team.size == 1:
        return frames
    frames = copied(frames)
    team.wait()
    return frames
