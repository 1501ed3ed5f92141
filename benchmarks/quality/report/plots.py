"""Small plots as SVG text: lines with bands, and means with intervals. Colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 30, 46
SERIES = 5  # colours that the style sheet names: .s0 to .s4


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    low: float | None = None
    high: float | None = None


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from low to high, about as many as asked."""
    span = (high - low) or 1.0
    step = 10 ** math.floor(math.log10(span / about))
    step *= min((1, 2, 5, 10), key=lambda m: abs(span / (step * m) - about))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'


def _path(points: Sequence[tuple[float, float]], kind: str, close: bool = False) -> str:
    d = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points) + (" Z" if close else "")
    return f'<path d="{d}" class="{kind}"/>'


def _svg(width: float, height: float, label: str, body: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}" '
        f'style="max-width:{width:.0f}px">{"".join(body)}</svg>'
    )


def lines(series: dict[str, Sequence[Point]], x_label: str, y_label: str, marks: dict[str, float] | None = None) -> str:
    """One line a series with its interval as a band; `marks` are named horizontal lines."""
    points = [p for line in series.values() for p in line]
    if not points:
        return ""
    xs = [p.x for p in points]
    ys = [v for p in points for v in (p.y, p.low, p.high) if v is not None] + list((marks or {}).values())
    x0, x1 = min(xs), max(xs)
    pad = 0.06 * ((max(ys) - min(ys)) or 1.0)
    y0, y1 = min(ys) - pad, max(ys) + pad

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x0) / ((x1 - x0) or 1.0) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM),
        )

    body = []
    for y in ticks(y0, y1):
        _, py = at(x0, y)
        body += [_path([(LEFT, py), (WIDTH - RIGHT, py)], "grid"), _text(LEFT - 7, py + 4, f"{y:g}", "end")]
    for x in sorted(set(xs)) if len(set(xs)) <= 8 else ticks(x0, x1):
        px, _ = at(x, y0)
        body.append(_text(px, HEIGHT - BOTTOM + 18, f"{x:g}"))
    for name, y in (marks or {}).items():
        _, py = at(x0, y)
        body += [_path([(LEFT, py), (WIDTH - RIGHT, py)], "mark"), _text(WIDTH - RIGHT, py - 5, name, "end", "faint")]
    for number, line in enumerate(series.values()):
        colour = f"s{number % SERIES}"
        band = [p for p in line if p.low is not None and p.high is not None]
        if len(band) > 1:
            edge = [at(p.x, p.high) for p in band] + [at(p.x, p.low) for p in reversed(band)]  # type: ignore[arg-type]
            body.append(_path(edge, f"band {colour}", close=True))
    for number, line in enumerate(series.values()):
        colour = f"s{number % SERIES}"
        body.append(_path([at(p.x, p.y) for p in line], f"line {colour}"))
        for p in line:
            px, py = at(p.x, p.y)
            body.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.2" class="dot {colour}"/>')
    body.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, kind="label"))
    body.append(_text(LEFT - 44, 14, y_label, "start", "label"))
    return _svg(WIDTH, HEIGHT, f"{y_label} over {x_label}", body)


def pair_map(values: dict[tuple[int, int], float], marks: Sequence[tuple[int, int] | None], label: str) -> str:
    """A square for each two frames, the darker the higher its value; rings at `marks`, each in a colour of its own."""
    if not values:
        return ""
    frames = sorted({frame for pair in values for frame in pair})
    step = min(b - a for a, b in pairwise(frames)) if len(frames) > 1 else 1
    low, high = min(values.values()), max(values.values())
    side = 300.0
    scale = side / (frames[-1] - frames[0] + step)

    def at(pair: tuple[float, float]) -> tuple[float, float]:
        return LEFT + (pair[0] - frames[0]) * scale, TOP + side - (pair[1] - frames[0]) * scale

    body = []
    for pair, value in values.items():
        x, y = at(pair)
        share = (value - low) / ((high - low) or 1.0)
        body.append(
            f'<rect x="{x:.1f}" y="{y - step * scale:.1f}" width="{step * scale:.1f}" height="{step * scale:.1f}" '
            f'class="s0" style="fill:var(--c)" fill-opacity="{0.1 + 0.9 * share**2:.2f}">'
            f"<title>{pair[0]}, {pair[1]}: {value:.1f}</title></rect>"
        )
    for number, mark in enumerate(marks, start=1):
        if mark is not None:
            x, y = at((mark[0] + step / 2, mark[1] + step / 2))
            body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" class="ring s{number % SERIES}"/>')
    for frame in frames[:: max(1, len(frames) // 5)]:
        x, y = at((frame + step / 2, frame + step / 2))
        body += [_text(x, TOP + side + 18, str(frame)), _text(LEFT - 7, y + 4, str(frame), "end")]
    body.append(_text(LEFT + side / 2, TOP + side + 36, "first keyframe", kind="label"))
    body.append(_text(LEFT - 44, 14, "second keyframe", "start", "label"))
    body.append(_text(LEFT + side, 14, f"{label}: {low:.1f} (light) to {high:.1f} (dark)", "end", "label"))
    return _svg(LEFT + side + RIGHT, TOP + side + BOTTOM, f"{label} by pair of keyframes", body)


def key(names: Sequence[str]) -> str:
    """The legend of `lines`, as HTML."""
    items = (f'<span><i class="swatch s{i % SERIES}"></i>{escape(name)}</span>' for i, name in enumerate(names))
    return f'<p class="key">{"".join(items)}</p>'


def intervals(rows: Sequence[tuple[str, Point]], label: str, lower_is_better: bool = False) -> str:
    """One difference with its interval a row, beside the line of zero; `Point.x` is not used.

    Coloured by better and worse where the interval does not hold zero, else grey.
    """
    if not rows:
        return ""
    left, right, step, top = 160, 100, 24, 8
    width, height = 600.0, top + step * len(rows) + 40.0
    values = [v for _, p in rows for v in (p.y, p.low, p.high) if v is not None] + [0.0]
    pad = 0.05 * ((max(values) - min(values)) or 1.0)
    low, high = min(values) - pad, max(values) + pad
    bottom = top + step * len(rows)

    def at(value: float) -> float:
        return left + (value - low) / (high - low) * (width - left - right)

    body = []
    for value in ticks(low, high, 4):
        body.append(_path([(at(value), top), (at(value), bottom)], "grid"))
        body.append(_text(at(value), bottom + 16, f"{value:g}"))
    body.append(_path([(at(0), top), (at(0), bottom)], "zero"))
    for number, (name, p) in enumerate(rows):
        y = top + step * (number + 0.5)
        sure = p.low is not None and p.high is not None and (p.low > 0 or p.high < 0)
        colour = ("s0" if (p.y < 0) == lower_is_better else "s1") if sure else "unsure"
        body.append(_text(left - 10, y + 4, name, "end"))
        if p.low is not None and p.high is not None:
            body.append(_path([(at(p.low), y), (at(p.high), y)], f"line {colour}"))
        body.append(f'<circle cx="{at(p.y):.1f}" cy="{y:.1f}" r="4" class="dot {colour}"/>')
        spread = "" if p.low is None else f" ±{p.y - p.low:.2f}"
        body.append(_text(width - right + 8, y + 4, f"{p.y:+.2f}{spread}", "start"))
    body.append(_text((left + width - right) / 2, bottom + 34, label, kind="label"))
    return _svg(width, height, label, body)
