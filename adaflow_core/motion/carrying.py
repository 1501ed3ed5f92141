"""Frames that are not edited but carried: made from the edited frames before and after, along the source's motion.

Most frames differ from their neighbours by motion alone, which can be read from the source. So the model edits only
some frames, and what it changed is carried to the frames between. This is less work and flickers less, since frames
made from the same two agree. Where the source's own frames cannot be made in this way, more frames are edited.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adaflow_core.model.memory import Sent, rows_to_device, to_device, writing
from adaflow_core.motion.flow import PIXELS, FlowBetween, frames_at_once, warp, without_lines
from adaflow_core.motion.mending import likeness, mended
from adaflow_core.motion.pictures import as_levels, as_pictures, mean_of_nine
from adaflow_core.progress import Monitor
from adaflow_core.team.team import ALONE, Team

BLOCKS = 8, 32  # frames made at a time, on a CPU and elsewhere: small blocks leave a GPU waiting for calls
PIXEL_BYTES = 130  # device memory, measured, per pixel of all frames along which a block is made
DOUBT = 0.02  # weight of what is carried along untrusted motion: so small that it counts only where nothing trusted is
UNSEEN = 2.0  # levels of 0..255: where the two carried changes differ by much less, the change alone is carried
RENEWED = 0.05  # value of `renewed` from which one thing counts as replacing another
# A carried frame of the source fits if at most MISFIT of its pixels differ by more than LEVELS; at most FAR_MISFIT if
# the edited frames around it are more than `NEAR` apart: carried that far, fur that turns away becomes ragged.
MISFIT, FAR_MISFIT, LEVELS = 0.03, 0.01, 24.0
NEAR, FAR = 4, 8  # frames from one edited frame to the next, where things are replaced and where they keep shapes


def miss(picture: Tensor, other: Tensor) -> Tensor:
    """Return [..., 1, H, W], the mean square difference of pictures [..., 3, H, W] over 3x3 pixels."""
    square = (picture - other).square().mean(dim=-3, keepdim=True)
    return mean_of_nine(square)


def picture_share(change_misses: Tensor, picture_misses: Tensor, renewed: Tensor | None = None) -> Tensor:
    """Return the share 0..1 of the carried picture; the rest is the source plus the carried change.

    The two are weighed as estimates by their mean square errors, so each weighs as much as the other misses. Where
    `renewed` (bool) the picture alone is carried: the change of a thing that is gone still holds its outline.
    """
    share = change_misses / (change_misses + picture_misses + UNSEEN**2)
    return share if renewed is None else share.masked_fill(renewed, 1.0)


def spread(T: int, cuts: np.ndarray, needed: np.ndarray, stride: int) -> np.ndarray:
    """Return [F] ascending, frames at most `stride` apart: the `needed`, each shot's first and last, and others."""
    corners = np.unique([0, *cuts, *(cuts - 1), T - 1, *needed]).astype(np.int64)
    parts = [np.linspace(a, b, -(-(b - a) // stride) + 1).round().astype(np.int64) for a, b in pairwise(corners)]
    return np.unique(np.concatenate([corners, *parts]))


def about_to_edit(T: int, cuts: np.ndarray, needed: np.ndarray, stride: int) -> np.ndarray:
    """Return about as many frames [F] as `frames_to_edit`, for a forecast before the motion is known."""
    return spread(T, cuts, needed, stride if stride <= NEAR else (stride + NEAR) // 2)


def frames_to_edit(
    frames: np.ndarray,  # [T, H, W, 3] uint8, the source
    flow: np.ndarray,  # [T - 1, 2, H / 2, W / 2, 2]
    cuts: np.ndarray,  # frames that begin a new shot
    needed: np.ndarray,  # frames that are edited in any case
    stride: int,
    device: torch.device,
    monitor: Monitor,
    team: Team = ALONE,
) -> np.ndarray:
    """Return [F] ascending, the frames from which all others of the source can be made.

    They are at most `stride` apart and include the first and last of each shot. A gap with a frame that would not fit
    is halved until all fit.
    """
    chosen = spread(len(frames), cuts, needed, stride)
    asked = np.setdiff1d(np.arange(len(frames)), chosen)
    with monitor.stage("choose", len(asked[team.own(len(asked))])) as stage:
        while len(asked):
            fits = [torch.empty(0, dtype=torch.bool, device=device)]
            for ids in _blocks(asked[team.own(len(asked))], chosen, frames.shape, device):
                fits.append(_fit(frames, flow, ids, chosen, device))  # fetched together: a fetch waits for the device
                stage.advance(min(len(ids), stage.total - stage.done))  # frames of halved gaps are checked again
            fit = team.gather(torch.cat(fits), len(asked)).cpu().numpy()
            gaps = np.unique(np.searchsorted(chosen, asked[~fit]))
            middles = (chosen[gaps - 1] + chosen[gaps]) // 2
            asked = np.setdiff1d(asked[np.isin(np.searchsorted(chosen, asked), gaps)], middles)
            chosen = np.union1d(chosen, middles)
    return chosen


def edited_around(chosen: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return [F] each, the positions in `chosen` of the frames before and after each of `ids`.

    Beyond an end of `chosen` both are the frame at that end.
    """
    place = np.searchsorted(chosen, ids)
    return (place - 1).clip(0), place.clip(max=len(chosen) - 1)


def carry_between(
    out: np.ndarray,  # [T, H, W, 3] uint8, whose `chosen` frames are edited already
    frames: np.ndarray,  # [T, H, W, 3] uint8, the source
    flow: np.ndarray,  # [T - 1, 2, H / 2, W / 2, 2]
    chosen: np.ndarray,  # [F] ascending, as `frames_to_edit` gives them
    device: torch.device,
    monitor: Monitor,
    renewed: np.ndarray | None = None,  # [F, h, w] 0..1, where one thing replaces another in the chosen frames
    own: slice = slice(None),  # the frames to make
) -> None:
    """Fill in the frames of `out` that are not `chosen`, each from the chosen frames before and after it.

    Frames before the first chosen one and after the last are made from that one alone. Pixels that the edit does not
    change stay exactly the source's, except where `renewed`.
    """
    wanted = np.setdiff1d(np.arange(len(frames))[own], chosen)
    with monitor.stage("carry", len(wanted)) as stage, writing(out) as put:
        for ids in _blocks(wanted, chosen, frames.shape, device):
            put(ids, Sent(_carried(out, frames, flow, ids, chosen, device, renewed)))
            stage.advance(len(ids))


def _carried(
    out: np.ndarray,
    frames: np.ndarray,
    flow: np.ndarray,
    ids: np.ndarray,
    chosen: np.ndarray,
    device: torch.device,
    renewed: np.ndarray | None,
) -> Tensor:
    """Return [F, H, W, 3] uint8, the frames `ids` as `carry_between` makes them."""
    now = _pictures(frames, ids, device)
    place = None if renewed is None else _renewed_at(renewed, ids, chosen, now)
    sides = _sides((out, frames), flow, ids, chosen, device, now, place)
    (picture, source), (picture_after, source_after) = sides.before.chunk(2, dim=1), sides.after.chunk(2, dim=1)
    change, change_after = picture - source, picture_after - source_after
    apart = miss(picture, picture_after)
    taken = picture_share(miss(change, change_after), apart, place)
    found = mended(torch.lerp(change_after, change, sides.share), now, sides.trust)
    taken = torch.lerp(taken, picture_share(found.spread, apart, place), found.share)
    made = torch.lerp(now + found.change, torch.lerp(picture_after, picture, sides.share), taken)
    return as_levels(made)


def interpolated(values: np.ndarray, chosen: np.ndarray, T: int) -> np.ndarray:
    """Interpolate `values` [F, ...] float32 of the `chosen` frames [F] linearly to all T frames."""
    before, after = edited_around(chosen, np.arange(T))
    gap = np.maximum(chosen[after] - chosen[before], 1)
    share = ((np.arange(T) - chosen[before]) / gap).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    return values[before] + share * (values[after] - values[before])


class _Sides(NamedTuple):
    """Pictures carried to F frames from the chosen frame before each and from the one after it."""

    before: Tensor  # [F, C, H, W]
    after: Tensor  # [F, C, H, W]
    share: Tensor  # [F, 1, H, W] 0..1, weight of `before`: high if it is nearer in time or can be trusted more
    trust: Tensor  # [F, 1, H, W] 0..1, trust in the more trusted of the two


def _sides(
    films: tuple[np.ndarray, ...],  # [T, H, W, 3] each, the source last
    flow: np.ndarray,
    ids: np.ndarray,
    chosen: np.ndarray,
    device: torch.device,
    now: Tensor | None = None,  # [F, 3, H, W] the source's frames; what differs from them is not trusted,
    renewed: Tensor | None = None,  # [F, 1, H, W] bool, except where one thing replaces another
) -> _Sides:
    height, width = films[0].shape[1:3]
    before, after = (chosen[places] for places in edited_around(chosen, ids))
    nearness = np.where(after > before, (after - ids) / np.maximum(after - before, 1), 0.5)  # one frame twice: half
    near = to_device(nearness.astype(np.float32), device)[:, None, None, None]
    parts, weights, trusts = [], [], []
    first, last = np.minimum(before, ids).min(), np.maximum(after, ids).max()
    between = FlowBetween(flow, int(first), int(last), (height, width), device)  # read once for both sides
    for others, share in ((before, near), (after, 1 - near)):
        there, trust = between(ids, others)
        trust = without_lines(trust)
        used, places = np.unique(others, return_inverse=True)  # frames between the same two share them
        pictures = torch.cat([_pictures(film, used, device) for film in films], dim=1)
        parts.append(warp(pictures[to_device(places, device)], there, between.grid))
        weight = trust + DOUBT
        if now is not None:
            agrees = likeness(miss(parts[-1][:, -3:], now))
            if renewed is not None:
                agrees = agrees.masked_fill(renewed, 1.0)
            trust, weight = trust * agrees, weight * (agrees + DOUBT)
        weights.append(weight * share)
        trusts.append(trust)
    return _Sides(parts[0], parts[1], weights[0] / (weights[0] + weights[1]), torch.maximum(*trusts))


def _fit(frames: np.ndarray, flow: np.ndarray, ids: np.ndarray, chosen: np.ndarray, device: torch.device) -> Tensor:
    """Return [F] bool: whether each source frame is like what is carried to it from the chosen frames around it."""
    sides = _sides((frames,), flow, ids, chosen, device)
    carried = torch.lerp(sides.after, sides.before, sides.share)
    wrong = miss(carried, _pictures(frames, ids, device)) > LEVELS**2
    before, after = (chosen[places] for places in edited_around(chosen, ids))
    most = np.where(after - before > NEAR, FAR_MISFIT, MISFIT).astype(np.float32)
    return wrong.float().mean(dim=(1, 2, 3)) <= to_device(most, device)


def _renewed_at(renewed: np.ndarray, ids: np.ndarray, chosen: np.ndarray, like: Tensor) -> Tensor:
    """Return [F, 1, H, W] bool: where one of the chosen frames around each frame is renewed."""
    before, after = edited_around(chosen, ids)
    either = to_device(np.maximum(renewed[before], renewed[after]).astype(np.float32), like.device)[:, None]
    return F.interpolate(either, like.shape[-2:], mode="bilinear", align_corners=False) >= RENEWED


def _pictures(film: np.ndarray, ids: np.ndarray, device: torch.device) -> Tensor:
    """[F, 3, H, W] float32."""
    return as_pictures(rows_to_device(film, ids, device))


def block_bytes(device: torch.device, frame_size: tuple[int, int], stride: int) -> int:
    """Return the most bytes of device memory that making a block of frames of (width, height) takes."""
    pixels = frame_size[0] * frame_size[1]
    return PIXEL_BYTES * max(PIXELS[device.type != "cpu"], (stride + 1) * pixels)


def _blocks(ids: np.ndarray, chosen: np.ndarray, shape: tuple[int, ...], device: torch.device) -> Iterator[np.ndarray]:
    """Split `ids` into blocks whose flow fits on the device: the flow along all frames of a block is loaded at once.

    Frames between the same two chosen frames stay in one block, up to `most`: alone, each would load all of that flow.
    """
    most, span = BLOCKS[device.type != "cpu"], frames_at_once((shape[1], shape[2]), device)
    before, after = edited_around(chosen, ids)
    first, last = np.minimum(chosen[before], ids), np.maximum(chosen[after], ids)
    start = 0
    while start < len(ids):
        some = slice(start, start + most)
        of_gap = int(np.searchsorted(before[some], before[start], side="right"))
        count = max(of_gap, int(np.searchsorted(last[some], first[start] + span, side="left")))
        yield ids[start : start + count]
        start += count
