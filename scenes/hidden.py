"""Hidden variables, which no caption names: an object's pattern, a place's layout and light, a style's strokes.

Words leave much open, and a model fills it in. In the *ambiguous* world these variables differ from clip to clip but
are constant within a clip, so that any choice that is kept to a film's end is a true edit. `neutral` gives each of
them the one value that it has in the plain world, whose pictures are drawn as if the variables did not exist.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from scenes.rows import Rows

PATTERNS: tuple[str, ...] = ("plain", "stripes", "dots", "checks", "marble", "two-tone")
PAPER = 7  # the seed of the one sheet of paper that all pictures of the plain world are drawn on
STANDINGS = 4  # how many kinds of things a place may offer to stand on its hills
_SPLITS = 3  # layouts are shifted by multiples of this, which leaves a seed in its split


@dataclass(frozen=True)
class Coat(Rows):
    """How an object is painted."""

    pattern: Tensor  # [N] int64, index into PATTERNS
    scale: Tensor  # [N] the pattern's period, object radii
    angle: Tensor  # [N] radians
    shift: Tensor  # [N, 2] object radii
    tone: Tensor  # [N] -1..1: the pattern's other tone is darker (towards -1) or paler
    hue: Tensor  # [N] -1..1, of the width that the named colour has
    value: Tensor  # [N] factor of brightness
    saturation: Tensor  # [N] factor
    gloss: Tensor  # [N] factor of the highlight


@dataclass(frozen=True)
class Scenery(Rows):
    """How a place is laid out and lit."""

    layout: Tensor  # [N] int64, added to the seed of the noise that hills, clouds and trees come from
    hue: Tensor  # [N, 3] -1..1 of sky, ground and what stands on it, of the widths that a place has
    saturation: Tensor  # [N] factor
    light: Tensor  # [N] factor of brightness
    evening: Tensor  # [N] 0 at noon, 1 with a red sky
    clouds: Tensor  # [N] factor of how opaque they are
    overcast: Tensor  # [N] how much more of the sky they cover
    cloud_scale: Tensor  # [N] factor of their frequency
    heights: Tensor  # [N, 2] factors of the far and the near range's height
    stretch: Tensor  # [N] factor of the hills' frequency
    standing: Tensor  # [N] int64 in 0..STANDINGS-1: which of a place's kinds of things stand on its hills
    tall: Tensor  # [N, 2] factors of their size, far and near
    dense: Tensor  # [N] factor of how many of them there are
    spacing: Tensor  # [N] factor of their distance
    ground: Tensor  # [N, 3] factors of its patches, ripples and specks


@dataclass(frozen=True)
class Medium(Rows):
    """What a style is carried out with: paper, strokes, inks."""

    paper: Tensor  # [N] int64, seed of the paper's grain and of the strokes
    shift: Tensor  # [N, 2] where the sheet lies, in periods of its noise and in strokes
    slope: Tensor  # [N] of the strokes against their usual direction
    scale: Tensor  # [N] factor of the strokes' size
    weight: Tensor  # [N] factor of the width of drawn lines
    load: Tensor  # [N] added to how much pigment there is
    sheet: Tensor  # [N, 3] factors of the paper's red, green and blue
    split: Tensor  # [N] factor of what oil paint does to lights and shadows


@dataclass(frozen=True)
class Hidden(Rows):
    """One row a clip: the same in all of its frames, on both sides of a cut."""

    main: Coat
    second: Coat
    scenery: Scenery
    medium: Medium


def _neutral_coat(count: int) -> Coat:
    zero, one = torch.zeros(count), torch.ones(count)
    return Coat(zero.long(), one, zero, torch.zeros(count, 2), zero, zero, one, one, one)


def neutral(count: int) -> Hidden:
    """The plain world's values: drawing with them gives to the byte what drawing without them would."""
    zero, one, two = torch.zeros(count), torch.ones(count), torch.ones(count, 2)
    scenery = Scenery(
        layout=zero.long(), hue=torch.zeros(count, 3), saturation=one, light=one, evening=zero, clouds=one,
        overcast=zero, cloud_scale=one, heights=two, stretch=one, standing=zero.long(), tall=two, dense=one,
        spacing=one, ground=torch.ones(count, 3),
    )  # fmt: skip
    medium = Medium(
        paper=torch.full((count,), PAPER), shift=torch.zeros(count, 2), slope=zero, scale=one, weight=one, load=zero,
        sheet=torch.ones(count, 3), split=one,
    )  # fmt: skip
    return Hidden(_neutral_coat(count), _neutral_coat(count), scenery, medium)


