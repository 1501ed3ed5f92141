"""The places: one landscape of shared fields, seven materials.

Horizon, sun, clouds, two ranges of hills, what stands on them, and the relief of the ground come from the
clip's seed and are the same in every place; a `Look` says what they are made of, and `Scenery` what a clip of the
ambiguous world makes of that. Coordinates are world
units; x may be [N, 1, 1, W] and y [N, 1, H, 1], so that what depends on one alone stays cheap.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scenes.drawing.looks import Look
from scenes.drawing.noise import BILLOWS, GRAIN, SWELLS, Noise, cover, ink, mix, smoothstep
from scenes.drawing.palette import Tones, tones
from scenes.drawing.standing import facade, house, shape
from scenes.motion import Frames, field


@dataclass
class Picture:
    """A background being painted, farthest things first."""

    rgb: Tensor  # [N, 3, H, W]
    contour: Tensor  # [N, 1, H, W] distance to the nearest drawn line, world units
    pixel: Tensor  # world units a pixel

    def lay(self, colour: Tensor, distance: Tensor, line: float = 1.0) -> None:
        """Put a shape (signed distance, negative inside) before what is there. line > 1 thins its outline."""
        self.rgb = mix(self.rgb, colour, cover(distance, self.pixel))
        behind = torch.minimum(self.contour, distance.abs() * line)
        self.contour = torch.where(distance < 0, distance.abs() * line, behind)


def _ridge(noise: Noise, x: Tensor, salt: int, frequency_factor: Tensor) -> tuple[Tensor, Tensor]:
    """A hill profile in about 0..1 and its slope, from four waves with the clip's own phases."""
    height, slope = torch.full_like(x, 0.5), torch.zeros_like(x)
    for k, (frequency, amplitude) in enumerate(((1.3, 0.24), (2.9, 0.15), (5.7, 0.07), (11.0, 0.03))):
        zero = torch.zeros_like(field(noise.cells[:, 0]))
        phase = noise.cell(zero, float(k), salt) * math.tau
        stretch = frequency * (0.8 + 0.4 * noise.cell(zero, float(k), salt + 1)) * frequency_factor
        height = height + amplitude * torch.sin(stretch * x + phase)
        slope = slope + amplitude * stretch * torch.cos(stretch * x + phase)
    return height, slope


def _sky(look: Look, tone: Tones, frames: Frames, noise: Noise, x: Tensor, y: Tensor, pixel: Tensor) -> Picture:
    scenery = frames.hidden.scenery
    horizon, sun_x, sun_y = field(frames.horizon), field(frames.sun[:, 0]), field(frames.sun[:, 1])
    top, middle, low = tone.sky
    up = ((horizon - y) / 1.15).clamp(0, 1)
    rgb = mix(mix(low, middle, smoothstep(0.0, 0.45, up)), top, smoothstep(0.3, 1.0, up))
    away = torch.sqrt((x - sun_x) ** 2 + (y - sun_y) ** 2 + 1e-12)
    disc = away - look.sun_radius
    halo = torch.exp(-away / 0.34) * look.glow_strength + torch.exp(-((away / 0.16) ** 2)) * 0.35
    rgb = mix(rgb, tone.glow, halo.clamp(0, 1))
    picture = Picture(rgb, torch.full_like(away, 9.0), pixel)
    if look.stars:
        cell = 0.15
        i, j = torch.floor(x / cell), torch.floor(y / cell)
        i, j = torch.broadcast_tensors(i, j)
        dx = (x / cell - i - 0.5) * cell - (noise.cell(i, j, 11) - 0.5) * 0.08
        dy = (y / cell - j - 0.5) * cell - (noise.cell(i, j, 12) - 0.5) * 0.08
        bright = (noise.cell(i, j, 13) - 0.45).clamp(min=0) * 1.9 * look.stars
        twinkle = torch.exp(-(dx * dx + dy * dy) / 0.013**2) * bright * smoothstep(0.0, 0.5, up)
        picture.rgb = mix(picture.rgb, ink("fdf6dc", x), twinkle.clamp(0, 1))
    picture.lay(ink(look.sun, x), disc)
    if look.stars:  # a moon has seas
        seas = smoothstep(0.0, 0.35, noise.at(SWELLS, x * 2.3, y * 2.3)) * 0.16
        picture.rgb = picture.rgb * (1 - seas * cover(disc, pixel))
    # Clouds flatten towards the horizon; the side towards the sun is lit.
    cx, cy = x * 0.36 * field(scenery.cloud_scale), (y - horizon) * 0.75 * field(scenery.cloud_scale)
    toward_x = torch.where(sun_x > 0, 0.02, -0.02)
    body = noise.at(BILLOWS, cx, cy)
    lit = (0.5 + 1.7 * (body - noise.at(BILLOWS, cx + toward_x, cy - 0.045))).clamp(0, 1)
    amount = smoothstep(0.02, 0.42, body + field(scenery.overcast)) * look.clouds * smoothstep(0.03, 0.35, up)
    amount = (amount * field(scenery.clouds)).clamp(max=1)
    amount = amount * (1 - 0.9 * torch.exp(-((away / 0.13) ** 4)))  # they part before the sun
    picture.rgb = mix(picture.rgb, mix(tone.cloud[1], tone.cloud[0], lit), amount)
    return picture


