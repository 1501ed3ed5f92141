"""The tables of `benchmarks.quality.kinds`, as KINDS.md holds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from benchmarks.intervals import mean_interval
from benchmarks.quality.report.tables import Cell, Line, Table

Row = dict[str, Any]
BOUND, SOURCE = "autoencoded", "copy"
KINDS = ("colour", "object", "background", "style")
DIGITS = {  # by figure
    "psnr": 1, "inside": 1, "nearest": 1, "outside": 1, "band": 1, "temporal": 2, "long_range": 2, "seen": 0,
    "sharpness": 2,
}  # fmt: skip
OF_THE_BOUND = ("temporal", "long_range", "sharpness")  # shown as multiples of the autoencoded truth's values
PAIRED = ("psnr", "outside", "temporal", "long_range", "seen")
RATIOS = ("temporal", "long_range")


def by_kind(rows: list[Row]) -> Table:
    """Return means over clips by kind of edit, and over all clips with 95 % intervals; empty figures are left out."""
    value, names = _reader(rows), _names(rows)
    figures = [figure for figure in DIGITS if any(math.isfinite(row[figure]) for row in rows)]
    lines = []
    for kind in (*KINDS, "all"):
        for name in names:
            some = [row for row in rows if row["name"] == name and kind in ("all", row["kind"])]
            if some and (kind != "all" or len(some) == len({row["clip"] for row in rows})):
                cells = [
                    _mean([value(row, figure) for row in some], figure, interval=kind == "all") for figure in figures
                ]
                lines.append(Line([Cell(kind), Cell(_title(name)), *map(Cell, cells)]))
    return Table(["kind", "what", *(figure.replace("_", "-") for figure in figures)], lines)


def paired(rows: list[Row], own: str) -> Table:
    """Return `own` minus each other way, paired by clip, with 95 % intervals; and ratios of the means."""
    value, lines = _reader(rows), []
    mine = {row["clip"]: row for row in rows if row["name"] == own}
    kinds = [kind for kind in KINDS if any(row["kind"] == kind for row in mine.values())]
    for name in _names(rows):
        pairs = [(mine[row["clip"]], row) for row in rows if row["name"] == name and row["clip"] in mine]
        if name in (own, SOURCE) or len(pairs) < len(mine):
            continue
        cells = [
            _mean([value(a, figure) - value(b, figure) for a, b in pairs], figure, interval=True, paired=True)
            for figure in PAIRED
        ]
        for figure in RATIOS:
            cells.append(f"{_ratio([(value(a, figure), value(b, figure)) for a, b in pairs]):.2f}")
        of_kinds = ([p for p in pairs if p[0]["kind"] == kind] for kind in kinds)
        far = [_ratio([(value(a, "long_range"), value(b, "long_range")) for a, b in some]) for some in of_kinds]
        lines.append(Line([Cell(_title(name)), *map(Cell, cells), Cell(", ".join(f"{x:.2f}" for x in far))]))
    ratios = [f"{figure.replace('_', '-')}, times" for figure in RATIOS]
    head = [f"{own} minus", *(f.replace("_", "-") for f in PAIRED), *ratios, f"long-range, times: {', '.join(kinds)}"]
    return Table(head, lines)


def _names(rows: list[Row]) -> list[str]:
    return [name for name in dict.fromkeys(row["name"] for row in rows) if name != BOUND]


def _title(name: str) -> str:
    return "the source itself" if name == SOURCE else f"`{name}`"


def _reader(rows: list[Row]) -> Callable[[Row, str], float]:
    """Return a function that gives a row's figure on the scale of the tables."""
    bound = {row["clip"]: row for row in rows if row["name"] == BOUND}

    def value(row: Row, figure: str) -> float:
        if figure in OF_THE_BOUND:
            return float(row[figure] / bound[row["clip"]][figure])
        return float(row[figure]) * (100 if figure == "seen" else 1)

    return value


def _mean(values: Iterable[float], figure: str, *, interval: bool, paired: bool = False) -> str:
    """Format the mean as a cell; that of `paired` differences gets a sign, and PSNR two digits."""
    found = mean_interval(values)
    if found["mean"] is None:
        return ""
    digits = 2 if paired and figure == "psnr" else DIGITS[figure]
    half = f" ± {found['high'] - found['mean']:.{digits}f}" if interval and found["high"] is not None else ""
    unit = " %" if figure == "seen" and not paired else ""
    return f"{found['mean']:{'+' if paired else ''}.{digits}f}{half}{unit}"


def _ratio(pairs: list[tuple[float, float]]) -> float:
    """Return the ratio of the means."""
    own, other = np.mean(pairs, axis=0)
    return float(own / other)
