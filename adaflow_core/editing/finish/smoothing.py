"""Smooths flicker: filters the decoded edit in time along the source's motion.

A recursive filter runs over the frames forwards and backwards. It starts again where the source's flow cannot be
trusted: at a cut, at the edges of moving things (fading within two pixels) and where something comes into sight. It
carries two things from frame to frame: the edit's change of the decoded source, which keeps the unedited parts as they
are, and the picture itself, since the change of a thing that is gone holds its outline, which never lies quite right.
The one that comes nearer to the next frame gets the larger weight. If neither comes near, the edited thing moves
differently from the source or was drawn elsewhere in each frame; then nothing is carried, or it would show several
times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from adaflow_core.model.memory import rows_to_device, to_device
from adaflow_core.motion.carrying import RENEWED, miss, picture_share
from adaflow_core.motion.flow import full_size, look_up, pixel_grid, places, trusted, without_lines
from adaflow_core.progress import Monitor
from adaflow_core.storage.arrays import scratch

BLOCK = 8  # frames whose changes and flow are on the device at a time
KEPT_ON_DEVICE = 2**29  # bytes of what the first pass changes: 340 frames of 384x672
FORGOTTEN = 1e-3  # the part of the past that counts as nothing
# In levels of 0..255, chosen on the plain model's validation clips and the bundled ones: where what is carried misses
# the frame by this much, a third of it is taken, by half of it 94 %, by twice nothing; in a place that is renewed it is
# taken less readily.
MISSED, MISSED_RENEWED = 64.0, 40.0


def smooth_edit(
    pictures: Callable[[np.ndarray], tuple[Tensor, Tensor]],  # frames [F] -> decoded edit, source [F, 3, H, W] float32
    flow: np.ndarray,  # [T - 1, 2, H / 2, W / 2, 2]
    strength: float,  # 0..1, the part that the filter takes from its past
    cuts: np.ndarray,  # frames that begin a new shot
    write: Callable[[np.ndarray, Tensor], None],  # takes frames [F] and their smoothed pictures [F, 3, H, W]
    monitor: Monitor,
    renewed: Callable[[np.ndarray], Tensor] | None = None,  # frames -> where a thing takes another's [F, 1, H, W] 0..1
    part: slice = slice(None),  # the frames to smooth
    fits: float | None = None,  # of pictures that are not finished yet: see `_Past`
) -> None:
    """Filters the frames `part` of T; the frames around it are taken into account as far as the filter remembers.

    Pictures are on a scale of 0..255 and on the device. Memory does not grow with T: intermediate results of a long
    film lie in a file. `pictures` is called twice for each frame, both times before the frame is written.
    """
    own = range(*part.indices(len(flow) + 1))
    around = reach(own, len(flow) + 1, strength)
    borders = {int(cut) for cut in cuts}
    upwards, downwards = range(around.start, own.stop), range(own.start, around.stop)[::-1]
    forward = _Kept(len(upwards))  # what the filter changes on its way through time

    def filtered(frames: np.ndarray, step: int, state: _State | None) -> tuple[Tensor, Tensor, _State]:
        """`frames`, which follow each other by -step, as they are and as filtered from `state` on."""
        now, source = pictures(frames)
        where, trust = _before(flow, frames, step, now)
        place = None if renewed is None else renewed(frames) >= RENEWED
        past, share = _Past(now, source, state, where, place, fits), strength * trust
        found = []
        for i, t in enumerate(frames.tolist()):
            if state is None or (t if step < 0 else t + 1) in borders:
                found.append(now[i])
            else:
                carried, taken = past.carried(i, state.picture)
                found.append(torch.lerp(now[i], carried, share[i] * taken))
            state = _State(found[-1], source[i])
        assert state is not None
        return now, torch.stack(found), state

    with monitor.stage("smooth", len(upwards) + len(downwards)) as stage:
        state = None
        for frames in _blocks(upwards):
            now, found, state = filtered(frames, -1, state)
            forward.put(frames - around.start, found - now)
            stage.advance(len(frames))

        state = None
        for frames in _blocks(downwards):
            now, found, state = filtered(frames, 1, state)
            stage.advance(len(frames))
            later = int((frames >= own.stop).sum())
            frames, now, found = frames[later:], now[later:], found[later:]
            if len(frames):
                changed = forward.get(frames - around.start, now.device)
                write(frames, (changed + found + strength * now) / (1 + strength))


def _before(flow: np.ndarray, frames: np.ndarray, step: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Where in the frame before each of `frames` [F], which follow each other by -`step`, lies what is seen in it, as
    `look_up` takes it [F, H, W, 2], and how far that can be trusted [F, 1, H, W]."""
    grid = pixel_grid(like.shape[-2], like.shape[-1], like.device)
    pairs = rows_to_device(flow, np.clip(np.minimum(frames, frames + step), 0, len(flow) - 1), like.device)
    there, back = (full_size(way, like) for way in (pairs[:, 0], pairs[:, 1])[::step])
    return places(there, grid), without_lines(trusted(there, back, grid))


