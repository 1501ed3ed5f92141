"""Computes poses from clip rows and times, and the maps between frames and things.

Every map is a similarity (shift, turn, scale, mirror), so that correspondences are exact.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scenes.drawing.objects import SHAPES
from scenes.hidden import Coat, Hidden
from scenes.rows import Rows
from scenes.world import KINDS, SceneBatch

BACKGROUND, MAIN, SECOND, OCCLUDER = 0, 1, 2, 3  # the values of `Rendered.ids`


@dataclass(frozen=True)
class ObjectPose(Rows):
    """An object in N frames."""

    kind: Tensor  # [N] int64
    colour: Tensor  # [N] int64
    coat: Coat
    centre: Tensor  # [N, 2] world
    angle: Tensor  # [N] radians, clockwise
    radius: Tensor  # [N] world
    mirror: Tensor  # [N] +1 or -1
    ground: Tensor  # [N, 2] world point below it, where its shadow lies
    lift: Tensor  # [N] height above that point, world


@dataclass(frozen=True)
class Frames(Rows):
    """N frames, each with everything that is needed to draw it."""

    background: Tensor  # [N] int64
    style: Tensor  # [N] int64
    seed: Tensor  # [N] int64, another after a cut
    shot: Tensor  # [N] int64, 0 before and 1 after the cut
    horizon: Tensor  # [N]
    sun: Tensor  # [N, 2]
    camera: Tensor  # [N, 2]
    zoom: Tensor  # [N]
    main: ObjectPose
    second: ObjectPose
    present2: Tensor  # [N] bool
    occluder: Tensor  # [N] int64
    occluder_x: Tensor  # [N]
    occluder_width: Tensor  # [N]
    hidden: Hidden


def _place(
    kind: Tensor,
    colour: Tensor,
    coat: Coat,
    ground: Tensor,
    lift: Tensor,
    size: Tensor,
    roll: Tensor,
    sway: Tensor,
    mirror: Tensor,
) -> ObjectPose:
    """Stand an object of each kind on its ground point: some roll, others only sway about their foot."""
    base = torch.tensor([SHAPES[k].base for k in KINDS], device=kind.device)[kind]
    rolls = torch.tensor([SHAPES[k].rolls for k in KINDS], device=kind.device)[kind]
    angle = torch.where(rolls, roll, sway)
    lean = torch.where(rolls, 0.0, sway)
    height = base * size
    centre = torch.stack([ground[:, 0] + height * torch.sin(lean), ground[:, 1] - lift - height * torch.cos(lean)], 1)
    return ObjectPose(kind, colour, coat, centre, angle, size, mirror, ground, lift)


def pose(batch: SceneBatch, rows: Tensor, times: Tensor) -> Frames:
    """The frames of clips `rows` [N] at clip times [N] (0..1)."""
    clip = batch[rows]
    shot = (times >= clip.cut_time).long()
    here = torch.arange(len(times), device=times.device)

    def at(field: Tensor) -> Tensor:
        return field[here, shot]

    raw = ((times - at(clip.begin)) / at(clip.lasts)).clamp(0, 1)
    burst = at(clip.lasts) < 1
    s = torch.where(burst, raw * raw * (3 - 2 * raw), raw)  # progress along the object's path, 0..1
    ground = at(clip.place) + at(clip.path) * (s - 0.5)[:, None]
    size = at(clip.size) * torch.exp(at(clip.growth) * (s - 0.5))
    swing = torch.sin(math.pi * at(clip.hops) * s)
    lift = at(clip.hop) * swing.abs()
    turn = at(clip.turn)
    # A body that grows while it rolls turns at the mean radius; nobody will measure the slip.
    roll = at(clip.tilt) + at(clip.path)[:, 0] * (s - 0.5) / at(clip.size) + turn * s
    rocking = 0.32 * torch.sin(math.tau * 1.5 * s) * (turn != 0) + 0.10 * swing * (at(clip.hop) > 0)
    sway = 0.08 * at(clip.tilt) + rocking
    main = _place(clip.kind, clip.colour, clip.hidden.main, ground, lift, size, roll, sway, at(clip.facing))

    ground2 = at(clip.place2) + at(clip.path2) * (times - 0.5)[:, None]
    roll2 = at(clip.path2)[:, 0] * (times - 0.5) / at(clip.size2) - at(clip.tilt)
    side2 = torch.where(at(clip.path2)[:, 0] < 0, -1.0, 1.0)
    still = torch.zeros_like(times)
    second = _place(clip.kind2, clip.colour2, clip.hidden.second, ground2, still, at(clip.size2), roll2, still, side2)

    return Frames(
        background=clip.background,
        style=clip.style,
        seed=clip.seed * 2 + shot,
        shot=shot,
        horizon=at(clip.horizon),
        sun=at(clip.sun),
        camera=at(clip.camera) + at(clip.camera_path) * (times - 0.5)[:, None],
        zoom=at(clip.zoom) * torch.exp(at(clip.zoom_path) * (times - 0.5)),
        main=main,
        second=second,
        present2=clip.present2,
        occluder=clip.occluder,
        occluder_x=at(clip.occluder_x),
        occluder_width=at(clip.occluder_width),
        hidden=clip.hidden,
    )


def field(values: Tensor) -> Tensor:
    """[N] to [N, 1, 1, 1], to meet pictures."""
    return values.view(-1, 1, 1, 1)


def pixel_grid(frames: Frames, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """World x [N, 1, 1, W] and y [N, 1, H, 1] of the pixel centres, and world units a pixel [N, 1, 1, 1]."""
    steps = (torch.arange(size, device=frames.zoom.device, dtype=torch.float32) + 0.5) * (2 / size) - 1
    zoom = field(frames.zoom)
    x = field(frames.camera[:, 0]) + steps.view(1, 1, 1, -1) / zoom
    y = field(frames.camera[:, 1]) + steps.view(1, 1, -1, 1) / zoom
    return x, y, 2 / (size * zoom)


def to_screen(frames: Frames, x: Tensor, y: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """World points to pixel coordinates (column, row), 0 being the centre of the first pixel."""
    zoom = field(frames.zoom)
    column = (x - field(frames.camera[:, 0])) * zoom
    row = (y - field(frames.camera[:, 1])) * zoom
    return (column + 1) * (size / 2) - 0.5, (row + 1) * (size / 2) - 0.5


def to_local(thing: ObjectPose, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """World points to an object's own coordinates (u right, v down; the object spans about -1..1)."""
    dx = (x - field(thing.centre[:, 0])) / field(thing.radius)
    dy = (y - field(thing.centre[:, 1])) / field(thing.radius)
    cos, sin = field(torch.cos(thing.angle)), field(torch.sin(thing.angle))
    return field(thing.mirror) * (cos * dx + sin * dy), cos * dy - sin * dx


def to_world(thing: ObjectPose, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of `to_local`."""
    cos, sin = field(torch.cos(thing.angle)), field(torch.sin(thing.angle))
    u = u * field(thing.mirror)
    x = field(thing.centre[:, 0]) + field(thing.radius) * (cos * u - sin * v)
    y = field(thing.centre[:, 1]) + field(thing.radius) * (sin * u + cos * v)
    return x, y
