"""The places: one landscape of shared fields, seven materials.

Horizon, sun, clouds, two ranges of hills, what stands on them, and the relief of the ground come from the
clip's seed and are the same in every place; a `Look` says what they are made of. Coordinates are world
units; x may be [N, 1, 1, W] and y [N, 1, H, 1], so that what depends on one alone stays cheap.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scenes.drawing.looks import Look
from scenes.drawing.noise import BILLOWS, GRAIN, SWELLS, Noise, cover, ink, mix, smoothstep
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


def _ridge(noise: Noise, x: Tensor, salt: int) -> tuple[Tensor, Tensor]:
    """A hill profile in about 0..1 and its slope, from four waves with the clip's own phases."""
    height, slope = torch.full_like(x, 0.5), torch.zeros_like(x)
    for k, (frequency, amplitude) in enumerate(((1.3, 0.24), (2.9, 0.15), (5.7, 0.07), (11.0, 0.03))):
        zero = torch.zeros_like(field(noise.cells[:, 0]))
        phase = noise.cell(zero, float(k), salt) * math.tau
        stretch = frequency * (0.8 + 0.4 * noise.cell(zero, float(k), salt + 1))
        height = height + amplitude * torch.sin(stretch * x + phase)
        slope = slope + amplitude * stretch * torch.cos(stretch * x + phase)
    return height, slope


def _sky(look: Look, frames: Frames, noise: Noise, x: Tensor, y: Tensor, pixel: Tensor) -> Picture:
    horizon, sun_x, sun_y = field(frames.horizon), field(frames.sun[:, 0]), field(frames.sun[:, 1])
    top, middle, low = (ink(c, x) for c in look.sky)
    up = ((horizon - y) / 1.15).clamp(0, 1)
    rgb = mix(mix(low, middle, smoothstep(0.0, 0.45, up)), top, smoothstep(0.3, 1.0, up))
    away = torch.sqrt((x - sun_x) ** 2 + (y - sun_y) ** 2 + 1e-12)
    disc = away - look.sun_radius
    halo = torch.exp(-away / 0.34) * look.glow_strength + torch.exp(-((away / 0.16) ** 2)) * 0.35
    rgb = mix(rgb, ink(look.glow, x), halo.clamp(0, 1))
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
    cx, cy = x * 0.36, (y - horizon) * 0.75
    toward_x = torch.where(sun_x > 0, 0.02, -0.02)
    body = noise.at(BILLOWS, cx, cy)
    lit = (0.5 + 1.7 * (body - noise.at(BILLOWS, cx + toward_x, cy - 0.045))).clamp(0, 1)
    amount = smoothstep(0.02, 0.42, body) * look.clouds * smoothstep(0.03, 0.35, up)
    amount = amount * (1 - 0.9 * torch.exp(-((away / 0.13) ** 4)))  # they part before the sun
    picture.rgb = mix(picture.rgb, mix(ink(look.cloud[1], x), ink(look.cloud[0], x), lit), amount)
    return picture


def _trees(look: Look, x: Tensor, y: Tensor, height: Tensor) -> tuple[Tensor, Tensor]:
    """One thing of a height, standing at the origin: signed distance, and how far its surface turns right."""
    up = -y
    if look.standing == "round":
        trunk = torch.maximum(x.abs() - 0.045 * height, (up - 0.3 * height).abs() - 0.3 * height)
        a, b = 0.36 * height, 0.40 * height
        near = torch.sqrt((x / a) ** 2 + ((up - 0.62 * height) / b) ** 2 + 1e-8)
        return torch.minimum(trunk, (near - 1) * a), (x / a + (up - 0.62 * height) / b * 0.8).clamp(-1, 1)
    if look.standing == "fir":
        # Three skirts: a saw-toothed cone.
        share = (up / height * 3).clamp(0, 2.999)
        width = height * (0.30 - 0.075 * share.floor() - 0.17 * (share - share.floor()))
        cone = torch.maximum((x.abs() - width) * 0.9, torch.maximum(up - height, 0.06 * height - up))
        trunk = torch.maximum(x.abs() - 0.05 * height, (up - 0.05 * height).abs() - 0.06 * height)
        return torch.minimum(cone, trunk), (2.2 * x / height).clamp(-1, 1)
    if look.standing == "cactus":
        thick = 0.085 * height
        stem = torch.sqrt(x * x + (up - 0.9 * height).clamp(min=0) ** 2 + 1e-12)
        arm_x, arm = x.abs() - 0.26 * height, 0.36 * height + 0.16 * height * (x > 0)
        rise = torch.minimum(torch.maximum(up, arm), arm + 0.24 * height)
        arms = torch.sqrt(arm_x * arm_x + (up - rise) ** 2 + 1e-12)
        reach = torch.maximum(x.abs() - 0.26 * height, (up - arm).abs() - 0.75 * thick)
        whole = torch.minimum(torch.minimum(stem - thick, arms - 0.8 * thick), reach)
        return whole, (x / thick * 0.7).clamp(-1, 1)
    # A sail boat: two sails and a hull.
    main = torch.maximum((x - 0.02 * height) * -1, x * 0.85 + (up - height) * 0.5)
    jib = torch.maximum(x + 0.02 * height, -x * 0.85 + (up - 0.85 * height) * 0.6)
    sails = torch.maximum(torch.minimum(main, jib), 0.2 * height - up)
    hull = torch.maximum((up - 0.08 * height).abs() - 0.07 * height, x.abs() - 0.32 * height - 0.4 * up)
    return torch.minimum(sails, hull), torch.where(x > 0, 0.8, -0.5)


