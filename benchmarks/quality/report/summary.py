"""Turns rows of results into means, paired differences and curves, with 95 % intervals over clips."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.intervals import Interval, mean_interval
from benchmarks.quality.contestants import BOUND

LABELS = ["case", "clip", "contestant", "kind", "group", "long"]
SCORES = [
    "psnr", "psnr_inside", "psnr_outside", "ssim_inside", "temporal", "target", "others", "psnr_near", "keyframes",
    "plan_seconds", "edit_seconds", "peak_memory", "crossing_segments", "crossing_frames",
]  # fmt: skip
SWEEP_LABELS = ["case", "group", "way", "frames"]
SWEEP_SCORES = ["psnr", "psnr_near", "keyframes", "ratio", "asked"]
# The paper's propagation, as a variant of a sweep: its edits depend on where keyframes lie, the default's hardly do.
OUTPUT = "propagation=output"
PAIRS = {"": ("adaptive", "uniform"), ", outputs propagated": (OUTPUT, f"method=uniform,{OUTPUT}")}


def mean_over_clips(values: pd.Series) -> Interval:
    """Mean and interval of values whose first index level names the clip.

    The edits of one clip are averaged first: they are not independent samples.
    """
    finite = values[values.abs() < math.inf]
    clips, _ = pd.factorize(finite.index.get_level_values(0))
    # Sums by NumPy: a report has thousands of these means, and a group-by of pandas takes ten times as long.
    return mean_interval(np.bincount(clips, finite.to_numpy(float)) / np.bincount(clips))


class Contest:
    """The rows of the contest, one for each case and contestant."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table

    @classmethod
    def of(cls, rows: Iterable[dict[str, Any]]) -> Contest:
        """Build the contest from `rows` of the results.

        The temporal error is made relative to that of the autoencoded truth, and counts only if the judge sees the
        edit: otherwise an unchanged video, which flickers least, would be best.
        """
        table = pd.DataFrame(rows, columns=LABELS + SCORES).drop_duplicates(["case", "contestant"], keep="last")
        table = table.astype(dict.fromkeys(SCORES, float))
        bound = table[table["contestant"] == BOUND].set_index("case")["temporal"]
        table["temporal"] = (table["temporal"] / table["case"].map(bound)).where(table["target"] == 1)
        table["seconds"] = table["plan_seconds"] + table["edit_seconds"]
        return cls(table)

    def only(self, **wanted: Any) -> Contest:
        """Keep the rows that have these values in these columns."""
        table = self.table
        for name, value in wanted.items():
            table = table[table[name] == value]
        return Contest(table)

    @cached_property
    def _by_contestant(self) -> pd.DataFrame:
        """A row for each (clip, case), a column for each (score, contestant)."""
        return self.table.pivot(index=["clip", "case"], columns="contestant")

    @property
    def contestants(self) -> set[str]:
        return set(self.table["contestant"])

    @property
    def clips(self) -> int:
        return int(self.table["clip"].nunique())

    @property
    def cases(self) -> int:
        return int(self.table["case"].nunique())

    def scores(self, who: str, score: str) -> pd.Series:
        """A contestant's values by (clip, case); nan where there is none."""
        return self._by_contestant[score].get(who, pd.Series(np.nan, self._by_contestant.index))

    def mean(self, who: str, score: str) -> Interval:
        return mean_over_clips(self.scores(who, score))

    def difference(self, first: str, second: str, score: str) -> Interval:
        """Return first minus second, paired by case, because clips differ more than contestants do."""
        return mean_over_clips(self.scores(first, score) - self.scores(second, score))


@dataclass(frozen=True)
class Summary:
    """All results, ready for tables and plots."""

    meta: dict[str, Any]
    contest: Contest
    prune: pd.DataFrame  # of sweeps: SWEEP_LABELS and SWEEP_SCORES
    keyframes: pd.DataFrame
    pairs: pd.DataFrame
    media: list[dict[str, Any]]

    @classmethod
    def of(cls, data: dict[str, Any]) -> Summary:
        """Build the summary from the data in a run's JSON file."""
        sweeps = {name: sweep_table(data[name]) for name in ("prune", "keyframes", "pairs")}
        return cls(data["meta"], Contest.of(data["contest"]), **sweeps, media=data["media"])

    @cached_property
    def short(self) -> Contest:
        return self.contest.only(long=False)

    @cached_property
    def long(self) -> Contest:
        return self.contest.only(long=True)


# --- sweeps ---------------------------------------------------------------------------------------


def sweep_table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=SWEEP_LABELS + SWEEP_SCORES).astype(dict.fromkeys(SWEEP_SCORES, float))


def curve(rows: pd.DataFrame, x: str, score: str) -> pd.DataFrame:
    """Return mean, low, high and count over clips for every value of the column `x`, which is the index."""
    found = {value: mean_over_clips(part.set_index("case")[score]) for value, part in rows.groupby(x)}
    columns = ["mean", "low", "high", "count"]
    return pd.DataFrame.from_dict(found, orient="index", columns=columns).astype(float).dropna(subset="mean")


def paired_difference(first: pd.DataFrame, second: pd.DataFrame, score: str) -> Interval:
    """Return first minus second of a sweep, paired by case and, if given, by the asked number of keyframes."""
    own, other = (rows.fillna({"asked": 0}).set_index(["case", "asked"])[score] for rows in (first, second))
    return mean_over_clips(own - other)


def keyframes_needed(points: Sequence[tuple[float, float]], level: float) -> float:
    """Return the smallest x at which a curve through points (x, y) reaches `level`; infinity if it never does."""
    before: tuple[float, float] | None = None
    for x, y in points:
        if y >= level:
            if before is None:
                return x
            return before[0] + (x - before[0]) * (level - before[1]) / (y - before[1])
        before = (x, y)
    return math.inf


def uniform_for_adaptive(rows: pd.DataFrame, ways: tuple[str, str] = PAIRS[""]) -> list[tuple[float, float, float]]:
    """Return (keyframes, adaptive's PSNR to the joint edit, keyframes that uniform needs for that PSNR)."""
    adaptive, uniform = (list(curve(rows[rows["way"] == way], "asked", "psnr_near")["mean"].items()) for way in ways)
    return [(x, y, keyframes_needed(uniform, y)) for x, y in adaptive]


def best_by_way(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, by (case, way), the row nearest to the joint edit; the best of all pairs has the way "best".

    Rows whose frames equal those of the joint edit have no finite distance and are left out.
    """
    rows = rows.replace({"way": {"pair": "best"}}).dropna(subset="psnr_near")
    nearest = rows.groupby(["case", "way"], sort=False)["psnr_near"].idxmax()
    return rows.loc[nearest].set_index(["case", "way"])