class _Dice:
    """Random numbers of `count` rows from one generator."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(self.count, *shape, generator=self.generator)

    def factor(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform in its logarithm."""
        return self.uniform(math.log(low), math.log(high), *shape).exp()

    def whole(self, high: int) -> Tensor:
        return torch.randint(high, (self.count,), generator=self.generator)


def _drawn_coat(dice: _Dice) -> Coat:
    side = torch.where(dice.uniform(0, 1) < 0.5, -1.0, 1.0)
    return Coat(
        pattern=dice.whole(len(PATTERNS)),
        scale=dice.factor(0.34, 0.72),
        angle=dice.uniform(0, math.pi),
        shift=dice.uniform(-1, 1, 2),
        tone=side * dice.uniform(0.55, 1.0),
        hue=dice.uniform(-1, 1),
        value=dice.uniform(0.84, 1.10),
        saturation=dice.uniform(0.82, 1.10),
        gloss=dice.factor(0.25, 1.7),
    )


def _drawn_scenery(dice: _Dice) -> Scenery:
    late = dice.uniform(0, 1)
    return Scenery(
        layout=dice.whole(2**30) * _SPLITS,
        hue=dice.uniform(-1, 1, 3),
        saturation=dice.uniform(0.65, 1.2),
        light=dice.uniform(0.84, 1.08),
        evening=torch.where(late < 0.55, 0.0, 1.0) * dice.uniform(0.25, 1.0),
        clouds=dice.uniform(0.1, 1.25),
        overcast=dice.uniform(-0.18, 0.28),
        cloud_scale=dice.factor(0.6, 1.8),
        heights=dice.factor(0.3, 1.5, 2),
        stretch=dice.factor(0.6, 1.6),
        standing=dice.whole(STANDINGS),
        tall=dice.factor(0.7, 1.45, 2),
        dense=dice.uniform(0.25, 1.5),
        spacing=dice.factor(1.0, 1.7),
        ground=torch.cat([dice.uniform(0.2, 1.2, 1), dice.factor(0.4, 1.9, 1), dice.uniform(0.0, 1.05, 1)], 1),
    )


def _drawn_medium(dice: _Dice) -> Medium:
    return Medium(
        paper=PAPER + 1 + dice.whole(2**30),
        shift=dice.uniform(0, 1, 2),
        slope=dice.uniform(-0.8, 0.8),
        scale=dice.factor(0.65, 1.7),
        weight=dice.factor(0.7, 1.6),
        load=dice.uniform(-0.18, 0.2),
        # Warm, cool and grey sheets; never so dark that it would pass for a photo.
        sheet=dice.uniform(0.82, 0.98, 1) * (1 + dice.uniform(-0.07, 0.07, 3)),
        split=dice.uniform(-0.4, 1.8),
    )


def drawn(count: int, seed: int) -> Hidden:
    """The ambiguous world's values for `count` clips, the same for the same seed."""
    dice = _Dice(count, seed)
    return Hidden(_drawn_coat(dice), _drawn_coat(dice), _drawn_scenery(dice), _drawn_medium(dice))


def redrawn(hidden: Hidden, part: Literal["main", "second", "scenery", "medium"], seed: int) -> Hidden:
    """Draw one part of every row again and keep the others: an edit of that part may equally well give this."""
    return replace(hidden, **{part: getattr(drawn(len(hidden), seed), part)})