def _stand(
    look: Look,
    picture: Picture,
    frames: Frames,
    noise: Noise,
    x: Tensor,
    y: Tensor,
    size: float,
    ridge: Callable[[Tensor], Tensor],
    haze: Tensor,
) -> None:
    """Set trees, cacti, towers or boats on a range, one a cell of the world's x axis.

    ridge: the range's crest, world x to world y. haze: [N, 3, 1, 1], the colour that distance mixes in.
    """
    near = size == look.standing_size[1]
    tower = look.standing == "tower"
    cell = (0.21 if near else 0.16) if tower else max(0.26, 0.95 * size)
    salt = 21 if near else 31
    i = torch.floor(x / cell)
    luck, tall, shift = noise.cell(i, salt=salt), noise.cell(i, salt=salt + 1), noise.cell(i, salt=salt + 2)
    centre = (i + 0.5 + (0.0 if tower else 0.3) * (shift - 0.5)) * cell
    height = size * (0.55 + 0.45 * tall)
    foot = ridge(centre) + 0.012
    absent = luck >= look.standing_share
    light = field(frames.sun[:, 0]).sign()
    lit, shaded = (mix(ink(c, x), haze, 0.12 if near else 0.42) for c in look.standing_colours)
    if tower:
        dx = x - centre
        distance = torch.maximum(dx.abs() - cell * (0.38 + 0.11 * shift), (foot - height) - y)
        brick = mix(lit, ink("c98f6b", x), 0.62 if near else 0.35)
        cream = mix(lit, ink("efe0c4", x), 0.62 if near else 0.35)
        facade = torch.where(luck < 0.28, brick, torch.where(luck < 0.55, cream, lit))
        facade = mix(facade, shaded, smoothstep(-0.2, 0.6, -dx * light / cell) * 0.5)
        # Windows in rows and columns; four in ten are lit.
        wx, wy = dx / 0.07, (y - foot + height - 0.03) / 0.085
        column, row = torch.floor(wx), torch.floor(wy)
        pane = torch.maximum((wx - column - 0.5).abs() * 0.07 - 0.020, (wy - row - 0.5).abs() * 0.085 - 0.025)
        pane = torch.maximum(pane, distance + 0.02)
        glow = torch.where(noise.cell(column + i * 7, row, salt + 5) < 0.4, 1.0, 0.0)
        glass = mix(shaded * 0.8, ink("ffe2a0", x), glow * 0.8)
        facade = mix(facade, glass, cover(pane, picture.pixel) * (0.85 if near else 0.45))
        picture.lay(facade, torch.where(absent, 9.0, distance), 1.3)
        return
    if look.standing == "sail":
        foot = field(frames.horizon) + 0.035
    distance, turned = _trees(look, x - centre, y - foot, height)
    mottle = noise.at(BILLOWS, x * 1.1, y * 1.1)
    shade = (0.5 + 0.38 * turned * light + 0.45 * mottle).clamp(0, 1)
    picture.lay(mix(shaded, lit, shade), torch.where(absent, 9.0, distance), 1.6)


