"""Colours as one clip has them: a place's palette in its light, an object's paint with its pattern."""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from scenes.drawing.looks import Look
from scenes.drawing.noise import BILLOWS, Noise, hexcolour, mix, smoothstep
from scenes.hidden import PATTERNS, Coat, Scenery

# Degrees by which the hue of each of COLOURS may turn without becoming another colour's.
HUE_WIDTHS = (7.0, 6.0, 5.0, 20.0, 13.0, 11.0, 9.0, 0.0)
EVENING = ("5a5f9e", "d695a8", "f79a5c")  # what a red sky mixes into its top, middle and horizon
EVENING_SHARES = (0.40, 0.60, 0.80)
EVENING_LIGHT = (1.08, 0.95, 0.84)  # factors of red, green and blue on what it shines on


def graded(
    colour: Tensor,  # [n, 3, ...]
    hue: Tensor,  # radians, broadcasts to the colour with one channel
    saturation: Tensor,
    light: Tensor,
) -> Tensor:  # [n, 3, ...]
    """Turn about the grey axis, then scale the distance from grey, then all of it; exact where nothing changes."""
    grey = colour.mean(1, keepdim=True)
    across = (colour.roll(1, 1) - colour.roll(-1, 1)) / math.sqrt(3)  # the axis x the colour
    turned = colour + across * torch.sin(hue) + (grey - colour) * (1 - torch.cos(hue))
    return ((turned + (turned - grey) * (saturation - 1)) * light).clamp(0, 1)


@dataclass(frozen=True)
class Tones:
    """A `Look`'s colours in n frames, [n, 3, 1, 1] each."""

    sky: tuple[Tensor, ...]
    glow: Tensor
    cloud: tuple[Tensor, ...]
    far: tuple[Tensor, ...]
    near: tuple[Tensor, ...]
    standing: tuple[Tensor, ...]
    ground: tuple[Tensor, ...]
    speck: Tensor
    cap: Tensor


# The fields of `Tones`, how many colours each has, and which of `Scenery.hue` turns them (3: none).
_SKY, _GROUND, _STANDING, _NONE = range(4)
_PARTS = (("sky", 3, _SKY), ("glow", 1, _NONE), ("cloud", 2, _NONE), ("far", 2, _GROUND), ("near", 2, _GROUND),
          ("standing", 2, _STANDING), ("ground", 3, _GROUND), ("speck", 1, _NONE), ("cap", 1, _NONE))  # fmt: skip


@cache  # constants sent to a GPU anew would wait for the GPU each time
def _constants(look: Look, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Colours [1, 3, K], the width in radians by which each may turn [K], evening's colours and shares [3, 3]."""
    codes: list[str] = []
    for name, _, _ in _PARTS:
        value = getattr(look, "standing_colours" if name == "standing" else name) or "000000"
        codes += [value] if isinstance(value, str) else value
    widths = (*look.hues, 0.0)
    turns = [math.radians(widths[which]) for _, count, which in _PARTS for _ in range(count)]
    colours = torch.tensor([hexcolour(code) for code in codes], device=device).T[None]
    evening = torch.tensor([hexcolour(code) for code in EVENING], device=device).T[None]
    shares = torch.tensor(EVENING_SHARES, device=device)
    return colours, torch.tensor(turns, device=device), evening, shares


def tones(look: Look, scenery: Scenery, device: torch.device) -> Tones:
    """The place's colours by the hidden variables of n frames."""
    colours, turns, evening, shares = _constants(look, device)
    which = torch.tensor([w for _, count, w in _PARTS for _ in range(count)], device=device)
    hue = torch.cat([scenery.hue, torch.zeros_like(scenery.hue[:, :1])], 1)[:, which] * turns  # [n, K]
    late = scenery.evening[:, None, None]
    lit = 1 + (torch.tensor(EVENING_LIGHT, device=device)[:, None] - 1) * late
    colours = graded(colours, hue[:, None], scenery.saturation[:, None, None], scenery.light[:, None, None] * lit)
    sky = mix(colours[:, :, :3], evening, shares * late * look.dusk)
    values = torch.cat([sky, colours[:, :, 3:]], 2)[..., None, None]
    parts, at = {}, 0
    for name, count, _ in _PARTS:
        chosen = tuple(values[:, :, at + k] for k in range(count))
        parts[name] = chosen[0] if count == 1 else chosen
        at += count
    return Tones(**parts)  # type: ignore[arg-type]  # single colours and tuples of them, as declared


def _edge(distance: Tensor, pixel: Tensor) -> Tensor:
    return smoothstep(-1.0, 1.0, -distance / pixel)


def coat_of(tint: Tensor, coat: Coat, noise: Noise, u: Tensor, v: Tensor, pixel: Tensor) -> Tensor:
    """The tint [n, 3, 1, 1] with its pattern at object coordinates u, v [n, 1, H, W]: [n, 3, H, W].

    noise: fields that the marble takes its veins from; pixel: object units a pixel.
    """

    def row(values: Tensor) -> Tensor:
        return values.view(-1, 1, 1, 1)

    cos, sin, scale = row(torch.cos(coat.angle)), row(torch.sin(coat.angle)), row(coat.scale)
    p = (u * cos + v * sin) / scale + row(coat.shift[:, 0])
    q = (v * cos - u * sin) / scale + row(coat.shift[:, 1])
    soft = pixel / scale * 2
    du, dv = p - torch.round(p), q - torch.round(q)
    veins = noise.at(BILLOWS, p * 0.16, q * 0.16)
    amounts = {
        "plain": torch.zeros_like(p),
        "stripes": _edge(du.abs() - 0.25, soft),
        "dots": _edge(torch.sqrt(du * du + dv * dv + 1e-8) - 0.29, soft),
        # The product of two square waves, from the nearer of their edges.
        "checks": _edge(du.abs() - 0.25, soft) * (1 - 2 * _edge(dv.abs() - 0.25, soft)) + _edge(dv.abs() - 0.25, soft),
        "marble": smoothstep(0.55, 0.95, torch.sin(p * 1.6 + veins * 7.0)),
        "two-tone": _edge((u * cos + v * sin) - 0.25 * row(coat.shift[:, 0]), pixel * 2),
    }
    pattern = row(coat.pattern)
    amount = sum(
        (torch.where(pattern == k, amounts[name], 0.0) for k, name in enumerate(PATTERNS)), torch.zeros_like(p)
    )
    pale = mix(tint, torch.ones_like(tint), 0.68)
    dark = 0.50 * tint**1.25
    # A pale tone does not show on white: there every pattern is drawn in its darker one.
    tone = torch.where(tint.amin(1, keepdim=True) > 0.75, -row(coat.tone).abs(), row(coat.tone))
    other = torch.where(tone > 0, pale, dark)
    return mix(tint, other, amount * tone.abs())
