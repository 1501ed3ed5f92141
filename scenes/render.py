"""Draws clips: turns rows and times into pictures, object ids and source coordinates.

Everything is a pure function of the row and the time, evaluated at pixel centres with analytic
anti-aliasing. Work is grouped by place, kind and style, so that nothing is computed for rows that do not
need it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scenes.drawing.backgrounds import background
from scenes.drawing.looks import LOOKS
from scenes.drawing.noise import BILLOWS, GRAIN, Noise, cover, hexcolour, ink, mix, smoothstep
from scenes.drawing.objects import SHAPES, TINTS
from scenes.drawing.palette import HUE_WIDTHS, coat_of, graded
from scenes.drawing.styles import impressionist, strokes, stylise
from scenes.hidden import STANDINGS, Medium
from scenes.motion import (
    BACKGROUND,
    MAIN,
    OCCLUDER,
    SECOND,
    Frames,
    ObjectPose,
    field,
    pixel_grid,
    pose,
    to_local,
)
from scenes.world import BACKGROUNDS, KINDS, OCCLUDERS, STYLES, SceneBatch

CPU_PIXELS, GPU_PIXELS = 2**19, 2**26  # a chunk's pixels: what a cache holds; enough to hide launches


@dataclass
class Rendered:
    rgb: Tensor  # [B, F, 3, H, W] float in 0..1
    ids: Tensor  # [B, F, H, W] uint8: 0 background, 1 main object, 2 second object, 3 occluder
    coords: Tensor  # [B, F, 2, H, W] float32: the thing's own coordinates; world for background and occluder


def _groups(*labels: Tensor) -> Iterator[tuple[list[int], Tensor]]:
    """Rows that share all labels ([n] int64 each): the labels and the rows' indices."""
    keys, group = torch.unique(torch.stack(labels, 1).cpu(), dim=0, return_inverse=True)  # the one sync
    order = torch.argsort(group, stable=True)
    for key, rows in zip(keys.tolist(), order.split(torch.bincount(group).tolist()), strict=True):
        yield key, rows.to(labels[0].device, non_blocking=True)


def _light(frames: Frames) -> Tensor:
    """Direction to the light [N, 3] (right, down, towards the viewer): the side of the sun, from above."""
    side = torch.tanh(2.5 * frames.sun[:, 0]) * 0.62
    light = torch.stack([side, torch.full_like(side, -0.62), torch.full_like(side, 0.62)], 1)
    return torch.nn.functional.normalize(light, dim=1)


def _shade(albedo: Tensor, nx: Tensor, ny: Tensor, gloss: Tensor | float, light: Tensor) -> Tensor:
    """Light a surface. nx, ny: screen normals [n, 1, H, W]; light [n, 3]. The same in every place."""
    lx, ly, lz = (field(light[:, i]) for i in range(3))
    nz = torch.sqrt((1 - nx * nx - ny * ny).clamp(min=0.02))
    lambert = nx * lx + ny * ly + nz * lz
    lit = (0.5 + 0.5 * lambert).clamp(0, 1) ** 1.4
    tone = mix(ink("6a6580", albedo), ink("fffdf8", albedo), lit) * 1.06
    highlight = ((nx * lx + ny * ly + nz * (lz + 1)) * torch.rsqrt(2 + 2 * lz)).clamp(0, 1) ** 28
    rim = (1 - nz) ** 3 * (0.5 - 0.5 * ny) * 0.22
    return (albedo * tone + highlight * gloss + rim).clamp(0, 1)


def _shadow(thing: ObjectPose, frames: Frames, x: Tensor, y: Tensor) -> Tensor:
    """Darkness 0..1 of the soft shadow that an object throws on the ground."""
    width = 0.82 * thing.radius * (1 - 0.25 * (thing.lift / thing.radius).clamp(0, 1))
    away = -torch.tanh(2.5 * frames.sun[:, 0]) * (0.25 * thing.radius + 0.3 * thing.lift)
    dx = (x - field(thing.ground[:, 0] + away)) / field(width * 1.15)
    dy = (y - field(thing.ground[:, 1])) / field(width * 0.24)
    soft = smoothstep(1.15, 0.25, torch.sqrt(dx * dx + dy * dy + 1e-8))
    near = torch.exp(-0.9 * thing.lift / thing.radius)
    return soft * field(near) * 0.58


