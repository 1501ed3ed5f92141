"""The object kinds: each a silhouette (signed distance) and a painter, in its own coordinates.

u points right, v down, one unit is the object's radius. Masks are [N, 1, H, W], colours [N, 3, H, W] or
[N, 3, 1, 1]. A painter knows nothing of light: it gives albedo and surface normals.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scenes.drawing.noise import cover, ink, mix, smoothstep

# Albedo of each of COLOURS, well apart in Lab.
TINTS = ("d8201f", "fb8414", "fadb22", "27a844", "2457dc", "8330bd", "fb86bd", "f2f2ee")


@dataclass(frozen=True)
class Paint:
    albedo: Tensor  # [N, 3, H, W]
    nx: Tensor  # [N, 1, H, W] surface normal in the object's coordinates, nx² + ny² <= 1
    ny: Tensor
    gloss: Tensor | float  # strength of the highlight
    contour: Tensor  # [N, 1, H, W] distance to the nearest line that an artist would draw, object units


@dataclass(frozen=True)
class Shape:
    distance: Callable[[Tensor, Tensor], Tensor]
    paint: Callable[[Tensor, Tensor, Tensor, Tensor], Paint]  # u, v, tint [N, 3, h, w], pixel size
    base: float  # height of its centre above the ground
    rolls: bool  # turns as it travels; the others stay upright


def _ellipse(u: Tensor, v: Tensor, cu: float, cv: float, a: float, b: float) -> Tensor:
    """Signed distance to an axis-parallel ellipse, first order at its edge."""
    pu, pv = (u - cu) / a, (v - cv) / b
    near = torch.sqrt(pu * pu + pv * pv + 1e-8)
    return near * (near - 1) / torch.sqrt((pu / a) ** 2 + (pv / b) ** 2 + 1e-8)


def _box(u: Tensor, v: Tensor, cu: float, cv: float, a: float, b: float, round_: float) -> Tensor:
    """Signed distance to a rounded box of half sizes a, b."""
    du, dv = (u - cu).abs() - (a - round_), (v - cv).abs() - (b - round_)
    outside = torch.sqrt(du.clamp(min=0) ** 2 + dv.clamp(min=0) ** 2 + 1e-12)
    return outside + torch.maximum(du, dv).clamp(max=0) - round_


def _join(a: Tensor, b: Tensor, k: float) -> Tensor:
    """Union of two distances with a fillet of about size k."""
    h = (0.5 + 0.5 * (b - a) / k).clamp(0, 1)
    return mix(b, a, h) - k * h * (1 - h)


def _dome(u: Tensor, v: Tensor, cu: float, cv: float, a: float, b: float) -> tuple[Tensor, Tensor]:
    """Normals of an ellipsoid seen from the front."""
    nu, nv = (u - cu) / a, (v - cv) / b
    shrink = torch.rsqrt((nu * nu + nv * nv).clamp(min=1.0))
    return nu * shrink, nv * shrink


def _lines(*distances: Tensor) -> Tensor:
    result = distances[0].abs()
    for distance in distances[1:]:
        result = torch.minimum(result, distance.abs())
    return result


def _darker(tint: Tensor) -> Tensor:
    """A second tone of the same hue: plain scaling would turn yellow olive."""
    return 0.76 * tint**1.2


# ball: six gores and a cap, a beach ball's pattern in two tones


def _ball(u: Tensor, v: Tensor) -> Tensor:
    return torch.sqrt(u * u + v * v + 1e-12) - 1


def _paint_ball(u: Tensor, v: Tensor, tint: Tensor, pixel: Tensor) -> Paint:
    radius = torch.sqrt(u * u + v * v + 1e-12)
    # The pole sits off the centre, so that the gores bend like a ball's.
    pu, pv = u + 0.28, v + 0.30
    reach = torch.sqrt(pu * pu + pv * pv + 1e-12)
    wave = torch.sin(3 * torch.atan2(pv, pu)) * reach / 3  # distance to the nearest seam, near enough
    cap = reach - 0.22
    dark = torch.maximum(cover(wave, pixel), cover(cap, pixel))
    albedo = mix(tint, _darker(tint), dark)
    seam = torch.where(cap > 0, wave, 1.0)
    return Paint(albedo, u, v, 0.55, _lines(radius - 1, seam, cap))


# cube: a toy block seen from its front, top and right


def _cube(u: Tensor, v: Tensor) -> Tensor:
    faces = torch.maximum(u.abs(), v.abs()) - 0.92
    return torch.maximum(faces, ((u + v).abs() - 1.36) * 0.7071)


def _paint_cube(u: Tensor, v: Tensor, tint: Tensor, pixel: Tensor) -> Paint:
    edge = 0.44  # the corner nearest to the eye is at (edge, -edge)
    top = torch.maximum(v + edge, (u + v) * 0.7071)
    right = torch.maximum(edge - u, -(u + v) * 0.7071)
    on_top, on_right = cover(top, pixel), cover(right, pixel)
    panel = _box(u, v, -0.24, 0.24, 0.44, 0.44, 0.10)
    albedo = mix(tint, _darker(tint), cover(panel, pixel) * 0.45)
    bevel = 0.14 * (smoothstep(0.0, 0.14, u - 0.30) - smoothstep(0.0, 0.14, -0.78 - u))
    nx = mix(bevel, 0.95, on_right)
    ny = mix(0.12 * (v - 0.24), -0.92, on_top)
    ny = mix(ny, 0.1, on_right)
    return Paint(albedo, nx, ny, 0.12, _lines(_cube(u, v), top, right, panel))


# star: five points, ten facets


def _fold_star(u: Tensor, v: Tensor, soft: Tensor | float = 1e-3) -> tuple[Tensor, Tensor, Tensor]:
    """Distance to the edge line of the half point that u, v lies in, and that line's normal.

    soft: width over which the normals of neighbouring facets blend.
    """
    fifth = math.tau / 5
    angle = torch.atan2(u, -v)
    turn = torch.round(angle / fifth) * fifth
    radius = torch.sqrt(u * u + v * v + 1e-12)
    p, q = radius * torch.sin((angle - turn).abs()), radius * torch.cos(angle - turn)
    inner, sin36, cos36 = 0.50, math.sin(fifth / 2), math.cos(fifth / 2)
    iu, iv = inner * sin36, inner * cos36
    length = math.hypot(iu, 1 - iv)
    au, av = (1 - iv) / length, iu / length  # normal of the edge from the tip (0, 1) to (iu, iv)
    # The circle cuts the needles off the tips, which no pixel could carry.
    distance = torch.maximum(p * au + (q - 1) * av, radius - 0.95)
    # On a ridge and in a valley the two facets' normals average to the part along that line.
    ridge = (p / soft).clamp(0, 1)
    valley = (1 - (q * sin36 - p * cos36) / soft).clamp(0, 1)
    onto = au * sin36 + av * cos36
    nu = mix(au, onto * sin36, valley) * ridge * torch.where(angle < turn, -1.0, 1.0)
    nv = -mix(av, onto * cos36, valley)
    cos, sin = torch.cos(turn), torch.sin(turn)
    return distance, nu * cos - nv * sin, nu * sin + nv * cos


def _star(u: Tensor, v: Tensor) -> Tensor:
    return _fold_star(u / 1.08, v / 1.08)[0]


def _paint_star(u: Tensor, v: Tensor, tint: Tensor, pixel: Tensor) -> Paint:
    distance, nu, nv = _fold_star(u / 1.08, v / 1.08, pixel)
    ring = distance + 0.13
    albedo = mix(_darker(tint), tint, cover(ring, pixel))
    slope = mix(0.75, 0.5, cover(ring, pixel))
    return Paint(albedo, nu * slope, nv * slope, 0.35, _lines(distance, ring))


# car: body, cabin, two wheels, seen from its right side


def _car_parts(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    body = _box(u, v, 0.0, 0.20, 1.0, 0.27, 0.18)
    cabin = _box(u + 0.35 * (v + 0.1) * (u + 0.10).sign(), v, -0.10, -0.22, 0.60, 0.36, 0.16)
    wheels = torch.sqrt((u.abs() - 0.56) ** 2 + (v - 0.46) ** 2 + 1e-12) - 0.26
    return body, cabin, wheels


def _car(u: Tensor, v: Tensor) -> Tensor:
    body, cabin, wheels = _car_parts(u, v)
    return torch.minimum(_join(body, cabin, 0.08), wheels)


def _paint_car(u: Tensor, v: Tensor, tint: Tensor, pixel: Tensor) -> Paint:
    body, cabin, wheels = _car_parts(u, v)
    glass = torch.maximum(torch.maximum(cabin + 0.11, v + 0.06), 0.05 - (u + 0.06).abs())
    lamp = _ellipse(u, v, 0.88, 0.13, 0.10, 0.11)
    skirt = 0.34 - v
    arch = wheels - 0.06
    albedo = mix(tint, _darker(tint), cover(skirt, pixel))
    on_glass = cover(glass, pixel)
    sheen = smoothstep(-0.1, 0.25, (u * 1.0 - v * 0.6 + 0.1).sin())
    albedo = mix(albedo, mix(ink("4d6a86", u), ink("a9cde6", u), sheen), on_glass)
    albedo = mix(albedo, ink("fff3b8", u), cover(lamp, pixel))
    albedo = mix(albedo, _darker(_darker(tint)), cover(arch, pixel))
    on_wheel = cover(wheels, pixel)
    albedo = mix(albedo, ink("33343c", u), on_wheel)
    albedo = mix(albedo, ink("c9ccd2", u), cover(wheels + 0.14, pixel))
    nx = 0.9 * smoothstep(0.62, 1.0, u) - 0.9 * smoothstep(0.62, 1.0, -u)
    ny = torch.where(cabin < body, (v + 0.16) * 1.8 - 0.1, (v - 0.16) * 2.4).clamp(-0.9, 0.75)
    ny, nx = mix(ny, 0.0, on_wheel), mix(nx, 0.0, on_wheel)
    hull = torch.minimum(_join(body, cabin, 0.08), wheels)
    return Paint(albedo, nx, ny, 0.45 * (1 - on_wheel), _lines(hull, glass, wheels))


# mushroom: a spotted cap on a pale stem


def _mushroom_parts(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    brim = v - 0.10 + 0.10 * u * u
    dome = _ellipse(u, v, 0.0, 0.06, 1.0, 0.98)
    cap = _join(dome, brim, -0.22)
    stem = _box(u / (1 + 0.35 * (v - 0.3) ** 2), v, 0.0, 0.48, 0.31, 0.52, 0.16)
    return cap, stem


def _mushroom(u: Tensor, v: Tensor) -> Tensor:
    return torch.minimum(*_mushroom_parts(u, v))


def _paint_mushroom(u: Tensor, v: Tensor, tint: Tensor, pixel: Tensor) -> Paint:
    cap, stem = _mushroom_parts(u, v)
    spots = _ellipse(u, v, -0.10, -0.46, 0.22, 0.19)
    for cu, cv, a, b in ((0.48, -0.22, 0.17, 0.19), (-0.60, -0.16, 0.14, 0.18), (0.30, -0.72, 0.13, 0.09)):
        spots = torch.minimum(spots, _ellipse(u, v, cu, cv, a, b))
    # Spots are cream, except on a white cap, where they would vanish.
    pale = smoothstep(0.7, 0.9, tint.amin(1, keepdim=True))
    spot = mix(ink("fff6e2", u), ink("b9b2aa", u), pale)
    on_cap = cover(cap, pixel)
    albedo = mix(tint, spot, cover(spots, pixel))
    shade = 0.80 + 0.20 * smoothstep(0.1, 0.5, v)  # under the brim
    albedo = mix(ink("efe0c2", u) * shade, albedo, on_cap)
    nx, ny = _dome(u, v, 0.0, 0.06, 1.05, 1.0)
    nx = mix((u / 0.36).clamp(-1, 1), nx, on_cap)
    ny = mix(0.1, ny, on_cap)
    outline = torch.minimum(cap, stem)
    return Paint(albedo, nx, ny, 0.4 * on_cap, _lines(outline, cap, torch.maximum(spots, cap)))


# balloon: a hot-air balloon with gores, ropes and a basket


def _balloon_parts(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    crown = torch.sqrt(u * u + (v + 0.28) ** 2 + 1e-12) - 0.72
    taper = torch.maximum((u.abs() - 0.185) * 0.84 + (v - 0.50) * 0.54, (v - 0.50))
    skirt = torch.maximum(taper, -(v - 0.0))
    envelope = torch.minimum(crown, torch.maximum(skirt, u.abs() - 0.72))
    basket = _box(u, v, 0.0, 0.86, 0.19, 0.14, 0.05)
    return envelope, basket


def _balloon_ropes(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum((u.abs() - 0.155).abs() - 0.022, (v - 0.63).abs() - 0.17)


def _balloon(u: Tensor, v: Tensor) -> Tensor:
    envelope, basket = _balloon_parts(u, v)
    return torch.minimum(torch.minimum(envelope, basket), _balloon_ropes(u, v))


def _paint_balloon(u: Tensor, v: Tensor, tint: Tensor, pixel: Tensor) -> Paint:
    envelope, basket = _balloon_parts(u, v)
    # Half width of the envelope at this height: gores are its meridians.
    bulb = torch.sqrt((0.5184 - (v + 0.28) ** 2).clamp(min=1e-3))
    half = torch.where(v < 0.08, bulb, (0.62 - 0.95 * (v - 0.08)).clamp(min=0.1))
    around = (u / half).clamp(-0.999, 0.999)
    meridian = torch.asin(around) * (5 / math.pi)
    seam = torch.sin(math.pi * (meridian + 0.5)) * half * 0.2
    on_envelope = cover(envelope, pixel)
    hem = 0.40 - v
    albedo = mix(tint, _darker(tint), cover(seam, pixel))
    albedo = mix(albedo, _darker(_darker(tint)), cover(hem, pixel))
    albedo = mix(ink("7c5a37", u), albedo, on_envelope)
    weave = 0.5 + 0.5 * torch.sin(v * 42)
    albedo = mix(albedo, ink("a77b4a", u), cover(basket, pixel) * weave)
    nx = mix(u * 2.5, around * 0.96, on_envelope)
    ny = mix(torch.zeros_like(v), ((v + 0.28) / 0.85).clamp(-0.9, 0.75), on_envelope)
    length = torch.sqrt(nx * nx + ny * ny).clamp(min=1)
    nx, ny = nx / length, ny / length
    outline = torch.minimum(envelope, basket)
    return Paint(albedo, nx, ny, 0.3 * on_envelope, _lines(outline, torch.maximum(seam.abs(), envelope)))


# rocket: a cigar hull with a nose, a porthole and three fins


def _rocket_parts(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    hull = torch.maximum(_ellipse(u, v, 0.0, 0.10, 0.44, 1.12), v - 0.78)
    side = u.abs()
    fins = torch.maximum(torch.maximum(side - 0.74, 0.10 + 0.65 * side - v), v - 0.66 - 0.38 * side)
    fins = torch.maximum(fins, 0.2 - side)
    nozzle = _box(u, v, 0.0, 0.77, 0.22, 0.16, 0.04)
    return hull, fins, nozzle


def _rocket(u: Tensor, v: Tensor) -> Tensor:
    hull, fins, nozzle = _rocket_parts(u, v)
    return torch.minimum(torch.minimum(hull, fins), nozzle)


def _paint_rocket(u: Tensor, v: Tensor, tint: Tensor, pixel: Tensor) -> Paint:
    hull, fins, nozzle = _rocket_parts(u, v)
    on_hull = cover(hull, pixel)
    nose = v + 0.52
    belt = (v - 0.46).abs() - 0.07
    albedo = mix(ink("55565f", u), _darker(tint), cover(fins, pixel))
    body = mix(tint, ink("eceef2", u) * 0.97, cover(belt, pixel))
    body = mix(body, _darker(tint), cover(nose, pixel))
    albedo = mix(albedo, body, on_hull)
    window = torch.sqrt(u * u + (v + 0.14) ** 2 + 1e-12) - 0.22
    albedo = mix(albedo, ink("dfe3ea", u), cover(window, pixel))
    albedo = mix(albedo, ink("3f6f9c", u), cover(window + 0.07, pixel))
    half = 0.44 * torch.sqrt((1 - ((v - 0.10) / 1.12) ** 2).clamp(min=0.02))
    nx = mix((u * 0.9).clamp(-0.6, 0.6), (u / half).clamp(-1, 1) * 0.95, on_hull)
    ny = mix(torch.zeros_like(v), ((v - 0.1) * 0.25), on_hull)
    outline = torch.minimum(torch.minimum(hull, fins), nozzle)
    inside = torch.maximum(_lines(nose, belt), hull)
    return Paint(albedo, nx, ny, 0.55 * on_hull, _lines(outline, hull, inside, window))


# duck: a rubber duck that looks to the right


def _duck_parts(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    body = _ellipse(u, v, -0.12, 0.38, 0.82, 0.48)
    tail = _ellipse(0.80 * u + 0.60 * v, 0.80 * v - 0.60 * u, -0.72, 0.54, 0.30, 0.17)
    body = _join(body, tail, 0.22)
    head = torch.sqrt((u - 0.38) ** 2 + (v + 0.38) ** 2 + 1e-12) - 0.43
    beak = _ellipse(u, v, 0.86, -0.30, 0.22, 0.12)
    return body, head, beak


def _duck(u: Tensor, v: Tensor) -> Tensor:
    body, head, beak = _duck_parts(u, v)
    return torch.minimum(_join(body, head, 0.20), beak)


def _paint_duck(u: Tensor, v: Tensor, tint: Tensor, pixel: Tensor) -> Paint:
    body, head, beak = _duck_parts(u, v)
    hull = _join(body, head, 0.20)
    wing = _ellipse(0.97 * u - 0.24 * v, 0.97 * v + 0.24 * u, -0.34, 0.24, 0.42, 0.24)
    eye = _ellipse(u, v, 0.50, -0.48, 0.085, 0.105)
    on_beak = cover(torch.maximum(beak, -(head + 0.05)), pixel)
    albedo = mix(tint, _darker(tint), cover(wing, pixel) * 0.75)
    albedo = mix(albedo, ink("f29a1f", u), on_beak)
    albedo = mix(albedo, ink("23222a", u), cover(eye, pixel))
    albedo = mix(albedo, ink("ffffff", u), cover(_ellipse(u, v, 0.52, -0.52, 0.035, 0.04), pixel))
    on_head = smoothstep(-0.12, 0.12, body - head)
    bx, by = _dome(u, v, -0.12, 0.38, 0.92, 0.56)
    hx, hy = _dome(u, v, 0.38, -0.38, 0.46, 0.46)
    nx, ny = mix(mix(bx, hx, on_head), 0.3, on_beak), mix(mix(by, hy, on_head), -0.2, on_beak)
    outline = torch.minimum(hull, beak)
    rim = torch.maximum(beak, -(head + 0.05))
    return Paint(albedo, nx, ny, 0.5, _lines(outline, wing, rim, eye))


SHAPES: dict[str, Shape] = {
    "ball": Shape(_ball, _paint_ball, 0.99, True),
    "cube": Shape(_cube, _paint_cube, 0.91, False),
    "star": Shape(_star, _paint_star, 0.90, True),
    "car": Shape(_car, _paint_car, 0.71, False),
    "mushroom": Shape(_mushroom, _paint_mushroom, 0.98, False),
    "balloon": Shape(_balloon, _paint_balloon, 1.20, False),
    "rocket": Shape(_rocket, _paint_rocket, 0.92, False),
    "duck": Shape(_duck, _paint_duck, 0.84, False),
}
