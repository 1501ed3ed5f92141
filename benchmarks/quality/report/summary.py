"""From rows to means, paired differences and curves, with 95 % intervals over clips."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.intervals import Bar, mean_interval
from benchmarks.quality.contestants import BOUND

Row = dict[str, Any]
Interval = dict[str, Any]  # mean, low, high, count; as `mean_interval` gives them
NOTHING: Interval = {"mean": None, "low": None, "high": None, "count": 0}


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def over_clips(pairs: Iterable[tuple[str, float]]) -> Interval:
    """Mean and interval of (clip, value) pairs: the edits of one clip are averaged first, they are no new clips."""
    by_clip: dict[str, list[float]] = defaultdict(list)
    for clip, value in pairs:
        if math.isfinite(value):
            by_clip[clip].append(value)
    return mean_interval(float(np.mean(values)) for values in by_clip.values())


class Contest:
    """The rows of the contest by case and contestant; a part of them by `only`."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.cases: dict[str, dict[str, Row]] = defaultdict(dict)
        for row in rows:
            self.cases[row["case"]][row["contestant"]] = row

    def only(self, **wanted: Any) -> Contest:
        rows = (row for case in self.cases.values() for row in case.values())
        return Contest(row for row in rows if all(row[name] == value for name, value in wanted.items()))

    @property
    def contestants(self) -> set[str]:
        return {name for case in self.cases.values() for name in case}

    @property
    def clips(self) -> int:
        return len({row["clip"] for case in self.cases.values() for row in case.values()})

    def value(self, case: str, who: str, score: str) -> float:
        """nan where there is none.

        "temporal" is relative to that of the autoencoded truth, and counts only where the judge sees the edit: a video
        that stays as it is flickers least.
        """
        row = self.cases[case].get(who)
        if row is None:
            return math.nan
        if score == "seconds":
            return _number(row.get("plan_seconds")) + _number(row.get("edit_seconds"))
        if score == "temporal":
            bound = self.cases[case].get(BOUND)
            if bound is None or not row["target"]:
                return math.nan
            return _number(row["temporal"]) / _number(bound["temporal"])
        return _number(row.get(score))

    def mean(self, who: str, score: str) -> Interval:
        return over_clips(
            (rows[who]["clip"], self.value(case, who, score)) for case, rows in self.cases.items() if who in rows
        )

    def difference(self, first: str, second: str, score: str) -> Interval:
        """First less second, paired by case: clips differ more than contestants do."""
        return over_clips(
            (rows[first]["clip"], self.value(case, first, score) - self.value(case, second, score))
            for case, rows in self.cases.items()
            if first in rows and second in rows
        )

    def total(self, who: str, score: str) -> int | None:
        """The sum of a count over the cases that have one."""
        found = [rows[who][score] for rows in self.cases.values() if who in rows and score in rows[who]]
        return sum(found) if found else None


# --- sweeps ---------------------------------------------------------------------------------------


def curve(rows: Sequence[Row], x: str, score: str) -> list[tuple[float, Interval]]:
    """(x, mean over clips) for every x."""
    xs = sorted({row[x] for row in rows})
    return [(v, over_clips((row["case"], _number(row[score])) for row in rows if row[x] == v)) for v in xs]


def paired(rows: Sequence[Row], score: str, first: Callable[[Row], bool], second: Callable[[Row], bool]) -> Interval:
    """First less second of a sweep, paired by case and, where both have one, by the asked number of keyframes."""
    found: dict[tuple[Any, ...], list[float]] = {}
    for number, chosen in enumerate((first, second)):
        for row in filter(chosen, rows):
            found.setdefault((row["case"], row.get("asked")), [math.nan, math.nan])[number] = _number(row[score])
    return over_clips((case, a - b) for (case, _), (a, b) in found.items())


def needed(points: Sequence[tuple[float, float]], level: float) -> float:
    """The smallest x at which a curve through points (x, y) reaches `level`; infinity where it never does."""
    before: tuple[float, float] | None = None
    for x, y in points:
        if y >= level:
            if before is None:
                return x
            return before[0] + (x - before[0]) * (level - before[1]) / (y - before[1])
        before = (x, y)
    return math.inf


# The paper's propagation, as a variant of a sweep: it shows where keyframes lie, which the default's hides.
OUTPUT = "propagation=output"
PAIRS = {"": ("adaptive", "uniform"), ", outputs propagated": (OUTPUT, f"method=uniform,{OUTPUT}")}