def _stand(
    look: Look,
    tone: Tones,
    picture: Picture,
    frames: Frames,
    noise: Noise,
    x: Tensor,
    y: Tensor,
    kind: str,
    near: bool,
    ridge: Callable[[Tensor], Tensor],
) -> None:
    """Set things of a kind on a range, one a cell of the world's x axis.

    ridge: the range's crest, world x to world y.
    """
    scenery, haze, tower = frames.hidden.scenery, tone.sky[2], kind == "tower"
    own = kind == look.standing
    size = look.standing_size[near] if own else (0.25 if near else 0.12)
    cell = (0.21 if near else 0.16) if tower else max(0.26, 0.95 * size)
    salt = 21 if near else 31
    tallness = field(scenery.tall[:, int(near)])
    # Larger things stand farther apart: a pixel looks at the thing of its own cell only.
    apart = field(scenery.spacing) * tallness
    i = torch.floor(x / apart / cell)
    luck, tall, shift = noise.cell(i, salt=salt), noise.cell(i, salt=salt + 1), noise.cell(i, salt=salt + 2)
    centre = (i + 0.5 + (0.0 if tower else 0.3) * (shift - 0.5)) * cell * apart
    height = size * (0.55 + 0.45 * tall) * tallness
    foot = ridge(centre) + 0.012
    absent = luck >= look.standing_share * field(scenery.dense).clamp(min=look.least)
    light = field(frames.sun[:, 0]).sign()
    lit, shaded = (mix(c, haze, 0.12 if near else 0.42) for c in tone.standing)
    if tower:
        x_in, y_in = x - centre, y - foot + height
        distance = torch.maximum(x_in.abs() - cell * apart * (0.38 + 0.11 * shift), (foot - height) - y)
        windows = noise, luck, i, salt
        painted = facade(x_in / (cell * apart), x_in, y_in, distance, lit, shaded, light, picture.pixel, near, windows)
        picture.lay(painted, torch.where(absent, 9.0, distance), 1.3)
        return
    if kind in ("sail", "boulder") and look.standing == "sail":
        foot = field(frames.horizon) + 0.035
    distance, turned = shape(kind, x - centre, y - foot, height)
    mottle = noise.at(BILLOWS, x * 1.1, y * 1.1)
    shade = (0.5 + 0.38 * turned * light + 0.45 * mottle).clamp(0, 1)
    if kind == "house":
        painted = house(x - centre, y - foot, height, luck, shift, shade, light, picture.pixel, bool(look.stars))
        painted = mix(painted, haze, 0.10 if near else 0.40)
    elif kind == "boulder":
        painted = mix(mix(tone.near[0], ink("5f5a58", x), 0.6), mix(tone.near[1], ink("b3aaa2", x), 0.5), shade)
    else:
        painted = mix(shaded, lit, shade)
    picture.lay(painted, torch.where(absent, 9.0, distance), 1.6)


