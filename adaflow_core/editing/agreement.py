"""Frames brought to agree while they are denoised.

A prompt leaves much open, and each frame fills it in differently: a sun in one, another hill in the next. Smoothed only
in the finished frames, such things would show twice. So a few times between steps, the pictures that the frames are
heading for are filtered along the source's motion, and the change is added to their latents: where a thing now stands
twice or is blurred, the remaining steps draw it once. The filter follows the source's motion wherever the source fits
along it, whatever the frames drew there. A new thing in the place of another moves as one with it, and is filtered only
while it takes shape: later its detail would be blurred.

As in Rerender A Video (arXiv 2306.07954), which fuses pixels across frames while it denoises; here all frames at once,
both ways in time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from adaflow_core.editing.finish.film import EditedFilm
from adaflow_core.editing.finish.smoothing import smooth_edit
from adaflow_core.model.memory import Sent, rows_to_device, writing
from adaflow_core.motion.pictures import as_levels
from adaflow_core.motion.whole import move_as_one
from adaflow_core.storage.arrays import scratch

STRENGTH = 0.95  # the part that the filter takes from its past
FITS = 24.0  # levels of 0..255 by which the source may differ along its motion
TAKES_SHAPE = 0.5  # the share of the steps, from the first, after which a new thing is filtered no more


def agreeing_steps(times: int, steps: int) -> list[int]:
    """The numbers of steps after which frames are brought to agree: evenly spread, not after the last step."""
    return sorted({round(k * steps / (times + 1)) for k in range(1, times + 1)} & set(range(1, steps)))


def shaping_steps(times: int, steps: int) -> list[int]:
    """The same for a new thing: half as often, within the steps in which it takes shape, the last of these included."""
    last, times = math.ceil(TAKES_SHAPE * steps), math.ceil(TAKES_SHAPE * times)
    return sorted({round(k * last / times) for k in range(1, times + 1)} & set(range(1, steps)))


@dataclass(frozen=True)
class Agreement:
    """Brings the frames of a film to agree."""

    film: EditedFilm

    def due(self, steps: int) -> list[int]:
        """The numbers of steps after which `correction` is to be applied."""
        film, times = self.film, self.film.config.agreements
        if len(film.video) == 1:
            return []
        return agreeing_steps(times, steps) if film.renewed is None else shaping_steps(times, steps)

    def prepare(self) -> None:
        """Computes what every call of `correction` needs, as stages of the monitor."""
        _ = self.film.rebuilt, self._as_one

    def correction(self, clean: Tensor, advance: Callable[[int], None]) -> Tensor:
        """A correction [F, 4, h, w] that makes this process's part of the predicted clean latents [T, 4, h, w] agree.

        `advance` is called with the number of frames that are done since the last call.
        """
        film = self.film
        drawn = film.decoded(clean, lambda _: film.monitor.check())
        agreed = scratch(np.uint8, drawn.shape)

        with writing(agreed) as put:
            smooth_edit(
                film.beside_source(drawn), self._as_one, STRENGTH, film.cuts,
                lambda ids, pictures: put(ids, Sent(as_levels(pictures))),
                film.monitor.quiet(), film.renewed_at, film.own, FITS,
            )  # fmt: skip
        return self._difference(agreed, drawn, advance)

    @cached_property
    def _as_one(self) -> np.ndarray:
        """Source flow, with a single motion (one shift and scale) over the region where an object is replaced."""
        film = self.film
        if film.renewed is None:
            return film.flow
        team = film.backbone.team
        out = team.scratch(film.flow.dtype, film.flow.shape)
        move_as_one(out, film.flow, film.renewed, film.backbone.device, team.own(len(out)))
        team.wait()
        return out

    def _difference(self, pictures: np.ndarray, others: np.ndarray, advance: Callable[[int], None]) -> Tensor:
        """The difference [F, 4, h, w] between the latents of `pictures` and of `others`, for this process's part.

        Both are encoded, so that the autoencoder's own loss is not part of the difference.
        """
        backbone, found = self.film.backbone, []

        def encode(ids: np.ndarray, count: int) -> None:
            now, before = (backbone.encode_there(rows_to_device(x, ids, backbone.device)) for x in (pictures, others))
            found.append((now - before)[:count])
            advance(count)

        self.film.in_passes(encode)
        if not found:  # more processes than frames
            return torch.zeros(0, *self.film.latents.shape[1:], device=backbone.device)
        return torch.cat(found)