def uniform_for_adaptive(rows: Sequence[Row], ways: tuple[str, str] = PAIRS[""]) -> list[tuple[float, float, float]]:
    """(keyframes, adaptive's PSNR to the joint edit, keyframes that uniform needs for it)."""
    adaptive, uniform = (
        [(x, found["mean"]) for x, found in curve([r for r in rows if r["way"] == way], "asked", "psnr_near")]
        for way in ways
    )
    known = [(x, y) for x, y in uniform if y is not None]
    return [(x, y, needed(known, y)) for x, y in adaptive if y is not None]


# --- what must be shown ---------------------------------------------------------------------------


def signed(found: Interval, form: str = "+.2f", unit: str = "") -> str:
    """A difference with its interval in words."""
    if found["mean"] is None:
        return "not run"
    text = f"{found['mean']:{form}}{unit}"
    return text if found["low"] is None else f"{text} ({found['low']:{form}} to {found['high']:{form}})"


def _bar(text: str, found: Interval, passed: Callable[[Interval], bool], unit: str = "", form: str = "+.2f") -> Bar:
    return Bar(text, signed(found, form, unit), found["mean"] is not None and passed(found))


def _above(limit: float) -> Callable[[Interval], bool]:
    return lambda found: found["mean"] >= limit


def _surely_above(found: Interval) -> bool:
    return found["low"] is not None and found["low"] > 0


def slimming_bars(rows: Sequence[Row], ratio: float = 0.8) -> list[Bar]:
    def way(name: str, share: float = ratio) -> Callable[[Row], bool]:
        return lambda row: row["way"] == name and row["ratio"] == share

    if not any(row["ratio"] == ratio for row in rows):
        return []
    at = f"at {ratio:.0%} pruning"
    to_truth = paired(rows, "psnr", way("as planned"), way("as planned", 0.0))
    near = over_clips((row["case"], _number(row["psnr_near"])) for row in filter(way("as planned"), rows))
    bars = [
        _bar(f"{at}, at most 0.3 dB further from the truth than unpruned", to_truth, _above(-0.3), " dB"),
        _bar(f"{at}, at least 35 dB to the unpruned edit", near, _above(35), " dB", ".2f"),
    ]
    for other in ("by score alone", "at random", "nearest frames"):
        for score, to in (("psnr", "the truth"), ("psnr_near", "the unpruned edit")):
            found = paired(rows, score, way("as planned"), way(other))
            bars.append(_bar(f"{at}, as planned is nearer to {to} than {other}", found, _surely_above, " dB"))
    return bars


def keyframe_bars(rows: Sequence[Row]) -> list[Bar]:
    bars = []
    of = {group: [row for row in rows if row["group"] == group] for group in {row["group"] for row in rows}}

    def gain(found: Sequence[Row], first: str, second: str) -> Interval:
        return paired(found, "psnr_near", lambda r: r["way"] == first, lambda r: r["way"] == second)

    for where, (adaptive, uniform) in PAIRS.items():
        if not any(row["way"] == uniform for row in rows):
            continue
        if "uneven motion" in of:
            text, passed = _half_of_uniform(of["uneven motion"], (adaptive, uniform))
            bars.append(Bar(f"uneven motion{where}: uniform needs twice adaptive's keyframes", text, passed))
        for group in ("steady motion", "cuts"):
            if group in of:
                bars.append(
                    _bar(f"{group}{where}: adaptive is no worse than uniform", gain(of[group], adaptive, uniform),
                         lambda f: f["mean"] >= 0 or (f["high"] is not None and f["high"] >= 0), " dB")
                )  # fmt: skip
    changed = {row["way"] for row in rows if row["way"].endswith(f",{OUTPUT}")} - {way for _, way in PAIRS.values()}
    for way in sorted(changed):
        text = f"outputs propagated: nearer to joint than with {way.removesuffix(f',{OUTPUT}')}"
        bars.append(_bar(text, gain(rows, OUTPUT, way), _surely_above, " dB"))
    return bars