def _finish(rgb: Tensor, contour: Tensor, style: Tensor, paper: Noise, medium: Medium, x: Tensor, y: Tensor) -> None:
    """Turn photo-style pictures into their rows' styles, in place. x, y: the texture's anchor coordinates."""
    for (number,), rows in _groups(style):
        if STYLES[number] not in ("photo", "impressionist"):  # those are finished where they are painted
            rgb[rows] = stylise(STYLES[number], rgb[rows], contour[rows], paper[rows], medium[rows], x[rows], y[rows])


def _by_strokes(style: Tensor) -> Tensor:
    """Return 1 for rows in the impressionist style, which take the colours at the centres of brush strokes."""
    return (style == STYLES.index("impressionist")).long()


def _scenery(frames: Frames, noise: Noise, paper: Noise, size: int) -> Tensor:
    """Draw the places with the objects' shadows, in their styles: [N, 3, H, W].

    Style textures are anchored at the point of the horizon below the sun.
    """
    x, y, pixel = pixel_grid(frames, size)
    sheet_x, sheet_y = x - field(frames.sun[:, 0]), y - field(frames.horizon)
    rgb = torch.empty(len(frames), 3, size, size, device=x.device)
    contour = torch.empty(len(frames), 1, size, size, device=x.device)
    standing = frames.hidden.scenery.standing % STANDINGS
    for (place, stroked, choice), rows in _groups(frames.background, _by_strokes(frames.style), standing):
        look = LOOKS[BACKGROUNDS[place]]
        part, grain = frames[rows], noise[rows]
        px, py, brush = x[rows], y[rows], None
        if stroked:
            sun = torch.zeros_like(field(part.horizon)), field(part.sun[:, 1] - part.horizon)
            brush = strokes(paper[rows], part.hidden.medium, sheet_x[rows], sheet_y[rows], sun)
            px, py = px + brush.dx, py + brush.dy
        picture = background(look, part, grain, px, py, pixel[rows], look.stands(choice))
        second = _shadow(part.second, part, px, py) * field(part.present2)
        shade = 1 - (1 - _shadow(part.main, part, px, py)) * (1 - second)
        shade = shade * (py > field(part.horizon))
        painted = (picture.rgb * mix(1.0, ink("232848", shade), shade)).clamp(0, 1)
        rgb[rows] = painted if brush is None else impressionist(painted, brush, part.hidden.medium)
        contour[rows] = picture.contour
    _finish(rgb, contour, frames.style, paper, frames.hidden.medium, sheet_x, sheet_y)
    return rgb


@dataclass
class _Canvas:
    rgb: Tensor  # [N, 3, H, W]
    ids: Tensor  # [N, 1, H, W] uint8
    coords: Tensor  # [N, 2, H, W]

    def put(self, rows: Tensor, rgb: Tensor, alpha: Tensor, number: int, coords: tuple[Tensor, Tensor]) -> None:
        """Lay a thing over the rows' pictures."""
        inside = alpha > 0.5
        self.rgb[rows] = torch.lerp(self.rgb[rows], rgb, alpha)  # exact where alpha is 1
        self.ids[rows] = torch.where(inside, number, self.ids[rows])
        self.coords[rows] = torch.where(inside, torch.cat(coords, 1), self.coords[rows])


def _tints(thing: ObjectPose) -> Tensor:
    """Return the objects' main colours [n, 3, 1, 1]: the clip's own shades of the named colours."""
    device, coat = thing.colour.device, thing.coat
    named = torch.tensor([hexcolour(c) for c in TINTS], device=device)[thing.colour].view(-1, 3, 1, 1)
    hue = torch.tensor(HUE_WIDTHS, device=device)[thing.colour].deg2rad() * coat.hue
    return graded(named, field(hue), field(coat.saturation), field(coat.value))


