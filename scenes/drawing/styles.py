"""The styles: functions of the photo-style picture, of drawn lines, and of grain that sticks to its thing.

`anchor` coordinates are what a thing's texture sticks to: world units for the background, an object's own
coordinates times its radius for objects. So a style moves with its thing and never boils.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scenes.drawing.noise import BILLOWS, GRAIN, SWELLS, Noise, constant, ink, mix, smoothstep
from scenes.hidden import Medium

LINE = 0.016  # half width of a drawn line, world units: two pixels of a 256-pixel frame
LUMA = (0.299, 0.587, 0.114)
SPLIT_TONE = (0.28, 0.14, -0.34)  # what light adds to red, green and blue, and shadow takes
WARMTH = (0.07, 0.01, -0.08)  # what a warm stroke adds to red, green and blue


@dataclass(frozen=True)
class Strokes:
    """Brush strokes: where each pixel of a stroke takes its colour from, and the stroke's own tone."""

    dx: Tensor  # [N, 1, H, W] anchor units
    dy: Tensor
    tone: Tensor  # [N, 1, H, W] relative brightness
    warmth: Tensor  # [N, 1, H, W] -1..1, towards red or towards blue


def _luma(rgb: Tensor) -> Tensor:
    return (rgb * constant(LUMA, rgb.device)).sum(1, keepdim=True)


def _stepped(part: Tensor) -> Tensor:
    """From -0.5..0.5 to itself: flat in the middle, steep at the ends, so that strokes have soft borders."""
    return part * (2 * part).abs() ** 2.5


def _row(values: Tensor) -> Tensor:
    """[n] to [n, 1, 1, 1]."""
    return values.view(-1, 1, 1, 1)


