"""Pictures of a plan and of an edit, from plain data: numpy and PIL only.

A picture is [H, W, 3] uint8 RGB on a light ground. Nothing is conveyed by colour alone: dropped tokens are
hatched, lines differ in their dashes, marks in their shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from adaflow_core.config import METHODS
from adaflow_core.report.canvas import (
    BAND,
    CUT,
    INK,
    KEYFRAME,
    MEAN,
    MUTED,
    PAPER,
    PLACE,
    RESIDUAL,
    RULE,
    SAMPLED,
    WINDOW,
    Canvas,
    Colour,
    Picture,
    at_least,
    at_most,
    heat_colours,
    spread,
)
from adaflow_core.types import Grid, Place, Plan

WIDTH = 960  # of the timeline and the time slice, in pixels
# Margins that both share, so that their marks line up.
_LEFT, _RIGHT = 46, 14
_LEGEND = 20  # pixels of a heat map's height: a line and the bar; js/plots.js knows it


def stamp(plan: Plan, frame: int) -> str:
    """When a frame is, and its number, as settings take them: "1.20 s, frame 24".

    Of a range of a file's frames both count from its first; the file's own stand beside them, as in
    "0.20 s (1.20 s), frame 4 (24)".
    """
    number, video = int(frame), plan.video
    in_file = (f" ({video.seconds(number):.2f} s)", f" ({video.start + number})") if video.start else ("", "")
    return f"{video.seconds_in(number):.2f} s{in_file[0]}, frame {number}{in_file[1]}"


def percent(share: float) -> str:
    """A share of 0 to 1; "under 1%" where there is something that would be rounded to "0%"."""
    rounded = f"{share:.0%}"
    return "under 1%" if share > 0 and rounded == "0%" else rounded


def keyframe_strip(plan: Plan, height: int = 120, columns: int = 8) -> Picture:
    """The keyframes in time order, each with its time and the length of its segment under it."""
    width, gap, line = max(96, round(height * plan.video.size[0] / plan.video.size[1])), 8, 14
    caption = 6 + line * (3 if plan.video.start else 2)  # with the file's times a stamp may be wider than a picture
    columns = min(columns, len(plan.segments))
    rows = -(-len(plan.segments) // columns)
    canvas = Canvas(columns * (width + gap) + gap, rows * (height + caption + gap) + gap)
    for k, (frame, length) in enumerate(zip(plan.segments.keyframes, plan.segments.lengths, strict=True)):
        x, y = gap + k % columns * (width + gap), gap + k // columns * (height + caption + gap)
        canvas.fit(plan.video.frames[frame], x, y, width, height)
        when = stamp(plan, frame)
        texts = [*(when.split(", ") if plan.video.start else [when]), f"segment of {length}"]
        for number, text in enumerate(texts):
            colour = MUTED if number == len(texts) - 1 else INK
            canvas.text(x, y + height + 3 + line * number, text, colour, 11)
    return canvas.picture()


def place_overlay(frame: Picture, mask: np.ndarray) -> Picture:
    """`frame` tinted where `mask` [h, w] in 0..1 is, with an outline in two shades, which shows on any ground."""
    height, width = frame.shape[:2]
    soft = Image.fromarray(np.asarray(mask, np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    alpha = np.asarray(soft)
    picture = frame + 0.45 * alpha[..., None] * (np.array(PLACE) - frame)
    inside = alpha >= 0.5
    border = _border(inside)
    picture[border & inside], picture[border & ~inside] = PLACE, PAPER
    return picture.round().astype(np.uint8)


def place_view(plan: Plan, place: Place, side: int = 224) -> list[tuple[Picture, str]]:
    """Up to eight keyframes with the place laid over them; captioned with its share of the frame, and when it is."""
    items, count = [], min(8, len(plan.segments))
    for frame in plan.segments.keyframes[np.linspace(0, len(plan.segments) - 1, count).astype(int)]:
        mask = np.ones((1, 1)) if place.mask is None else place.mask[frame]
        picture = place_overlay(at_least(plan.video.frames[frame], side), mask)
        items.append((picture, f"{percent(mask.mean())} · {stamp(plan, frame)}"))
    return items


def region_view(plan: Plan, weights: np.ndarray, side: int = 224) -> list[tuple[Picture, str]]:
    """Up to eight frames with a region [T, H, W] uint8 laid over them; captioned with its share, and when they are."""
    items = []
    for frame in np.unique(np.linspace(0, len(plan.video) - 1, 8).round().astype(int)):
        mask = weights[frame] / np.float32(255)
        picture = place_overlay(at_least(plan.video.frames[frame], side), mask)
        items.append((picture, f"{percent(mask.mean())} · {stamp(plan, frame)}"))
    return items


def place_sentence(place: Place) -> str:
    """What may change there, in words."""
    if place.mask is None:
        return f"Changes here: the whole picture; {place.why}."
    if place.surroundings:
        what = "surroundings change, the thing stays"
    else:
        part = "" if place.structure in (0, 1) else f" for {percent(place.structure)} of the steps"
        what = f"shape is {'kept' if place.structure else 'free'}{part}"
    return f"Changes here: {percent(place.share)} of the picture; {what}."


def place_strip(plan: Plan, place: Place, columns: int = 4) -> Picture:
    """The pictures of `place_view` in rows, under the sentence on them."""
    items = place_view(plan, place)
    (height, width), gap, caption = items[0][0].shape[:2], 8, 22
    columns = min(columns, len(items))
    rows = -(-len(items) // columns)
    canvas = Canvas(max(columns * (width + gap) + gap, 460), rows * (height + caption + gap) + 32)
    canvas.text(gap, 8, place_sentence(place), INK, 12)
    for k, (picture, text) in enumerate(items):
        x, y = gap + k % columns * (width + gap), 32 + k // columns * (height + caption + gap)
        canvas.paste(picture, x, y, width, height)
        canvas.text(x, y + height + 3, text, INK, 11)
    return canvas.picture()


@dataclass(frozen=True)
class Ground:
    """A frame as kept tokens are drawn over it, whichever these are."""

    frame: Picture
    dropped: Picture  # the same dark, grey and hatched

    @classmethod
    def of(cls, frame: Picture) -> Ground:
        grey = frame.astype(float) @ (0.299, 0.587, 0.114)
        dropped = 0.42 * (0.8 * grey[..., None] + 0.2 * frame)
        rows, columns = np.indices(frame.shape[:2])
        hatch = (rows + columns) % 8 == 0
        dropped[hatch] = 0.6 * dropped[hatch] + 40  # still darker than the frame wherever it is not black
        return cls(frame, dropped.round().astype(np.uint8))

    def with_kept(self, mask: np.ndarray, sampled: np.ndarray | None = None) -> Picture:
        """The picture that `kept_overlay` gives."""
        height, width = self.frame.shape[:2]
        chosen = kept = spread(np.asarray(mask, dtype=bool), height, width)
        picture = np.where(kept[..., None], self.frame, self.dropped)
        if sampled is not None:
            of_sample = spread(np.asarray(sampled, dtype=bool), height, width)
            chosen = kept & ~of_sample
            picture[of_sample] = (0.4 * self.frame[of_sample] + 0.6 * np.array(SAMPLED)).round()
        picture[_border(chosen) & chosen] = PAPER
        return picture


def kept_overlay(frame: Picture, mask: np.ndarray, sampled: np.ndarray | None = None) -> Picture:
    """`frame` with its dropped tokens dark, grey and hatched, an outline around what is kept, and a sample in blue.

    mask: [h, w] bool over the token grid, True where the token is kept. sampled: [h, w] bool, those of them that are
    kept as a sample of the rest; they have no outline.
    """
    return Ground.of(frame).with_kept(mask, sampled)


def _border(inside: np.ndarray) -> np.ndarray:
    """[H, W] bool -> [H, W] bool: the pixels on either side of the edge of what is inside."""
    border = np.zeros_like(inside)
    for edge, first, second in (
        (inside[1:] != inside[:-1], border[1:], border[:-1]),
        (inside[:, 1:] != inside[:, :-1], border[:, 1:], border[:, :-1]),
    ):
        first |= edge
        second |= edge
    return border


def _other_keyframes(plan: Plan, q: int) -> Iterator[tuple[int, str]]:
    """Every keyframe but `q`: its number, and when it is."""
    return ((k, stamp(plan, frame)) for k, frame in enumerate(plan.layout.keyframes) if k != q)


def _keyframe(plan: Plan, k: int, side: int) -> Picture:
    """Keyframe `k`, its shorter side at least `side` pixels."""
    return at_least(plan.video.frames[plan.layout.keyframes[k]], side)


def kept_masks(plan: Plan, q: int, grid: Grid) -> np.ndarray:
    """What keyframe `q` keeps of every keyframe: [K, h, w] bool."""
    slimming = plan.layout.slimming
    if slimming is None:  # it attends within itself only
        mask = np.zeros((len(plan.layout.keyframes), grid.n), dtype=bool)
        mask[q] = True
    else:
        mask = slimming[grid].mask_of(q)
    return mask.reshape(-1, grid.h, grid.w)


def sampled_masks(plan: Plan, q: int, grid: Grid) -> np.ndarray:
    """What keyframe `q` keeps of every keyframe as a sample of the rest: [K, h, w] bool."""
    mask = np.zeros(len(plan.layout.keyframes) * grid.n, dtype=bool)
    if plan.layout.slimming is not None and (count := plan.layout.slimming[grid].num_sampled):
        mask[plan.layout.slimming[grid].kept[q, -count:]] = True
    return mask.reshape(-1, grid.h, grid.w)


def grounds(plan: Plan, side: int = 224, most: float = math.inf) -> Callable[[int], Ground]:
    """The ground of each keyframe by its number, made once; its shorter side has `side` to `most` pixels."""
    return cache(lambda k: Ground.of(at_most(_keyframe(plan, k, side), most)))


def token_view(
    plan: Plan, q: int, grid: Grid, ground: Callable[[int], Ground] | None = None
) -> list[tuple[Picture, str]]:
    """Every keyframe but `q`, with what `q` keeps of it drawn over it, and the share kept as caption.

    `ground`: of `grounds`, where the views of several keyframes are drawn.
    """
    masks, sampled, ground = kept_masks(plan, q, grid), sampled_masks(plan, q, grid), ground or grounds(plan)
    items = []
    for k, time in _other_keyframes(plan, q):
        part = f", {percent(sampled[k].mean())} as a sample" if sampled.any() else ""
        picture = ground(k).with_kept(masks[k], sampled[k])
        items.append((picture, f"{percent(masks[k].mean())} kept{part} · {time}"))
    return items


def score_heatmap(frame: Picture, scores: np.ndarray, low: float | None = None, high: float | None = None) -> Picture:
    """`scores` [h, w] as a heat map over `frame`, with a legend bar under it that has `low` and `high` at its ends.

    The bar is as wide as the picture, so that it reads on a light page and on a dark one.
    """
    low, high = float(scores.min()) if low is None else low, float(scores.max()) if high is None else high
    height, width = frame.shape[:2]
    share = ((scores.astype(float) - low) / max(high - low, 1e-9)).clip(0, 1)
    grey = (frame.astype(float) @ (0.299, 0.587, 0.114))[..., None]
    blend = 0.35 * grey + 0.65 * heat_colours(spread(share, height, width))
    canvas = Canvas(width, height + _LEGEND)
    canvas.paste(blend.round().astype(np.uint8), 0, 0, width, height)
    ramp, middle = heat_colours(np.linspace(0, 1, 256)[None]).astype(np.uint8), height + _LEGEND / 2 + 1
    canvas.paste(ramp, 0, height + 2, width, _LEGEND - 2)
    canvas.text(5, middle, f"{low:.2f}", PAPER, 11, "lm")
    canvas.text(width - 5, middle, f"{high:.2f}", INK, 11, "rm")
    return canvas.picture()


def score_view(plan: Plan, q: int, grid: Grid, side: int = 224) -> list[tuple[Picture, str]]:
    """Every keyframe but `q`, with the score of its tokens for `q` over it; one scale for all of them."""
    if plan.layout.slimming is None or len(plan.layout.keyframes) == 1:
        return []
    scores = plan.layout.slimming[grid].scores[q].astype(np.float32).reshape(-1, grid.h, grid.w)
    # From the second percentile: a few outliers would take most of the scale.
    low, high = map(float, np.percentile(np.delete(scores, q, axis=0), [2, 100]))
    return [
        (score_heatmap(_keyframe(plan, k, side), scores[k], low, high), f"mean score {scores[k].mean():.2f} · {time}")
        for k, time in _other_keyframes(plan, q)
    ]


@dataclass(frozen=True)
class TimeAxis:
    """T frames from `first` on along the x axis of a picture, each a column of equal width."""

    T: int
    left: float
    width: float
    first: int = 0

    @classmethod
    def of(cls, plan: Plan, width: int, frames: slice | None = None) -> TimeAxis:
        """The axis that `timeline` and `time_slice` share at this picture width; of all frames, or of some."""
        first, end, _ = (frames or slice(None)).indices(len(plan.video))
        return cls(end - first, _LEFT, width - _LEFT - _RIGHT, first)

    @property
    def frames(self) -> slice:
        return slice(self.first, self.first + self.T)

    def holds(self, frame: float) -> bool:
        """Whether the left edge of a frame's column lies on it."""
        return self.first <= frame < self.first + self.T

    def edge(self, frame: float) -> float:
        """x of the left edge of a frame's column; the end of the axis for one outside."""
        return self.left + min(max(frame - self.first, 0), self.T) * self.width / self.T

    def centre(self, frame: float) -> float:
        return self.edge(frame + 0.5)

    def frame_at(self, x: float) -> int:
        """The frame in whose column `x` lies; the nearest one outside."""
        return self.first + int(np.clip((x - self.left) * self.T // self.width, 0, self.T - 1))


def timeline(
    plan: Plan,
    width: int = WIDTH,
    height: int = 340,
    *,
    frames: slice | None = None,
    edited: Sequence[float] | None = None,  # [T] the residual of an edit
) -> Picture:
    """Similarity to the keyframe (mean and worst window) and propagation residual over time.

    Thresholds are drawn where they decide, i.e. when neither keyframes nor their number were given, and the method
    chooses them; that of the residual where the refinement adds keyframes. All heights are those of the whole video,
    whichever `frames` are shown.
    """
    canvas, axis = Canvas(width, height), TimeAxis.of(plan, width, frames)
    config = plan.config
    adaptive = METHODS[config.method].spacing == "adaptive"
    decides = adaptive and not config.given_keyframes and config.keyframes is None
    mean_limit, window_limit = (config.similarity, config.window_similarity) if decides else (None, None)
    residual_limit = config.residual if decides and config.refinement == "split" else None

    lowest = min(v for v in (plan.window.min(), plan.similarity.min(), window_limit) if v is not None)
    low = max(-1.0, np.floor(float(lowest) * 10 - 0.5) / 10)
    high = max(1.0, float(plan.similarity.max()))
    worst = max(float(plan.residual.max()), residual_limit or 0.0, max(edited or [0.0]), 1e-3) * 1.1
    upper = _Panel(canvas, axis, 48.0, height - 126.0, low, high)
    lower = _Panel(canvas, axis, height - 92.0, height - 40.0, 0.0, worst)

    for start, end in zip(plan.segments.starts[1::2], plan.segments.ends[1::2], strict=True):
        if axis.edge(start) < axis.edge(end):
            canvas.box(axis.edge(start), upper.top, axis.edge(end), lower.bottom, BAND)
    upper.rules(np.arange(np.ceil(low * 5) / 5, high + 1e-6, 0.2))
    lower.rules([0.0, worst / 1.1])
    _time_ticks(canvas, plan, axis, lower.bottom)
    _marks(canvas, plan, axis, upper.top, lower.bottom)
    upper.limit(mean_limit, MEAN)
    upper.limit(window_limit, WINDOW)
    lower.limit(residual_limit, RESIDUAL)
    upper.curve(plan.window, WINDOW, (5, 3))
    upper.curve(plan.similarity, MEAN)
    lower.curve(plan.residual, RESIDUAL)
    title = "residual of propagation" + _limit_name(residual_limit)
    x = axis.left + canvas.text(axis.left, lower.top - 6, title, RESIDUAL, 11, "lb") + 18
    if edited is not None:
        lower.curve(np.asarray(edited), INK, (5, 3))
        canvas.line([(x, lower.top - 12), (x + 22, lower.top - 12)], INK, 2, (5, 3))
        canvas.text(x + 28, lower.top - 6, "and of the edit", INK, 11, "lb")
    x = axis.left
    for name, limit, colour, dash in (
        ("mean similarity", mean_limit, MEAN, None),
        ("worst window", window_limit, WINDOW, (5.0, 3.0)),
    ):
        canvas.line([(x, 13), (x + 22, 13)], colour, 2, dash)
        x += 28 + canvas.text(x + 28, 13, name + _limit_name(limit), INK, 11, "lm") + 18
    _legend(canvas, x, 13)
    return canvas.picture()


def _limit_name(limit: float | None) -> str:
    return "" if limit is None else f" (threshold {limit:.2f})"


def time_slice(
    plan: Plan, column: int | None = None, width: int = WIDTH, height: int = 220, *, frames: slice | None = None
) -> Picture:
    """One pixel column of every frame, or of some, side by side (y over t), with the marks of the timeline."""
    column = plan.video.size[0] // 2 if column is None else column
    canvas, axis = Canvas(width, height), TimeAxis.of(plan, width, frames)
    top, bottom = 48.0, height - 40.0
    slab = np.ascontiguousarray(plan.video.frames[axis.frames, :, column].transpose(1, 0, 2))  # [H, T, 3]
    canvas.paste(slab, axis.left, top, axis.width, bottom - top)
    canvas.text(axis.left - 6, top, "top", MUTED, 10, "ra")
    canvas.text(axis.left - 6, bottom, "bottom", MUTED, 10, "rb")
    _time_ticks(canvas, plan, axis, bottom)
    _marks(canvas, plan, axis, top, bottom, over_picture=True)
    x = axis.left + canvas.text(axis.left, 13, f"pixel column {column} of every frame", INK, 11, "lm") + 18
    _legend(canvas, x, 13)
    return canvas.picture()


@dataclass(frozen=True)
class _Panel:
    """A part of a picture between `top` and `bottom` in which values from `low` to `high` are drawn over time."""

    canvas: Canvas
    axis: TimeAxis
    top: float
    bottom: float
    low: float
    high: float

    def height(self, value: float) -> float:
        """y of a value."""
        return self.bottom - (value - self.low) / (self.high - self.low) * (self.bottom - self.top)

    def across(self, value: float) -> list[tuple[float, float]]:
        y = self.height(value)
        return [(self.axis.left, y), (self.axis.left + self.axis.width, y)]

    def rules(self, values: Sequence[float] | np.ndarray) -> None:
        """A labelled line at each of the values."""
        for value in map(float, values):
            self.canvas.line(self.across(value), RULE)
            label = f"{value:.1f}" if self.high >= 0.5 else f"{value:.2g}"
            self.canvas.text(self.axis.left - 6, self.height(value), label, MUTED, 10, "rm")

    def limit(self, value: float | None, colour: Colour) -> None:
        if value is not None:
            self.canvas.line(self.across(value), colour, 1, (2, 3))

    def curve(self, values: np.ndarray, colour: Colour, dash: tuple[float, float] | None = None) -> None:
        shown = values[self.axis.frames]
        points = [(self.axis.centre(t), self.height(float(v))) for t, v in enumerate(shown, self.axis.first)]
        self.canvas.line(points if len(points) > 1 else self.across(float(shown[0])), colour, 1.75, dash)


def _marks(canvas: Canvas, plan: Plan, axis: TimeAxis, top: float, bottom: float, over_picture: bool = False) -> None:
    """Segment starts (dashed), shot cuts (solid, double weight) and keyframes (triangle)."""
    cuts = set(plan.segments.cuts.tolist())
    for start in filter(axis.holds, plan.segments.starts[1:].tolist()):
        ends = [(axis.edge(start), top), (axis.edge(start), bottom)]
        if over_picture:
            canvas.line(ends, PAPER, 3)
        if start in cuts:
            canvas.line(ends, CUT, 2)
        else:
            canvas.line(ends, MUTED, 1, (3, 3))
    for frame in filter(axis.holds, plan.segments.keyframes.tolist()):
        x = axis.centre(frame)
        if not over_picture:  # a line would hide the very column that the triangle points at
            canvas.line([(x, top), (x, bottom)], KEYFRAME, 1, (1, 2))
        _triangle(canvas, x, top - 1)


def _triangle(canvas: Canvas, x: float, tip: float) -> None:
    canvas.polygon([(x - 5, tip - 9), (x + 5, tip - 9), (x, tip)], KEYFRAME)


def _legend(canvas: Canvas, x: float, y: float) -> None:
    _triangle(canvas, x + 5, y + 5)
    x += 16 + canvas.text(x + 16, y, "keyframe", INK, 11, "lm") + 18
    canvas.line([(x, y - 6), (x, y + 6)], MUTED, 1, (3, 3))
    x += 6 + canvas.text(x + 6, y, "segment", INK, 11, "lm") + 18
    canvas.line([(x, y - 6), (x, y + 6)], CUT, 2)
    canvas.text(x + 6, y, "shot cut", INK, 11, "lm")


def _time_ticks(canvas: Canvas, plan: Plan, axis: TimeAxis, y: float) -> None:
    """Seconds from the first edited frame on, and the frames they fall into, under a panel that ends at `y`.

    Of several that fall into one frame the first is drawn.
    """
    frames = range(axis.first, axis.first + axis.T + 1)
    times = [plan.video.seconds_in(frame) for frame in frames]
    wanted = (times[-1] - times[0]) / max(2.0, axis.width / 80)  # a label every 80 pixels
    steps = [b * 10.0**e for e in range(-2, 5) for b in (1, 2, 5)]
    step = next((s for s in steps if s >= wanted), steps[-1])
    decimals = max(0, -int(np.floor(np.log10(step))))
    first, named = max(0.0, np.ceil(times[0] / step - 1e-6)), -1
    for second in np.arange(first, times[-1] / step + 1e-6) * step:
        frame = float(np.interp(second, times, frames))
        number = int(frame + 0.01)  # times are rounded
        if number == named:
            continue
        x, named = axis.edge(frame), number
        anchor = "ra" if x > axis.left + axis.width - 16 else "ma"
        canvas.line([(x, y), (x, y + 4)], MUTED)
        canvas.text(x, y + 6, f"{second + 0.0:.{decimals}f} s", INK, 11, anchor)
        canvas.text(x, y + 21, f"frame {number}", MUTED, 10, anchor)


def contact_sheet(pictures: Sequence[Picture] | np.ndarray, columns: int = 8, gap: int = 4) -> Picture:
    """Pictures of one size [h, w, 3] beside each other, in rows of at most `columns`."""
    if not len(pictures):
        return np.full((1, 1, 3), 255, dtype=np.uint8)
    h, w = pictures[0].shape[:2]
    columns = min(len(pictures), columns)
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, 3), 255, dtype=np.uint8)
    for k, picture in enumerate(pictures):
        y, x = k // columns * (h + gap), k % columns * (w + gap)
        sheet[y : y + h, x : x + w] = picture
    return sheet