def _draw_objects(
    canvas: _Canvas, things: ObjectPose, number: int, which: Tensor, frames: Frames, paper: Noise, size: int
) -> None:
    """Draw one object into each of the frames `which` (indices)."""
    if not len(which):
        return
    thing, part, sheet = things[which], frames[which], paper[which]
    x, y, pixel = pixel_grid(part, size)
    u, v = to_local(thing, x, y)
    radius = field(thing.radius)
    own = pixel / radius
    tints = _tints(thing)
    cos, sin, light = field(torch.cos(thing.angle)), field(torch.sin(thing.angle)), _light(part)
    rgb, alpha, contour = u.new_empty(len(which), 3, size, size), torch.empty_like(u), torch.empty_like(u)
    patterned = (thing.coat.pattern > 0).long()
    for (kind, stroked, patterns), rows in _groups(thing.kind, _by_strokes(part.style), patterned):
        shape = SHAPES[KINDS[kind]]
        pu, pv, scale, brush = u[rows], v[rows], radius[rows], None
        alpha[rows] = cover(shape.distance(pu, pv), own[rows])
        if stroked:
            medium = part.hidden.medium[rows]
            brush = strokes(sheet[rows], medium, pu * scale, pv * scale, length=0.17, width=0.055, pull=0.2)
            pu, pv = pu + brush.dx / scale, pv + brush.dy / scale
        tint = tints[rows]
        if patterns:
            tint = coat_of(tint, thing.coat[rows], sheet[rows], pu, pv, own[rows])
        look = shape.paint(pu, pv, tint, own[rows])
        nu, nv, c, s = look.nx * field(thing.mirror[rows]), look.ny, cos[rows], sin[rows]
        gloss = look.gloss * field(thing.coat.gloss[rows])
        painted = _shade(look.albedo, nu * c - nv * s, nu * s + nv * c, gloss, light[rows])
        rgb[rows] = painted if brush is None else impressionist(painted, brush, part.hidden.medium[rows])
        contour[rows] = look.contour * scale
    _finish(rgb, contour, part.style, sheet, part.hidden.medium, u * radius, v * radius)
    canvas.put(which, rgb, alpha, number, (u, v))


