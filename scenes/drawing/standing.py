"""What stands on the hills: trees, cacti, boats, houses, towers, as silhouettes and paint."""

import torch
from torch import Tensor

from scenes.drawing.noise import Noise, cover, ink, mix, smoothstep

WALLS = ("efe2c8", "f4f1ea", "d9b382", "c98a70")
ROOFS = ("a8442f", "5d636f", "7a5238")


def shape(kind: str, x: Tensor, y: Tensor, height: Tensor) -> tuple[Tensor, Tensor]:
    """One thing of a height, standing at the origin: signed distance, and how far its surface turns right."""
    up = -y
    if kind == "round":
        trunk = torch.maximum(x.abs() - 0.045 * height, (up - 0.3 * height).abs() - 0.3 * height)
        a, b = 0.36 * height, 0.40 * height
        near = torch.sqrt((x / a) ** 2 + ((up - 0.62 * height) / b) ** 2 + 1e-8)
        return torch.minimum(trunk, (near - 1) * a), (x / a + (up - 0.62 * height) / b * 0.8).clamp(-1, 1)
    if kind == "fir":
        # Three skirts: a saw-toothed cone.
        share = (up / height * 3).clamp(0, 2.999)
        width = height * (0.30 - 0.075 * share.floor() - 0.17 * (share - share.floor()))
        cone = torch.maximum((x.abs() - width) * 0.9, torch.maximum(up - height, 0.06 * height - up))
        trunk = torch.maximum(x.abs() - 0.05 * height, (up - 0.05 * height).abs() - 0.06 * height)
        return torch.minimum(cone, trunk), (2.2 * x / height).clamp(-1, 1)
    if kind == "cactus":
        thick = 0.085 * height
        stem = torch.sqrt(x * x + (up - 0.9 * height).clamp(min=0) ** 2 + 1e-12)
        arm_x, arm = x.abs() - 0.26 * height, 0.36 * height + 0.16 * height * (x > 0)
        rise = torch.minimum(torch.maximum(up, arm), arm + 0.24 * height)
        arms = torch.sqrt(arm_x * arm_x + (up - rise) ** 2 + 1e-12)
        reach = torch.maximum(x.abs() - 0.26 * height, (up - arm).abs() - 0.75 * thick)
        whole = torch.minimum(torch.minimum(stem - thick, arms - 0.8 * thick), reach)
        return whole, (x / thick * 0.7).clamp(-1, 1)
    if kind == "poplar":
        trunk = torch.maximum(x.abs() - 0.03 * height, (up - 0.1 * height).abs() - 0.12 * height)
        a, b = 0.16 * height, 0.48 * height
        near = torch.sqrt((x / a) ** 2 + ((up - 0.56 * height) / b) ** 2 + 1e-8)
        return torch.minimum(trunk, (near - 1) * a), (x / a).clamp(-1, 1)
    if kind == "boulder":
        a, b = 0.42 * height, 0.55 * height
        near = torch.sqrt((x / a) ** 2 + (up / b) ** 2 + 0.12 * (x / a) * (up / b) + 1e-8)
        return torch.maximum((near - 1) * a, -up - 0.02), (x / a + up / b * 0.5).clamp(-1, 1)
    if kind == "house":
        walls = torch.maximum(x.abs() - 0.36 * height, (up - 0.25 * height).abs() - 0.30 * height)
        return torch.minimum(walls, roof(x, y, height)), torch.zeros_like(walls)
    # A sail boat: two sails and a hull.
    main = torch.maximum((x - 0.02 * height) * -1, x * 0.85 + (up - height) * 0.5)
    jib = torch.maximum(x + 0.02 * height, -x * 0.85 + (up - 0.85 * height) * 0.6)
    sails = torch.maximum(torch.minimum(main, jib), 0.2 * height - up)
    hull = torch.maximum((up - 0.08 * height).abs() - 0.07 * height, x.abs() - 0.32 * height - 0.4 * up)
    return torch.minimum(sails, hull), torch.where(x > 0, 0.8, -0.5)


def roof(x: Tensor, y: Tensor, height: Tensor) -> Tensor:
    """A gable over the walls of a house, signed distance."""
    return torch.maximum((x.abs() * 0.62 - y - height) * 0.85, 0.50 * height + y)


def house(
    x: Tensor,  # from its middle
    y: Tensor,  # from its foot, down
    height: Tensor,
    luck: Tensor,  # 0..1, which walls
    shift: Tensor,  # 0..1, which roof
    shade: Tensor,  # 0..1, how light
    light: Tensor,  # -1 or +1, the side that the sun is on
    pixel: Tensor,
    night: bool,
) -> Tensor:  # [n, 3, H, W]
    """Walls, a roof, a door and two windows, which are lit at night."""
    walls: Tensor = ink(WALLS[0], x)
    for k, code in enumerate(WALLS[1:], start=1):
        walls = torch.where((luck * 16).floor() % len(WALLS) == k, ink(code, x), walls)
    tiles: Tensor = ink(ROOFS[0], x)
    for k, code in enumerate(ROOFS[1:], start=1):
        tiles = torch.where((shift * 15).floor() % len(ROOFS) == k, ink(code, x), tiles)
    painted = mix(walls, tiles, cover(roof(x, y, height), pixel)) * (0.80 + 0.22 * shade)
    painted = painted * (1 + 0.08 * torch.tanh(x / height * 4) * light)
    if night:
        painted = painted * mix(0.30, ink("5468a8", x), 0.25)
    window = torch.maximum((x.abs() - 0.19 * height).abs() - 0.065 * height, (y + 0.34 * height).abs() - 0.075 * height)
    painted = mix(painted, ink("ffd98a" if night else "51606f", x), cover(window, pixel))
    door = torch.maximum(x.abs() - 0.06 * height, (y + 0.10 * height).abs() - 0.12 * height)
    return mix(painted, ink("4a3526", x) * (0.5 if night else 1.0), cover(door, pixel))


def facade(
    across: Tensor,  # x from the tower's middle, in cells
    x: Tensor,  # the same in world units
    y: Tensor,  # from its top, down
    distance: Tensor,  # signed, to its outline
    lit: Tensor,
    shaded: Tensor,
    light: Tensor,
    pixel: Tensor,
    near: bool,
    windows: tuple[Noise, Tensor, Tensor, int],  # noise, the tower's luck, its cell, the cell's salt
) -> Tensor:  # [n, 3, H, W]
    """A tower's front: brick, cream or its place's own colour, with rows of windows, four in ten of them lit."""
    noise, luck, cell, salt = windows
    brick = mix(lit, ink("c98f6b", x), 0.62 if near else 0.35)
    cream = mix(lit, ink("efe0c4", x), 0.62 if near else 0.35)
    front = torch.where(luck < 0.28, brick, torch.where(luck < 0.55, cream, lit))
    front = mix(front, shaded, smoothstep(-0.2, 0.6, -across * light) * 0.5)
    wx, wy = x / 0.07, (y - 0.03) / 0.085
    column, row = torch.floor(wx), torch.floor(wy)
    pane = torch.maximum((wx - column - 0.5).abs() * 0.07 - 0.020, (wy - row - 0.5).abs() * 0.085 - 0.025)
    pane = torch.maximum(pane, distance + 0.02)
    glow = torch.where(noise.cell(column + cell * 7, row, salt + 5) < 0.4, 1.0, 0.0)
    glass = mix(shaded * 0.8, ink("ffe2a0", x), glow * 0.8)
    return mix(front, glass, cover(pane, pixel) * (0.85 if near else 0.45))
