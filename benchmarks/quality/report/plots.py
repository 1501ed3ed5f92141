"""The plots of the report page, drawn by matplotlib as SVG text to stand in the page."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

# Colour -> its variable in page.css, which has another value for it in dark mode.
VARIABLES = {
    "#2563eb": "--c0", "#ea580c": "--c1", "#059669": "--c2", "#c026d3": "--c3", "#78716c": "--c4",
    "#57534e": "--soft", "#a8a29e": "--faint", "#e7e5e4": "--line", "#ffffff": "--card",
}  # fmt: skip
SERIES = [colour for colour, name in VARIABLES.items() if name.startswith("--c") and name != "--card"]
SOFT, FAINT, LINE, CARD = list(VARIABLES)[len(SERIES) :]
STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "adaflow", "font.family": "sans-serif", "font.size": 12,
    "axes.spines.left": False, "axes.spines.right": False, "axes.spines.top": False, "axes.spines.bottom": False,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": LINE, "axes.labelcolor": SOFT, "axes.titlecolor": SOFT,
    "axes.titlesize": 12, "axes.titlelocation": "left", "axes.titley": 1.02, "axes.facecolor": "none",
    "xtick.major.size": 0, "ytick.major.size": 0, "lines.linewidth": 2.2,
    "lines.markersize": 6, "lines.markeredgecolor": CARD,
}  # fmt: skip


def _axes(width: int, height: int) -> Axes:
    """Axes of a new figure with so many pixels."""
    return Figure(figsize=(width / 72, height / 72), layout="constrained").subplots()


def _svg(axes: Axes, label: str) -> str:
    """The axes' figure as an <svg> element whose colours and fonts are the page's."""
    file = io.StringIO()
    empty = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.savefig(file, format="svg", transparent=True, metadata=empty)
    svg, width = file.getvalue(), 72 * figure.get_figwidth()
    svg = svg[svg.index("<svg") :].replace(
        "<svg ", f'<svg role="img" aria-label="{escape(label)}" style="max-width:{width:.0f}px" ', 1
    )
    svg = re.sub(r'<g id="pair ([^"]*)">', r"<g><title>\1</title>", svg)
    svg = re.sub(r'<g id="', '<g class="', svg)  # several plots stand in one page, where an id must be unique
    svg = re.sub(r"font-family: [^;\"]*;", "", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg


@matplotlib.rc_context(STYLE)
def lines(
    series: Mapping[str, pd.DataFrame], x_label: str, y_label: str, marks: Mapping[str, float] | None = None
) -> str:
    """One line a series with its interval as a band; `marks` are named horizontal lines.

    A series is a table of `mean`, `low` and `high` whose index is x.
    """
    xs = sorted({x for table in series.values() for x in table.index})
    if not xs:
        return ""
    axes = _axes(460, 300)
    for number, table in enumerate(series.values()):
        colour = SERIES[number % len(SERIES)]
        axes.plot(table.index, table["mean"], "o-", color=colour, gid="line")
        axes.fill_between(table.index, table["low"], table["high"], color=colour, alpha=0.13, linewidth=0, gid="band")
    for name, y in (marks or {}).items():
        axes.axhline(y, color=FAINT, linestyle=(0, (3, 3)), linewidth=1)
        axes.text(1, y, name, color=SOFT, ha="right", va="bottom", transform=axes.get_yaxis_transform())
    axes.grid(axis="x", visible=False)
    if len(xs) <= 8:
        axes.set_xticks(xs, [f"{x:g}" for x in xs])
    axes.set(title=y_label, xlabel=x_label)
    return _svg(axes, f"{y_label} over {x_label}")


@matplotlib.rc_context(STYLE)
def intervals(rows: pd.DataFrame, label: str, lower_is_better: bool = False) -> str:
    """One difference with its interval a row: a table of `mean`, `low` and `high` whose index names them.

    Coloured by better and worse where the interval does not hold zero, else grey.
    """
    if rows.empty:
        return ""
    axes = _axes(600, 48 + 24 * len(rows))
    axes.axvline(0, color=FAINT, linewidth=1.5)
    for y, (mean, low, high) in enumerate(rows[["mean", "low", "high"]].itertuples(index=False)):
        sure = low > 0 or high < 0
        colour = SERIES[int((mean < 0) != lower_is_better)] if sure else FAINT
        axes.plot([low, high], [y, y], color=colour, solid_capstyle="round")
        axes.plot([mean], [y], "o", color=colour, markersize=8, gid="dot sure" if sure else "dot unsure")
        half = "" if pd.isna(low) else f" ±{mean - low:.2f}"
        axes.text(1.02, y, f"{mean:+.2f}{half}", va="center", transform=axes.get_yaxis_transform())
    axes.grid(axis="y", visible=False)
    axes.set_yticks(range(len(rows)), rows.index)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(label)
    return _svg(axes, label)


@matplotlib.rc_context(STYLE)
def pair_map(values: Mapping[tuple[int, int], float], rings: Sequence[tuple[int, int] | None], label: str) -> str:
    """A square for each two frames, the darker the higher its value; `rings` are each in a colour of its own."""
    if not values:
        return ""
    frames = sorted({frame for pair in values for frame in pair})
    step = min((b - a for a, b in pairwise(frames)), default=1)
    low, high = min(values.values()), max(values.values())
    axes = _axes(380, 380)
    for (first, second), value in values.items():
        share = (value - low) / ((high - low) or 1.0)
        axes.add_patch(Rectangle(
            (first - step / 2, second - step / 2), step, step, color=SERIES[0], alpha=0.1 + 0.9 * share**2,
            linewidth=0, gid=f"pair {first}, {second}: {value:.1f}",
        ))  # fmt: skip
    for number, pair in enumerate(rings, start=1):
        if pair is not None:
            axes.plot(*pair, "o", markersize=12, fillstyle="none", markeredgewidth=2.4, gid="ring",
                      markeredgecolor=SERIES[number % len(SERIES)])  # fmt: skip
    axes.grid(visible=False)
    limits = (frames[0] - step / 2, frames[-1] + step / 2)
    ticks = frames[:: max(1, len(frames) // 5)]
    axes.set(xlim=limits, ylim=limits, xticks=ticks, yticks=ticks, aspect="equal")
    axes.set(xlabel="first keyframe", ylabel="second keyframe")
    axes.set_title(f"{label}: {low:.1f} (light) to {high:.1f} (dark)")
    return _svg(axes, f"{label} by pair of keyframes")