def occluder_distance(kind: str, part: Frames, grain: Noise, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance to the thing in the foreground, world units."""
    width = field(part.occluder_width)
    dx = x - field(part.occluder_x)
    foot = 0.94
    if kind == "rock":
        wobble = 1 + 0.16 * grain.at(BILLOWS, x * 0.55, y * 0.55)
        a, b = width * 2.1 * wobble, width * 3.4 * wobble
        near = torch.sqrt((dx / a) ** 2 + ((y - foot) / b) ** 2 + 1e-8)
        return torch.maximum((near - 1) * a, y - foot - 0.03)
    if kind == "post":
        half = width * 0.62
        top = torch.maximum(dx.abs() - half, -0.12 - y + 0.4 * dx.abs())
        return torch.maximum(top, y - foot)
    flare = 0.5 * torch.exp((y - foot) / 0.16) + 0.12 * torch.sin(y * 3 + width * 40)
    return torch.maximum((dx.abs() - width * (1 + flare)) * 0.95, y - foot - 0.02 * torch.cos(dx * 25))


def _draw_occluders(canvas: _Canvas, frames: Frames, noise: Noise, paper: Noise, size: int) -> None:
    which = (frames.occluder > 0).nonzero()[:, 0]
    for (kind, style), picked in _groups(frames.occluder[which], frames.style[which]):
        rows = which[picked]
        part, grain, sheet = frames[rows], noise[rows], paper[rows]
        x, y, pixel = pixel_grid(part, size)
        own_x = x - field(part.occluder_x)
        alpha = cover(occluder_distance(OCCLUDERS[kind], part, grain, x, y), pixel)
        world = torch.broadcast_tensors(x, y)
        brush, px, py = None, x, y
        if STYLES[style] == "impressionist":
            brush = strokes(sheet, part.hidden.medium, y, own_x, length=0.26, width=0.06)
            px, py = x + brush.dy, y + brush.dx
        distance = occluder_distance(OCCLUDERS[kind], part, grain, px, py)
        width = field(part.occluder_width) * {"trunk": 1.1, "post": 0.62, "rock": 2.2}[OCCLUDERS[kind]]
        nx = ((px - field(part.occluder_x)) / width).clamp(-0.96, 0.96)
        if OCCLUDERS[kind] == "rock":
            ny = ((py - 0.75) / (width * 1.6)).clamp(-0.75, 0.3)
            spots = grain.at(BILLOWS, px * 0.8, py * 0.8)
            albedo = mix(ink("94928f", px), ink("6f6e72", px), smoothstep(-0.3, 0.4, spots))
        else:
            ny = torch.zeros_like(distance)
            bark = grain.at(GRAIN, px * 1.7, py * 0.22)
            light, dark = ("8a6444", "5d4130") if OCCLUDERS[kind] == "trunk" else ("b08b5e", "86653f")
            albedo = mix(ink(light, px), ink(dark, px), smoothstep(-0.35, 0.35, bark))
        rgb = _shade(albedo, nx.expand_as(distance), ny.expand_as(distance), 0.0, _light(part))
        if brush is not None:
            rgb = impressionist(rgb, brush, part.hidden.medium)
        else:
            rgb = stylise(STYLES[style], rgb, distance.abs(), sheet, part.hidden.medium, own_x, y)
        canvas.put(rows, rgb, alpha, OCCLUDER, (world[0], world[1]))


def second_is_nearer(frames: Frames) -> Tensor:
    """Return [N] bool, whether the second object is nearer: its foot is lower in the picture than the first's."""
    return frames.second.ground[:, 1] > frames.main.ground[:, 1]


def draw(frames: Frames, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Frames to rgb [N, 3, H, W], ids [N, H, W] and coords [N, 2, H, W]."""
    noise = Noise.of(frames.seed)
    layout = Noise.of(frames.seed + 2 * frames.hidden.scenery.layout)
    paper = Noise.of(frames.hidden.medium.paper)
    x, y, _ = pixel_grid(frames, size)
    canvas = _Canvas(
        rgb=_scenery(frames, layout, paper, size),
        ids=torch.full((len(frames), 1, size, size), BACKGROUND, dtype=torch.uint8, device=x.device),
        coords=torch.cat(torch.broadcast_tensors(x, y), 1).clone(),
    )
    nearer = second_is_nearer(frames)
    everyone = torch.arange(len(frames), device=x.device)
    behind = (frames.present2 & ~nearer).nonzero()[:, 0]
    before = (frames.present2 & nearer).nonzero()[:, 0]
    _draw_objects(canvas, frames.second, SECOND, behind, frames, paper, size)
    _draw_objects(canvas, frames.main, MAIN, everyone, frames, paper, size)
    _draw_objects(canvas, frames.second, SECOND, before, frames, paper, size)
    _draw_occluders(canvas, frames, noise, paper, size)
    return canvas.rgb.clamp(0, 1), canvas.ids[:, 0], canvas.coords


def geometry(frames: Frames, size: int) -> tuple[Tensor, Tensor]:
    """Return the ids [N, H, W] and coords [N, 2, H, W] of `draw`, without drawing."""
    noise = Noise.of(frames.seed)
    x, y, pixel = pixel_grid(frames, size)
    ids = torch.full((len(frames), 1, size, size), BACKGROUND, dtype=torch.uint8, device=x.device)
    coords = torch.cat(torch.broadcast_tensors(x, y), 1).clone()
    nearer = second_is_nearer(frames)
    everyone = torch.ones_like(nearer)
    for thing, number, shown in (
        (frames.second, SECOND, frames.present2 & ~nearer),
        (frames.main, MAIN, everyone),
        (frames.second, SECOND, frames.present2 & nearer),
    ):
        for (kind, drawn), rows in _groups(thing.kind, shown.long()):
            if drawn:
                own = thing[rows]
                u, v = to_local(own, x[rows], y[rows])
                inside = cover(SHAPES[KINDS[kind]].distance(u, v), pixel[rows] / field(own.radius)) > 0.5
                ids[rows] = torch.where(inside, number, ids[rows])
                coords[rows] = torch.where(inside, torch.cat([u, v], 1), coords[rows])
    world = torch.cat(torch.broadcast_tensors(x, y), 1)
    for (kind,), rows in _groups(frames.occluder):
        if OCCLUDERS[kind] != "none":
            distance = occluder_distance(OCCLUDERS[kind], frames[rows], noise[rows], x[rows], y[rows])
            inside = cover(distance, pixel[rows]) > 0.5
            ids[rows] = torch.where(inside, OCCLUDER, ids[rows])
            coords[rows] = torch.where(inside, world[rows], coords[rows])
    return ids[:, 0], coords


def render(
    batch: SceneBatch,
    times: Tensor,  # [B, F] or [F], clip time in 0..1
    size: int = 256,
) -> Rendered:
    """Draw every clip at its times, `size` pixels square, on the batch's device."""
    device = batch.seed.device
    times = times.to(device, torch.float32).expand(len(batch), times.shape[-1])
    b, f = times.shape
    rows = torch.arange(b, device=device).repeat_interleave(f)
    frames = pose(batch, rows, times.reshape(-1))
    chunk = max(1, (CPU_PIXELS if device.type == "cpu" else GPU_PIXELS) // size**2)
    parts = [draw(frames[i : i + chunk], size) for i in range(0, b * f, chunk)]
    rgb, ids, coords = (torch.cat(p).unflatten(0, (b, f)) for p in zip(*parts, strict=True))
    return Rendered(rgb, ids, coords)
