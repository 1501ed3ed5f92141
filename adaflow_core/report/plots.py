"""A plan over time: its similarity and residual as curves, and a column of pixels of every frame.

A picture is [H, W, 3] uint8 RGB on a light ground; numpy and PIL draw it. Nothing is conveyed by colour alone: lines
differ in their dashes, marks in their shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adaflow_core.config import METHODS
from adaflow_core.report.canvas import (
    BAND,
    CUT,
    INK,
    KEYFRAME,
    MEAN,
    MUTED,
    PAPER,
    RESIDUAL,
    RULE,
    WINDOW,
    Canvas,
    Colour,
    Picture,
)
from adaflow_core.types import Plan

WIDTH = 960  # of the timeline and the time slice, in pixels
# Margins that both share, so that their marks line up.
_LEFT, _RIGHT = 46, 14


@dataclass(frozen=True)
class TimeAxis:
    """T frames from `first` on along the x axis of a picture, each a column of equal width."""

    T: int
    left: float
    width: float
    first: int = 0

    @classmethod
    def of(cls, plan: Plan, width: int, frames: slice | None = None) -> TimeAxis:
        """The axis that `plot_timeline` and `time_slice` share at this picture width; of all frames, or of some."""
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


def plot_timeline(
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
    # Those that a picture of this width can show: of each, a whole page is read from the disk.
    count = min(axis.T, round(axis.width * canvas.scale))
    shown = axis.first + ((np.arange(count) + 0.5) * axis.T / count).astype(int)
    slab = np.ascontiguousarray(plan.video.frames[shown, :, column].transpose(1, 0, 2))  # [H, count, 3]
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