def _hills(look: Look, picture: Picture, frames: Frames, noise: Noise, x: Tensor, y: Tensor) -> None:
    """Two ranges, paler with distance, lit on the slopes that face the sun."""
    horizon, light = field(frames.horizon), field(frames.sun[:, 0]).sign()
    haze = ink(look.sky[2], x)
    for far in (True, False):
        salt, lift, height = (41, 0.02, look.heights[0]) if far else (51, 0.0, look.heights[1])

        def crest(at: Tensor, salt: int = salt, lift: float = lift, height: float = height) -> Tensor:
            return horizon - lift - height * _ridge(noise, at, salt)[0]

        size = look.standing_size[0 if far else 1]
        profile, slope = _ridge(noise, x, salt)
        top = horizon - lift - height * profile
        if look.standing == "tower" and size:
            _stand(look, picture, frames, noise, x, y, size, crest, haze)
        crest_colour, foot_colour = (ink(c, x) for c in (look.far if far else look.near))
        fall = ((y - top) / (0.22 if far else 0.14)).clamp(0, 1)
        relief = noise.at(BILLOWS, x * 0.7 + (0.3 if far else 0.0), y * 1.1)
        facing = (0.5 * slope * light + 0.8 * relief).clamp(-1, 1) * (1 - 0.5 * fall)
        colour = mix(crest_colour, foot_colour, fall) * (1 + (0.10 if far else 0.13) * facing)
        if far and look.cap:
            snowline = (y - top) / 0.16 + relief * 0.9 - 0.5
            colour = mix(colour, ink(look.cap, x) * (0.92 + 0.10 * facing), smoothstep(0.25, -0.15, snowline))
        steep = torch.rsqrt(1 + (height * slope) ** 2)
        picture.lay(colour, (top - y) * steep, 1.8)
        if look.standing != "tower" and size:
            _stand(look, picture, frames, noise, x, y, size, crest, haze)


def _ground(look: Look, picture: Picture, frames: Frames, noise: Noise, x: Tensor, y: Tensor) -> None:
    """The plane below the horizon, its texture in perspective."""
    horizon, sun_x = field(frames.horizon), field(frames.sun[:, 0])
    s = (y - horizon).clamp(min=0.0)  # 0 at the horizon, about 0.8 at the feet of the viewer
    z = 1 / (s + 0.16)
    gx, gz = x * z, z * 1.7
    clear = smoothstep(0.02, 0.40, s)  # detail that the distance swallows
    far, close, patch = (ink(c, x) for c in look.ground)
    colour = mix(far, close, smoothstep(0.0, 0.85, s))
    spots = noise.at(BILLOWS, gx * 0.24, gz * 0.34)
    colour = mix(colour, patch, smoothstep(-0.25, 0.4, spots) * look.patches * (0.35 + 0.65 * clear))
    swell = noise.at(SWELLS, gx * 0.30, gz * 0.5)
    if look.ripple:
        wave = torch.sin(gz * 5.5 + swell * 7.0 + x * 1.5) * (0.25 + 0.75 * clear) * smoothstep(0.0, 0.08, s)
        colour = colour * (1 + look.ripple * wave * (0.65 + 0.5 * spots))
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
        dot = dot * torch.where(noise.cell(i, j, 63) < 0.5, look.specks, 0.0)
        colour = mix(colour, ink(look.speck, x), dot)
    if look.glitter:
        path = torch.exp(-(((x - sun_x) / (0.10 + 0.35 * s)) ** 2)) * look.glitter
        sparkle = smoothstep(0.0, 0.5, noise.at(GRAIN, gx * 0.35, gz * 1.3)) * smoothstep(-0.07, 0.1, s)
        colour = mix(colour, ink(look.sun, x), path * (0.25 + 0.5 * sparkle) * 0.8)
    haze = ink(look.sky[2], x)
    colour = mix(colour, haze, torch.exp(-s / 0.05) * 0.35)
    picture.lay(colour, horizon - y, 2.2)


def background(look: Look, frames: Frames, noise: Noise, x: Tensor, y: Tensor, pixel: Tensor) -> Picture:
    """Paint a place for frames that all share its look."""
    picture = _sky(look, frames, noise, x, y, pixel)
    _hills(look, picture, frames, noise, x, y)
    _ground(look, picture, frames, noise, x, y)
    return picture
