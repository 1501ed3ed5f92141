"""Frames that are not edited but carried: made of the edited ones before and after them, along the source's motion.

Most frames differ from their neighbours by motion alone, which the source shows. So the model edits some, and what it
changed of them is carried to those between: less work, and less flicker, for frames that are made of the same two
agree. Where the source itself cannot be carried so, more frames are edited.
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

BLOCKS = 8, 32  # frames that are made at a time, on a CPU and elsewhere: a GPU waits for the calls
PIXEL_BYTES = 130  # of the device, measured, for each pixel of all frames along which a block is made
DOUBT = 0.02  # the weight of what comes along motion that cannot be trusted, where nothing better does
UNSEEN = 2.0  # levels of 0..255: a change that misses by much less is carried alone
RENEWED = 0.05  # from here on a place counts as one where a thing takes another's
# A frame of the source fits if at most this part of its pixels misses by more than so many levels; the second part
# between edited frames that lie further apart than `NEAR`. Of fur that turns away, what is carried that far is ragged.
MISFIT, FAR_MISFIT, LEVELS = 0.03, 0.01, 24.0
NEAR, FAR = 4, 8  # frames: how far edited ones lie apart at most, where things are replaced and where they keep shapes


def miss(picture: Tensor, other: Tensor) -> Tensor:
    """[..., 1, H, W]: the mean square difference of [..., 3, H, W] over 3x3 pixels."""
    square = (picture - other).square().mean(dim=-3, keepdim=True)
    return mean_of_nine(square)


def picture_share(change_misses: Tensor, picture_misses: Tensor, renewed: Tensor | None = None) -> Tensor:
    """How much of the picture is carried, 0..1, the rest being the edit's change of the source.

    Each weighs as much as the other misses, as estimates do that err by so much. The change of a thing that is gone
    holds its outline: where a place is `renewed` (bool) the picture alone is carried.
    """
    share = change_misses / (change_misses + picture_misses + UNSEEN**2)
    return share if renewed is None else share.masked_fill(renewed, 1.0)


def spread(T: int, cuts: np.ndarray, needed: np.ndarray, stride: int) -> np.ndarray:
    """[F] ascending of T frames: the `needed`, each shot's first and last, and others; at most `stride` apart."""
    corners = np.unique([0, *cuts, *(cuts - 1), T - 1, *needed]).astype(np.int64)
    parts = [np.linspace(a, b, -(-(b - a) // stride) + 1).round().astype(np.int64) for a, b in pairwise(corners)]
    return np.unique(np.concatenate([corners, *parts]))


def about_to_edit(T: int, cuts: np.ndarray, needed: np.ndarray, stride: int) -> np.ndarray:
    """[F] about as many as `frames_to_edit` gives, for a forecast before the motion is known."""
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
    """[F] ascending: frames of which the source's others can be made; the first and the last of each shot among them.

    At most `stride` apart. A gap in which a frame would not fit is halved.
    """
    chosen = spread(len(frames), cuts, needed, stride)
    asked = np.setdiff1d(np.arange(len(frames)), chosen)
    with monitor.stage("choose", len(asked[team.own(len(asked))])) as stage:
        while len(asked):
            fits = [torch.empty(0, dtype=torch.bool, device=device)]
            for ids in _blocks(asked[team.own(len(asked))], chosen, frames.shape, device):
                fits.append(_fit(frames, flow, ids, chosen, device))  # not fetched one by one: the device would wait
                stage.advance(min(len(ids), stage.total - stage.done))  # those of gaps that were halved come again
            fit = team.gather(torch.cat(fits), len(asked)).cpu().numpy()
            gaps = np.unique(np.searchsorted(chosen, asked[~fit]))
            middles = (chosen[gaps - 1] + chosen[gaps]) // 2
            asked = np.setdiff1d(asked[np.isin(np.searchsorted(chosen, asked), gaps)], middles)
            chosen = np.union1d(chosen, middles)
    return chosen


def edited_around(chosen: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[F] the places in `chosen` of the frame before each of `ids` and of that after it; beyond an end both are the
    one at it."""
    place = np.searchsorted(chosen, ids)
    return (place - 1).clip(0), place.clip(max=len(chosen) - 1)


def carry_between(
    out: np.ndarray,  # [T, H, W, 3] uint8, the `chosen` as they were edited
    frames: np.ndarray,  # [T, H, W, 3] uint8, the source
    flow: np.ndarray,  # [T - 1, 2, H / 2, W / 2, 2]
    chosen: np.ndarray,  # [F] ascending, as `frames_to_edit` gives them
    device: torch.device,
    monitor: Monitor,
    renewed: np.ndarray | None = None,  # [F, h, w] 0..1, where a thing takes another's place in those
    own: slice = slice(None),  # the frames to make
) -> None:
    """Fills in the frames of `out` that are not `chosen`; those before the first and after the last by that one alone.

    What the edit leaves alone stays the source, to the bit, but where a place is renewed.
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
    """[F, H, W, 3] uint8, the frames `ids` as `carry_between` makes them."""
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
    """`values` [F, ...] float32 of the `chosen` [F] as those of all T frames, linear between them."""
    before, after = edited_around(chosen, np.arange(T))
    gap = np.maximum(chosen[after] - chosen[before], 1)
    share = ((np.arange(T) - chosen[before]) / gap).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    return values[before] + share * (values[after] - values[before])


class _Sides(NamedTuple):
    """What comes to some frames from the chosen one before each, and from that after it."""

    before: Tensor  # [F, C, H, W]
    after: Tensor  # [F, C, H, W]
    share: Tensor  # [F, 1, H, W] 0..1, of the one before: the nearer in time, and the one that can be trusted
    trust: Tensor  # [F, 1, H, W] 0..1, that of the two which can be trusted more


def _sides(
    films: tuple[np.ndarray, ...],  # [T, H, W, 3] each, the source last
    flow: np.ndarray,
    ids: np.ndarray,
    chosen: np.ndarray,
    device: torch.device,
    now: Tensor | None = None,  # [F, 3, H, W] the source there; what misses it is not trusted,
    renewed: Tensor | None = None,  # [F, 1, H, W] bool, but where a thing takes another's place
) -> _Sides:
    height, width = films[0].shape[1:3]
    before, after = (chosen[places] for places in edited_around(chosen, ids))
    nearness = np.where(after > before, (after - ids) / np.maximum(after - before, 1), 0.5)  # of one frame twice: alike
    near = to_device(nearness.astype(np.float32), device)[:, None, None, None]
    parts, weights, trusts = [], [], []
    first, last = np.minimum(before, ids).min(), np.maximum(after, ids).max()
    between = FlowBetween(flow, int(first), int(last), (height, width), device)  # read once for both sides
    for others, share in ((before, near), (after, 1 - near)):
        there, trust = between(ids, others)
        trust = without_lines(trust)
        used, places = np.unique(others, return_inverse=True)  # the same few for all frames between them
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
    """[F] bool: whether each frame is like what is carried to it from those around it."""
    sides = _sides((frames,), flow, ids, chosen, device)
    carried = torch.lerp(sides.after, sides.before, sides.share)
    wrong = miss(carried, _pictures(frames, ids, device)) > LEVELS**2
    before, after = (chosen[places] for places in edited_around(chosen, ids))
    most = np.where(after - before > NEAR, FAR_MISFIT, MISFIT).astype(np.float32)
    return wrong.float().mean(dim=(1, 2, 3)) <= to_device(most, device)


def _renewed_at(renewed: np.ndarray, ids: np.ndarray, chosen: np.ndarray, like: Tensor) -> Tensor:
    """[F, 1, H, W] bool: where it is so in one of the frames around."""
    before, after = edited_around(chosen, ids)
    either = to_device(np.maximum(renewed[before], renewed[after]).astype(np.float32), like.device)[:, None]
    return F.interpolate(either, like.shape[-2:], mode="bilinear", align_corners=False) >= RENEWED


def _pictures(film: np.ndarray, ids: np.ndarray, device: torch.device) -> Tensor:
    """[F, 3, H, W] float32."""
    return as_pictures(rows_to_device(film, ids, device))


def block_bytes(device: torch.device, frame_size: tuple[int, int], stride: int) -> int:
    """What making a block of frames of (width, height) takes of the device at most."""
    pixels = frame_size[0] * frame_size[1]
    return PIXEL_BYTES * max(PIXELS[device.type != "cpu"], (stride + 1) * pixels)


def _blocks(ids: np.ndarray, chosen: np.ndarray, shape: tuple[int, ...], device: torch.device) -> Iterator[np.ndarray]:
    """Some of them at a time, as many as the device's part for it does: the flow along all between them is loaded.

    Those between two edited frames at once, as far as `most` goes: by themselves each would load all of that flow.
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
