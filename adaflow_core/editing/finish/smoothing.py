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
KEPT_ON_DEVICE = 2**29  # bytes of the first pass's changes that may stay on a GPU: 340 frames of 384x672
FORGOTTEN = 1e-3  # the weight of a past frame below which it counts as forgotten
# In levels of 0..255, chosen on the plain model's validation clips and the bundled ones: a carried picture that differs
# from the frame by this much is taken by a third, by half as much by 94 %, by twice as much not at all. The second
# value is for places where a new thing replaces one of the source.
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
    """Filter the frames `part` of T; the frames around it are taken into account as far as the filter remembers.

    Pictures are on a scale of 0..255 and on the device. Memory does not grow with T: intermediate results of a long
    film lie in a file. `pictures` is called twice for each frame, both times before the frame is written.
    """
    own = range(*part.indices(len(flow) + 1))
    around = reach(own, len(flow) + 1, strength)
    borders = {int(cut) for cut in cuts}
    upwards, downwards = range(around.start, own.stop), range(own.start, around.stop)[::-1]
    forward = _Kept(len(upwards))  # the changes that the filter makes in its forward pass

    def filtered(frames: np.ndarray, step: int, state: _State | None) -> tuple[Tensor, Tensor, _State]:
        """Return `frames`, which follow each other by -step, unfiltered and filtered after `state`; and a new state."""
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
    """Return where in frame t + `step` the content of each frame t lies, and the trust in that.

    `frames` [F] follow each other by -`step`, so t + `step` is the frame that the filter comes from. The places are
    [F, H, W, 2], as `look_up` takes them; the trust is [F, 1, H, W].
    """
    grid = pixel_grid(like.shape[-2], like.shape[-1], like.device)
    pairs = rows_to_device(flow, np.clip(np.minimum(frames, frames + step), 0, len(flow) - 1), like.device)
    there, back = (full_size(way, like) for way in (pairs[:, 0], pairs[:, 1])[::step])
    return places(there, grid), without_lines(trusted(there, back, grid))


class _Kept:
    """Keeps pictures in half precision from the forward to the backward pass: on a GPU if they fit, else in a file."""

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
    """A frame, as the filter carries it to the next one."""

    picture: Tensor  # [3, H, W] the filtered frame
    source: Tensor  # [3, H, W]


class _Past:
    """Computes for some frames at once what the filter needs that does not depend on filtered frames.

    The rest is done frame by frame (`carried`). It is little, because on a GPU launching an operation takes longer than
    running it. With `fits` the past is taken even if the frame shows something else: in renewed places, and where the
    source, followed along its motion, differs from itself by less than `fits` levels of 0..255 (at `fits`, a third).
    """

    def __init__(
        self,
        now: Tensor,  # [F, 3, H, W]
        source: Tensor,  # [F, 3, H, W]
        state: _State | None,  # of the frame before them
        where: Tensor,  # [F, H, W, 2] where this frame's content lies in the frame before, as `look_up` takes it
        renewed: Tensor | None,  # [F, 1, H, W] bool
        fits: float | None,
    ) -> None:
        self.now, self.where, self.renewed = now, where, renewed
        before = torch.cat([source[:1] if state is None else state.source[None], source[:-1]])
        old = look_up(before, where)
        self.moved = source - old  # added to the old picture, it gives the source with the old change of the edit
        self.fits = None if fits is None else torch.exp(-(miss(old, source) / fits**2).square())
        limit = torch.full_like(now[:, :1], MISSED)
        if renewed is not None:
            limit.masked_fill_(renewed, MISSED_RENEWED)
            if self.fits is not None:
                self.fits.masked_fill_(renewed, 1.0)
        self.limit = limit**2

    def carried(self, i: int, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Carry the filtered `picture` [3, H, W] of the frame before to frame i; also returns its weight [1, H, W]."""
        now, renewed = self.now[i], None if self.renewed is None else self.renewed[i]
        picture = look_up(picture[None], self.where[i, None])[0]
        change = picture + self.moved[i]
        missed = miss(torch.stack([change, picture]), now)
        past = torch.lerp(change, picture, picture_share(missed[0], missed[1], renewed))
        taken = torch.exp(-(miss(past, now) / self.limit[i]).square())
        return past, taken if self.fits is None else torch.maximum(taken, self.fits[i])


def reach(own: range, T: int, strength: float) -> range:
    """Return the `own` frames with those on either side that the filter still remembers when it comes to them."""
    far = math.ceil(math.log(FORGOTTEN) / math.log(strength)) if 0 < strength < 1 else T
    return range(max(0, own.start - far), min(T, own.stop + far))


def _blocks(frames: range) -> Iterable[np.ndarray]:
    return (np.array(frames[i : i + BLOCK]) for i in range(0, len(frames), BLOCK))