def _hills(
    look: Look, tone: Tones, picture: Picture, frames: Frames, noise: Noise, x: Tensor, y: Tensor, kind: str
) -> None:
    """Two ranges, paler with distance, lit on the slopes that face the sun."""
    horizon, light = field(frames.horizon), field(frames.sun[:, 0]).sign()
    scenery = frames.hidden.scenery
    stretch = field(scenery.stretch)
    for far in (True, False):
        salt, lift, height = (41, 0.02, look.heights[0]) if far else (51, 0.0, look.heights[1])
        factor = field(scenery.heights[:, 0 if far else 1])

        def crest(
            at: Tensor, salt: int = salt, lift: float = lift, height: float = height, factor: Tensor = factor
        ) -> Tensor:
            return horizon - lift - height * _ridge(noise, at, salt, stretch)[0] * factor

        stands = look.standing_size[0 if far else 1] > 0 or kind != look.standing
        profile, slope = _ridge(noise, x, salt, stretch)
        top = horizon - lift - height * profile * factor
        if kind == "tower" and stands:
            _stand(look, tone, picture, frames, noise, x, y, kind, not far, crest)
        crest_colour, foot_colour = tone.far if far else tone.near
        fall = ((y - top) / (0.22 if far else 0.14)).clamp(0, 1)
        relief = noise.at(BILLOWS, x * 0.7 + (0.3 if far else 0.0), y * 1.1)
        facing = (0.5 * slope * light + 0.8 * relief).clamp(-1, 1) * (1 - 0.5 * fall)
        colour = mix(crest_colour, foot_colour, fall) * (1 + (0.10 if far else 0.13) * facing)
        if far and look.cap:
            snowline = (y - top) / 0.16 + relief * 0.9 - 0.5
            colour = mix(colour, tone.cap * (0.92 + 0.10 * facing), smoothstep(0.25, -0.15, snowline))
        steep = torch.rsqrt(1 + (height * slope * factor) ** 2)
        picture.lay(colour, (top - y) * steep, 1.8)
        if kind != "tower" and stands:
            _stand(look, tone, picture, frames, noise, x, y, kind, not far, crest)


def _ground(look: Look, tone: Tones, picture: Picture, frames: Frames, noise: Noise, x: Tensor, y: Tensor) -> None:
    """The plane below the horizon, its texture in perspective."""
    horizon, sun_x = field(frames.horizon), field(frames.sun[:, 0])
    s = (y - horizon).clamp(min=0.0)  # 0 at the horizon, about 0.8 at the feet of the viewer
    z = 1 / (s + 0.16)
    gx, gz = x * z, z * 1.7
    clear = smoothstep(0.02, 0.40, s)  # detail that the distance swallows
    far, close, patch = tone.ground
    patches, ripple, specks = (field(frames.hidden.scenery.ground[:, k]) for k in range(3))
    colour = mix(far, close, smoothstep(0.0, 0.85, s))
    spots = noise.at(BILLOWS, gx * 0.24, gz * 0.34)
    colour = mix(colour, patch, smoothstep(-0.25, 0.4, spots) * look.patches * (0.35 + 0.65 * clear) * patches)
    swell = noise.at(SWELLS, gx * 0.30, gz * 0.5)
    if look.ripple:
        wave = torch.sin(gz * 5.5 + swell * 7.0 + x * 1.5) * (0.25 + 0.75 * clear) * smoothstep(0.0, 0.08, s)
        colour = colour * (1 + look.ripple * wave * (0.65 + 0.5 * spots) * ripple)
    colour = colour * (1 + 0.10 * swell * clear)
    if look.tiles:
        line = torch.minimum((gx - torch.round(gx)).abs(), ((gz * 0.9) - torch.round(gz * 0.9)).abs())
        seam = smoothstep(0.07, 0.02, line) * smoothstep(0.05, 0.35, s)
        colour = colour * (1 - 0.16 * look.tiles * seam)
    if look.specks:
        cell = 0.34
        i, j = torch.floor(gx / cell), torch.floor(gz / cell * 1.3)
        i, j = torch.broadcast_tensors(i, j)
        dx = gx / cell - i - 0.5 - (noise.cell(i, j, 61) - 0.5) * 0.5
        dz = gz / cell * 1.3 - j - 0.5 - (noise.cell(i, j, 62) - 0.5) * 0.4
        dot = smoothstep(0.055, 0.015, dx * dx + dz * dz) * clear
        dot = dot * torch.where(noise.cell(i, j, 63) < 0.5, look.specks, 0.0) * specks
        colour = mix(colour, tone.speck, dot)
    if look.glitter:
        path = torch.exp(-(((x - sun_x) / (0.10 + 0.35 * s)) ** 2)) * look.glitter
        sparkle = smoothstep(0.0, 0.5, noise.at(GRAIN, gx * 0.35, gz * 1.3)) * smoothstep(-0.07, 0.1, s)
        colour = mix(colour, ink(look.sun, x), path * (0.25 + 0.5 * sparkle) * 0.8)
    colour = mix(colour, tone.sky[2], torch.exp(-s / 0.05) * 0.35)
    picture.lay(colour, horizon - y, 2.2)


def background(look: Look, frames: Frames, noise: Noise, x: Tensor, y: Tensor, pixel: Tensor, kind: str) -> Picture:
    """Paint a place for frames that all share its look and the kind of things that stand on its hills."""
    tone = tones(look, frames.hidden.scenery, x.device)
    picture = _sky(look, tone, frames, noise, x, y, pixel)
    _hills(look, tone, picture, frames, noise, x, y, kind)
    _ground(look, tone, picture, frames, noise, x, y)
    return picture