def _half_of_uniform(rows: Sequence[Row], ways: tuple[str, str]) -> tuple[str, bool]:
    """How many keyframes uniform needs for adaptive's PSNR, in words, and whether always twice as many."""
    most = max(row["asked"] for row in rows)
    # Beyond half of the most the curve of uniform ends.
    fair = [(k, needs) for k, _, needs in uniform_for_adaptive(rows, ways) if 2 * k <= most]
    told = [f"{f'{needs:.1f}' if math.isfinite(needs) else f'>{most:.0f}'} for {k:.0f}" for k, needs in fair]
    return ", ".join(told) or "not run", bool(fair) and all(needs >= 2 * k for k, needs in fair)


def pairs_by_case(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """Of each clip the best of all pairs of keyframes ("best"), and the rows that it is compared with."""
    found: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if row["psnr_near"] is None:  # the same frames
            continue
        way = "best" if row["way"] == "pair" else row["way"]
        if way not in found[row["case"]] or row["psnr_near"] > found[row["case"]][way]["psnr_near"]:
            found[row["case"]][way] = row
    return found


def pair_bars(rows: Sequence[Row]) -> list[Bar]:
    cases = pairs_by_case(rows)

    def gain(first: str, second: str) -> Interval:
        known = [(case, ways) for case, ways in cases.items() if first in ways and second in ways]
        return over_clips((case, ways[first]["psnr_near"] - ways[second]["psnr_near"]) for case, ways in known)

    lost, reach = gain("adaptive", "best"), gain("best", "4 even")
    if lost["mean"] is None:
        return []
    # Of a run that was cut short the best pair is the best of those it came to.
    tried = sum(row["way"] == "pair" for row in rows) / len(cases)
    best = f"the best of {tried:.0f} pairs"
    return [
        _bar(f"uneven motion: two chosen keyframes are within 0.5 dB of {best}", lost, _above(-0.5), " dB"),
        _bar(f"uneven motion: {best} is as good as four even keyframes", reach, _above(0), " dB"),
    ]


def method_bars(contest: Contest, kinds: Sequence[str]) -> list[Bar]:
    """Of the default against the others, on short clips."""
    bars = []
    for other in ("paper", "paper-adapted", "tokenflow"):
        for kind in kinds:
            part = contest.only(kind=kind)
            psnr, temporal = (part.difference("adaflow", other, score) for score in ("psnr", "temporal"))
            if psnr["mean"] is None:
                continue
            bars.append(_bar(f"{kind}: PSNR beats {other} at equal steps", psnr, lambda f: f["mean"] > 0, " dB"))
            bars.append(_bar(f"{kind}: temporal error is under {other}'s", temporal, lambda f: f["mean"] < 0))
    for other in ("paper-50", "tokenflow-50"):
        for kind in kinds:
            part = contest.only(kind=kind)
            found = {score: part.difference("adaflow", other, score) for score in ("psnr", "temporal", "seconds")}
            if found["psnr"]["mean"] is None:
                continue
            bars.append(_bar(f"{kind}: PSNR beats {other}", found["psnr"], lambda f: f["mean"] > 0, " dB"))
            bars.append(_bar(f"{kind}: temporal error is under {other}'s", found["temporal"], lambda f: f["mean"] < 0))
            bars.append(_bar(f"{kind}: faster than {other}", found["seconds"], lambda f: f["mean"] < 0, " s", "+.1f"))
    joint = contest.difference("adaflow", "joint", "psnr")
    if joint["mean"] is not None:
        bars.append(_bar("within 0.5 dB of joint on short clips", joint, _above(-0.5), " dB"))
    return bars


def part_bars(contest: Contest, contestants: Sequence[dict[str, str]]) -> list[Bar]:
    """Does a part gain outside its interval? PSNR that switching it off costs, or that switching it on brings."""
    bars = []
    for who in contestants:
        off, _, what = who["name"].partition("-")
        if who["name"] not in contest.contestants or not who["group"].startswith("part") or off not in ("no", "with"):
            continue
        better, worse = (who["against"], who["name"]) if off == "no" else (who["name"], who["against"])
        found = contest.difference(better, worse, "psnr")
        if found["mean"] is not None:
            bars.append(_bar(f"{what} gains PSNR", found, _surely_above, " dB"))
    return bars


def cut_bars(contest: Contest) -> list[Bar]:
    segments = contest.total("adaflow", "crossing_segments")
    frames = contest.total("adaflow", "crossing_frames")
    if segments is None or frames is None:
        return []
    value = f"{segments} segments, {frames} frames"
    return [Bar("no segment and no blend crosses a cut", value, segments == 0 and frames == 0)]
