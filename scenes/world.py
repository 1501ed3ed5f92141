"""The drawn world's vocabulary, and clips as rows of numbers.

A `SceneBatch` holds everything that the renderer needs of a clip: what is in it (the attributes that an edit changes)
and where everything is (geometry and motion, which no edit changes). World units: the frame of a resting camera spans
-1..1 in x (right) and y (down), so one unit is half a frame.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scenes.hidden import Hidden, drawn, neutral
from scenes.rows import Rows

KINDS: tuple[str, ...] = ("ball", "cube", "star", "car", "mushroom", "balloon", "rocket", "duck")
COLOURS: tuple[str, ...] = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
BACKGROUNDS: tuple[str, ...] = ("meadow", "desert", "snow", "ocean", "night", "city", "autumn")
STYLES: tuple[str, ...] = ("photo", "pencil", "watercolour", "comic", "impressionist")
MOTIONS: tuple[str, ...] = (
    "still", "drift", "bounce", "turn", "pan", "zoom", "occlusion", "enter", "leave", "uneven", "cut",
)  # fmt: skip
OCCLUDERS: tuple[str, ...] = ("none", "trunk", "post", "rock")
SPLITS: tuple[str, ...] = ("train", "val", "test")

# (kind, colour) and (background, style) pairs that training never shows: a model that draws them has learned the words,
# and not memorised the pictures.
HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    {
        ("ball", "green"),
        ("cube", "pink"),
        ("car", "purple"),
        ("mushroom", "blue"),
        ("duck", "white"),
        ("desert", "watercolour"),
        ("snow", "comic"),
        ("city", "impressionist"),
    }
)

_HIDDEN_STREAM = 1_500_000_007  # hidden variables come from a generator of their own
NO_CUT = 2.0  # a cut time that no clip reaches
_NAMES = {
    "kind": KINDS,
    "kind2": KINDS,
    "colour": COLOURS,
    "colour2": COLOURS,
    "background": BACKGROUNDS,
    "style": STYLES,
    "motion": MOTIONS,
    "occluder": OCCLUDERS,
}


@dataclass(frozen=True)
class SceneBatch(Rows):
    """One row a clip. Fields of shape [B, 2, ...] hold one entry for each shot: before and after the cut.

    A clip without a cut has `cut_time` above 1 and never uses its second shot.
    """

    kind: Tensor  # [B] int64, index into KINDS
    colour: Tensor  # [B] int64
    background: Tensor  # [B] int64
    style: Tensor  # [B] int64
    kind2: Tensor  # [B] int64, the second object's
    colour2: Tensor  # [B] int64
    present2: Tensor  # [B] bool
    motion: Tensor  # [B] int64, what was sampled; the numbers below carry it out
    seed: Tensor  # [B] int64, drives the noise fields
    cut_time: Tensor  # [B] clip time of the scene cut

    horizon: Tensor  # [B, 2] world y
    sun: Tensor  # [B, 2, 2] world (x, y)
    camera: Tensor  # [B, 2, 2] world point in the middle of the frame at half time
    camera_path: Tensor  # [B, 2, 2] what it travels during the clip
    zoom: Tensor  # [B, 2] at half time
    zoom_path: Tensor  # [B, 2] change of log zoom during the clip

    place: Tensor  # [B, 2, 2] world point of the ground under the object, half way through its path
    path: Tensor  # [B, 2, 2] what that point travels
    size: Tensor  # [B, 2] object radius in world units, half way
    growth: Tensor  # [B, 2] change of log radius
    hop: Tensor  # [B, 2] height of its hops
    hops: Tensor  # [B, 2] how many
    turn: Tensor  # [B, 2] rotation in radians, on top of rolling
    tilt: Tensor  # [B, 2] angle at rest, radians
    facing: Tensor  # [B, 2] +1 looks right, -1 looks left
    begin: Tensor  # [B, 2] clip time at which the object starts to move
    lasts: Tensor  # [B, 2] clip time that its motion takes

    place2: Tensor  # [B, 2, 2] the second object, moving evenly
    path2: Tensor  # [B, 2, 2]
    size2: Tensor  # [B, 2]

    occluder: Tensor  # [B] int64, index into OCCLUDERS
    occluder_x: Tensor  # [B, 2] world x
    occluder_width: Tensor  # [B, 2] half width, world units

    hidden: Hidden  # what no caption says; neutral unless the world is ambiguous

    def replace(self, **values: str | int | bool | float | Tensor) -> "SceneBatch":
        """The same clips with attributes changed: a name, a number, or a tensor of one value a row."""
        changed = {}
        for name, value in values.items():
            old = getattr(self, name)
            if isinstance(value, str):
                if value not in _NAMES[name]:
                    raise ValueError(f"{name} is {value!r}, which the world does not know: {_NAMES[name]}")
                value = _NAMES[name].index(value)
            new = torch.as_tensor(value, dtype=old.dtype, device=old.device)
            changed[name] = new.expand_as(old).clone()
        return replace(self, **changed)  # type: ignore[arg-type]  # tensors, of fields that are tensors

    def with_hidden(self, hidden: Hidden) -> "SceneBatch":
        """The same clips with other hidden variables: see `scenes.hidden.redrawn`."""
        return replace(self, hidden=hidden)

    def names(self, attribute: str) -> list[str]:
        """The words of an attribute, a row each: `batch.names("colour")`."""
        return [_NAMES[attribute][i] for i in getattr(self, attribute).tolist()]


def _pairs(
    first: tuple[str, ...], second: tuple[str, ...], held_out: bool, favour: dict[str, float]
) -> tuple[Tensor, Tensor]:
    """All index pairs [P, 2] of two attributes, and their sampling weights [P]."""
    pairs = torch.cartesian_prod(torch.arange(len(first)), torch.arange(len(second)))
    weights = [
        0.0 if held_out and (first[a], second[b]) in HELD_OUT else favour.get(second[b], 1.0) for a, b in pairs.tolist()
    ]
    return pairs, torch.tensor(weights)


def sample(
    count: int,
    *,
    seed: int,
    split: str = "train",
    motion: str | None = None,
    ambiguous: bool = False,
    device: torch.device | str = "cpu",
) -> SceneBatch:
    """`count` random clips, the same for the same arguments.

    split: "train", "val" or "test": disjoint noise seeds (`seed % 3` tells the split) and generators; "train"
        leaves the HELD_OUT pairs out and keeps entering and leaving objects half inside the frame.
    motion: one of MOTIONS; None mixes them.
    ambiguous: draw the hidden variables too; everything else is as it would be without them.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; it must be one of {SPLITS}")
    if motion is not None and motion not in MOTIONS:
        raise ValueError(f"motion is {motion!r}; it must be one of {MOTIONS}")
    code = SPLITS.index(split)
    training = split == "train"
    generator = torch.Generator().manual_seed(3 * seed + code)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    def sign(*shape: int) -> Tensor:
        return torch.where(torch.rand(count, *shape, generator=generator) < 0.5, -1.0, 1.0)

    def draw(pairs: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        picked = pairs[torch.multinomial(weights, count, replacement=True, generator=generator)]
        return picked[:, 0], picked[:, 1]

    things = _pairs(KINDS, COLOURS, training, {})
    kind, colour = draw(*things)
    # The photo style is what every edit starts from: it gets a double share.
    background, style = draw(*_pairs(BACKGROUNDS, STYLES, training, {"photo": 2.0}))
    # The second object differs in kind and colour, or a caption could not tell the two apart.
    pairs, weights = things
    differs = (pairs[None, :, 0] != kind[:, None]) & (pairs[None, :, 1] != colour[:, None])
    second = torch.multinomial(weights * differs, 1, generator=generator)[:, 0] if count else kind
    present2 = uniform(0, 1) < 0.15

    shares = torch.tensor([0.6 if name in ("enter", "leave", "cut") else 1.0 for name in MOTIONS])
    moves = torch.multinomial(shares, count, replacement=True, generator=generator)
    if motion is not None:
        moves = torch.full_like(moves, MOTIONS.index(motion))

    def on(*names: str) -> Tensor:
        return torch.isin(moves, torch.tensor([MOTIONS.index(n) for n in names]))[:, None]  # [B, 1]

    travels = on("drift", "bounce", "pan", "occlusion", "uneven", "cut")
    crosses = on("enter", "leave")
    way = sign(1).expand(count, 2)
    size = uniform(0.34, 0.52, 2)
    size = torch.where(on("bounce"), size * 0.88, size)
    horizon = uniform(-0.08, 0.22, 2)
    ground = uniform(0.52, 0.80, 2)
    hop = torch.where(on("bounce"), uniform(0.3, 0.6, 2), torch.zeros(count, 2))
    # A quarter of the wanderers and of the bursts hops along as well.
    hop = torch.where(on("drift", "uneven") & (uniform(0, 1, 1) < 0.25), uniform(0.1, 0.25, 2), hop)

    reach = torch.where(on("occlusion", "uneven"), uniform(0.75, 1.15, 2), uniform(0.35, 0.85, 2)) * way
    middle = uniform(-0.16, 0.16, 2)
    middle = torch.where(on("still", "turn"), middle * 2.2, middle)
    # Entering: from beyond the border (training: from half inside) to near the middle; leaving: back again.
    outside = way * (1.0 + (0.0 if training else 1.15) * size)
    inside = uniform(-0.3, 0.3, 2)
    start = torch.where(on("enter"), outside, inside)
    end = torch.where(on("enter"), inside, outside)
    reach = torch.where(crosses, end - start, torch.where(travels, reach, 0.0))
    middle = torch.where(crosses, (start + end) / 2, middle)

    # A panning camera follows its object, not quite at the same speed.
    pan = torch.where(on("pan"), reach * uniform(0.6, 1.3, 2) + way * uniform(0.05, 0.3, 2), 0.0)
    zoom_path = torch.where(on("zoom"), uniform(0.3, 0.65, 2) * sign(2), torch.zeros(count, 2))
    zoom = uniform(0.94, 1.14, 2)
    cut = on("cut")
    closer = uniform(1.2, 1.45)
    close_first = uniform(0, 1) < 0.5
    shots = torch.stack([torch.where(close_first, closer, 0.95), torch.where(close_first, 0.95, closer)], 1)
    zoom = torch.where(cut, shots, zoom)

    beside = sign(1).expand(count, 2)
    middle = torch.where(present2[:, None] & ~crosses, middle - 0.22 * beside, middle)
    depth = sign(1).expand(count, 2) * uniform(0.07, 0.14, 2)  # before (below) or behind (above) the first
    place2 = torch.stack([middle + beside * uniform(0.45, 0.62, 2), (ground + depth).clamp(0.45, 0.92)], -1)
    path2 = torch.stack([-beside * uniform(0.0, 0.6, 2) * ~on("still"), torch.zeros(count, 2)], -1)

    blocked = on("occlusion")
    extra = uniform(0, 1, 1) < 0.04  # a few bystanders, so that an occluder does not mean motion
    occluder = torch.randint(1, len(OCCLUDERS), (count,), generator=generator)
    aside = middle + way * (size + uniform(0.15, 0.3, 2))
    noise_seed = torch.randint(0, 2**40, (count,), generator=generator) * len(SPLITS) + code

    batch = SceneBatch(
        kind=kind,
        colour=colour,
        background=background,
        style=style,
        kind2=pairs[second, 0],
        colour2=pairs[second, 1],
        present2=present2,
        motion=moves,
        seed=noise_seed,
        cut_time=torch.where(cut[:, 0], uniform(0.38, 0.62), NO_CUT),
        horizon=horizon,
        sun=torch.stack([uniform(0.25, 0.78, 2) * sign(2), horizon - uniform(0.5, 0.78, 2)], -1),
        camera=torch.stack([uniform(-0.06, 0.06, 2), uniform(-0.05, 0.05, 2)], -1),
        camera_path=torch.stack([pan, torch.zeros(count, 2)], -1),
        zoom=zoom,
        zoom_path=zoom_path,
        place=torch.stack([middle, ground], -1),
        path=torch.stack([reach, torch.where(on("drift"), uniform(-0.12, 0.12, 2), 0.0)], -1),
        size=size,
        growth=torch.where(on("drift"), uniform(-0.25, 0.25, 2), torch.zeros(count, 2)),
        hop=hop,
        hops=torch.randint(2, 5, (count, 2), generator=generator).float(),
        turn=torch.where(on("turn"), uniform(0.5, 1.1, 2) * math.tau * sign(2), torch.zeros(count, 2)),
        tilt=uniform(-0.5, 0.5, 2),
        facing=torch.where(reach == 0, sign(2), reach.sign()),
        begin=torch.where(on("uneven"), uniform(0.35, 0.6, 2), torch.zeros(count, 2)),
        lasts=torch.where(on("uneven"), uniform(0.15, 0.3, 2), torch.ones(count, 2)),
        place2=place2,
        path2=path2,
        size2=uniform(0.22, 0.34, 2),
        occluder=torch.where((blocked | extra)[:, 0], occluder, 0),
        occluder_x=torch.where(blocked, middle + uniform(-0.2, 0.2, 2), aside),
        occluder_width=uniform(0.09, 0.15, 2),
        hidden=drawn(count, 3 * seed + code + _HIDDEN_STREAM) if ambiguous else neutral(count),
    )
    return batch.to(device)


# What an edit changes, by how often training shows it.
_EDIT_SHARES = {"colour": 0.15, "background": 0.35, "style": 0.35, "kind": 0.15}
_UNCHANGED_SHARE, _TWO_CHANGES_SHARE = 0.08, 0.15


def _allowed(first: tuple[str, ...], second: tuple[str, ...]) -> Tensor:
    """[first, second] bool: the pairs that training may show."""
    return torch.tensor([[(a, b) not in HELD_OUT for b in second] for a in first])


def changed(batch: SceneBatch, *, seed: int) -> SceneBatch:
    """Return the same clips, most with one attribute changed to another value, some with two or none.

    For training: a change never creates a HELD_OUT pair in a clip without one, and a clip's two objects stay distinct.
    """
    generator = torch.Generator().manual_seed(seed)
    names = list(_EDIT_SHARES)
    shares = torch.tensor(list(_EDIT_SHARES.values())).expand(len(batch), -1)
    order = torch.multinomial(shares, 2, generator=generator)
    luck = torch.rand(len(batch), generator=generator)
    count = (luck >= _UNCHANGED_SHARE).long() + (luck >= 1 - _TWO_CHANGES_SHARE).long()
    things, places = _allowed(KINDS, COLOURS), _allowed(BACKGROUNDS, STYLES)
    for number, name in enumerate(names):
        old = getattr(batch, name)
        allowed = {
            "colour": things[batch.kind],
            "kind": things[:, batch.colour].T,
            "background": places[:, batch.style].T,
            "style": places[batch.background],
        }[name]
        weights = allowed.float().scatter(1, old[:, None], 0.0)
        if name in ("colour", "kind"):
            other = getattr(batch, name + "2")[:, None]
            weights = torch.where(batch.present2[:, None], weights.scatter(1, other, 0.0), weights)
        new = torch.multinomial(weights, 1, generator=generator)[:, 0]
        picked = ((order == number) & (torch.arange(2) < count[:, None])).any(1)
        batch = batch.replace(**{name: torch.where(picked, new, old)})
    return batch