def _sheet(medium: Medium, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Where anchor points lie on the clip's own sheet of paper, turned and scaled as its strokes are."""
    slope, scale = _row(medium.slope), _row(medium.scale)
    right, down = _row(medium.shift[:, 0]), _row(medium.shift[:, 1])
    return (x - slope * y) / scale + right, (y + slope * x) / scale + down


def strokes(
    noise: Noise,
    medium: Medium,
    x: Tensor,
    y: Tensor,
    centre: tuple[Tensor, Tensor] | None = None,
    horizon: Tensor | float = 0.0,
    *,
    length: float = 0.21,
    width: float = 0.068,
    pull: float = 0.45,
) -> Strokes:
    """Rows of strokes along a smooth flow; they circle around `centre`, a painted sun above `horizon`.

    pull: how far a stroke takes its colour from its own middle, 0 (not at all) to 1 (wholly).
    """
    scale, slope = _row(medium.scale), _row(medium.slope)
    x, y = x / scale, y / scale
    bend = noise.at(SWELLS, x * 0.42, y * 0.42)
    along, across = x - slope * y + 0.2 * bend, y + slope * x + 0.26 * bend
    steep = torch.rsqrt(1 + slope * slope)
    gx, gy = slope * steep * torch.ones_like(bend), steep * torch.ones_like(bend)  # direction across the strokes
    if centre is not None:
        dx, dy = x - centre[0] / scale, y - centre[1] / scale
        away = torch.sqrt(dx * dx + dy * dy + 1e-8)
        near = torch.exp(-((away / 0.42) ** 4)) * smoothstep(0.12, 0.45, horizon - y)
        along = mix(along, torch.atan2(dx, dy) * 0.30, near)
        across = mix(across, away, near)
        gx, gy = gx * (1 - near) + near * dx / away, gy + near * (dy / away - gy)
        norm = torch.rsqrt(gx * gx + gy * gy + 1e-4)
        gx, gy = gx * norm, gy * norm
    q = across / width + _row(medium.shift[:, 1])
    row = torch.floor(q)
    a = along / length + noise.cell(row, salt=3) + _row(medium.shift[:, 0])
    column = torch.floor(a)
    fa, fq = a - column - 0.5, q - row - 0.5
    luck, other = noise.cell(column, row, 5) - 0.5, noise.cell(column, row, 6) - 0.5
    inside = (torch.cos(math.pi * fq) * torch.cos(math.pi * fa)).clamp(min=0) ** 0.5
    tone = 1 + inside * (0.24 * luck - 0.07 * torch.sin(math.tau * fq)) - 0.05 * (1 - inside)
    shift_a = (_stepped(fa) - fa) * length * pull + 0.04 * pull * inside * other
    shift_q = (_stepped(fq) - fq) * width * pull + 0.04 * pull * inside * luck
    dx, dy = shift_a * gy + shift_q * gx, shift_q * gy - shift_a * gx
    return Strokes(dx * scale, dy * scale, tone, 2 * other * inside)


def impressionist(rgb: Tensor, brush: Strokes, medium: Medium) -> Tensor:
    """Give strokes their tones; `rgb` was painted at the strokes' displaced points."""
    luma = _luma(rgb)
    # A palette of its own: shadows go to Prussian blue, lights to chrome yellow.
    vivid = luma + (rgb - luma) * 1.3 + (luma - 0.5) * constant(SPLIT_TONE, rgb.device) * _row(medium.split)
    # Paint stands out in the dark as well, so a part of the tone is added rather than multiplied.
    lifted = vivid + 0.3 * (brush.tone - 1) * (1 - luma)
    return (lifted * brush.tone * (1 + constant(WARMTH, rgb.device) * brush.warmth)).clamp(0, 1)


def _pencil(rgb: Tensor, contour: Tensor, noise: Noise, medium: Medium, x: Tensor, y: Tensor) -> Tensor:
    paper = ink("f8f5ec", rgb) * medium.sheet[:, :, None, None] * (1 + 0.02 * noise.at(GRAIN, x * 0.8, y * 0.8))
    luma = _luma(rgb)
    # The wash keeps hue and goes light: pencils cannot cover.
    vivid = (luma + (rgb - luma) * 1.3).clamp(0, 1)
    # Short soft strokes along a diagonal, of changing pressure.
    p, q = (x + y) * 0.5, (x - y) * 0.5
    hatch = noise.at(GRAIN, p * 0.5, q * 1.15)
    pressure = (0.56 + 0.30 * (1 - luma) + 0.26 * hatch + _row(medium.load)).clamp(0.2, 0.93)
    drawn = mix(paper, vivid, pressure)
    graphite = smoothstep(LINE * 1.3, LINE * 0.3, contour) * (0.70 + 0.35 * noise.at(BILLOWS, x, y))
    return mix(drawn, ink("403e44", rgb), graphite.clamp(0, 0.9))


def _watercolour(rgb: Tensor, contour: Tensor, noise: Noise, medium: Medium, x: Tensor, y: Tensor) -> Tensor:
    luma = _luma(rgb)
    vivid = (luma + (rgb - luma) * 1.25).clamp(0.03, 1)
    # Pigment is a filter over white paper: more of it is darker and more coloured, less shows the paper.
    pigment = noise.at(BILLOWS, x * 0.5, y * 0.5)
    blooms = noise.at(SWELLS, x * 1.1, y * 1.1)
    load = (0.56 + 0.34 * pigment + 0.30 * blooms + _row(medium.load)).clamp(0.18, 1.1)
    rim = smoothstep(0.042, 0.010, contour)  # where a wash dries, pigment gathers
    return ink("fdfaf3", rgb) * medium.sheet[:, :, None, None] * vivid ** (load + 0.45 * rim) * (1 - 0.06 * rim)


def _comic(rgb: Tensor, contour: Tensor, medium: Medium) -> Tensor:
    luma = _luma(rgb)
    vivid = luma + (rgb - luma) * 1.35
    levels = 4.5 - 5 * _row(medium.load)  # the more pigment, the fewer and larger flat tones
    scaled = luma * levels
    step = scaled - torch.floor(scaled)
    flat = (torch.floor(scaled) + smoothstep(0.36, 0.64, step)) / levels
    flat = 0.15 * luma + 0.85 * (flat * 0.95 + 0.04)
    vivid = (vivid * (flat / luma.clamp(min=0.05))).clamp(0, 1)
    line = smoothstep(LINE * 1.3, LINE * 0.7, contour)
    return mix(vivid, ink("17151d", rgb), line * 0.92)


def stylise(
    style: str, rgb: Tensor, contour: Tensor, noise: Noise, medium: Medium, x: Tensor, y: Tensor
) -> Tensor:  # [n, 3, H, W]
    """rgb: [n, 3, H, W] photo style; contour: [n, 1, H, W] world units; x, y: anchors. All rows in one style.

    Photo needs nothing, and the impressionist style is painted before, through `strokes`. An occluder of a photo has
    always been given the comic's tones and outline; the shipped clips and models know it so.
    """
    contour = contour / _row(medium.weight)
    if style == "pencil":
        return _pencil(rgb, contour, noise, medium, *_sheet(medium, x, y))
    if style == "watercolour":
        return _watercolour(rgb, contour, noise, medium, *_sheet(medium, x, y))
    return _comic(rgb, contour, medium)