class _Kept:
    """Pictures in half precision between the two ways through time: on a GPU that has room for them, or in a file."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._there: Tensor | np.ndarray | None = None

    def put(self, rows: np.ndarray, pictures: Tensor) -> None:
        if self._there is None:
            shape, device = (self.count, *pictures.shape[1:]), pictures.device
            on_device = device.type == "cuda" and 2 * math.prod(shape) <= KEPT_ON_DEVICE
            self._there = (
                torch.empty(shape, device=device, dtype=torch.float16) if on_device else scratch(np.float16, shape)
            )
        if isinstance(self._there, Tensor):
            self._there[to_device(rows, pictures.device)] = pictures.half()
        else:
            self._there[rows] = pictures.half().cpu().numpy()

    def get(self, rows: np.ndarray, device: torch.device) -> Tensor:
        assert self._there is not None
        if isinstance(self._there, Tensor):
            return self._there[to_device(rows, device)].float()
        return rows_to_device(self._there, rows, device).float()


class _State(NamedTuple):
    """What the filter takes along from a frame."""

    picture: Tensor  # [3, H, W] as filtered
    source: Tensor  # [3, H, W]


class _Past:
    """What some frames take of the frame before each, as far as it does not depend on how that one is filtered.

    On a GPU each operation costs the host more than the card: few are left to be done frame by frame. With `fits` the
    past is taken whatever was drawn in its stead: in what is renewed, and wherever the source misses by less than so
    many levels of 0..255 along its motion (by as many, a third is taken).
    """

    def __init__(
        self,
        now: Tensor,  # [F, 3, H, W]
        source: Tensor,  # [F, 3, H, W]
        state: _State | None,  # of the frame before them
        where: Tensor,  # [F, H, W, 2] where in the frame before lies what is seen here, as `look_up` takes it
        renewed: Tensor | None,  # [F, 1, H, W] bool
        fits: float | None,
    ) -> None:
        self.now, self.where, self.renewed = now, where, renewed
        before = torch.cat([source[:1] if state is None else state.source[None], source[:-1]])
        old = look_up(before, where)
        self.moved = source - old  # added to the old picture it carries the edit's change of the source
        self.fits = None if fits is None else torch.exp(-(miss(old, source) / fits**2).square())
        limit = torch.full_like(now[:, :1], MISSED)
        if renewed is not None:
            limit.masked_fill_(renewed, MISSED_RENEWED)
            if self.fits is not None:
                self.fits.masked_fill_(renewed, 1.0)
        self.limit = limit**2

    def carried(self, i: int, picture: Tensor) -> tuple[Tensor, Tensor]:
        """The filtered `picture` [3, H, W] before as frame i would have it, and how readily it is taken [1, H, W]."""
        now, renewed = self.now[i], None if self.renewed is None else self.renewed[i]
        picture = look_up(picture[None], self.where[i, None])[0]
        change = picture + self.moved[i]
        missed = miss(torch.stack([change, picture]), now)
        past = torch.lerp(change, picture, picture_share(missed[0], missed[1], renewed))
        taken = torch.exp(-(miss(past, now) / self.limit[i]).square())
        return past, taken if self.fits is None else torch.maximum(taken, self.fits[i])


def reach(own: range, T: int, strength: float) -> range:
    """The `own` frames, extended at both ends by the frames that the filter still remembers when it comes to them."""
    far = math.ceil(math.log(FORGOTTEN) / math.log(strength)) if 0 < strength < 1 else T
    return range(max(0, own.start - far), min(T, own.stop + far))


def _blocks(frames: range) -> Iterable[np.ndarray]:
    return (np.array(frames[i : i + BLOCK]) for i in range(0, len(frames), BLOCK))
