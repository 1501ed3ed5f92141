"""The criteria that the results are checked against, each with its measured value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pandas as pd

from benchmarks.intervals import Criterion, Interval
from benchmarks.quality.contestants import DEFAULT, JOINT
from benchmarks.quality.report.summary import (
    OUTPUT,
    PAIRS,
    Contest,
    Summary,
    best_by_way,
    mean_over_clips,
    paired_difference,
    uniform_for_adaptive,
)


def all_criteria(summary: Summary) -> dict[str, list[Criterion]]:
    """The criteria by topic; topics that were not run are left out."""
    short = summary.short
    found = {
        "Slimming": slimming_criteria(summary.prune),
        "Keyframes": [
            *keyframe_criteria(summary.keyframes), *pair_criteria(summary.pairs), *cut_criteria(short),
        ],
        "The default against the others": method_criteria(short, sorted(set(summary.contest.table["kind"]))),
        "What each part gains": part_criteria(short, summary.meta["contestants"]),
    }  # fmt: skip
    return {topic: criteria for topic, criteria in found.items() if criteria}


def format_difference(found: Interval, form: str = "+.2f", unit: str = "") -> str:
    """A difference with its interval in words."""
    if found["mean"] is None:
        return "not run"
    text = f"{found['mean']:{form}}{unit}"
    return text if found["low"] is None else f"{text} ({found['low']:{form}} to {found['high']:{form}})"


def _check(
    text: str, found: Interval, passes: Callable[[Interval], bool], unit: str = "", form: str = "+.2f"
) -> Criterion:
    return Criterion(text, format_difference(found, form, unit), found["mean"] is not None and passes(found))


def _at_least(limit: float) -> Callable[[Interval], bool]:
    return lambda found: found["mean"] >= limit


def _positive(found: Interval) -> bool:
    return found["mean"] > 0


def _negative(found: Interval) -> bool:
    return found["mean"] < 0


def _surely_positive(found: Interval) -> bool:
    """Return whether the whole interval is above 0."""
    return found["low"] is not None and found["low"] > 0


def _not_surely_negative(found: Interval) -> bool:
    return found["mean"] >= 0 or (found["high"] is not None and found["high"] >= 0)


# --- sweeps ---------------------------------------------------------------------------------------


def slimming_criteria(rows: pd.DataFrame, ratio: float = 0.8) -> list[Criterion]:
    ways = dict(list(rows[rows["ratio"] == ratio].groupby("way")))
    if not ways:
        return []
    at, own = f"at {ratio:.0%} pruning", ways["as planned"]
    to_truth = paired_difference(own, rows[rows["ratio"] == 0], "psnr")
    near = mean_over_clips(own.set_index("case")["psnr_near"])
    criteria = [
        _check(f"{at}, at most 0.3 dB further from the truth than unpruned", to_truth, _at_least(-0.3), " dB"),
        _check(f"{at}, at least 35 dB to the unpruned edit", near, _at_least(35), " dB", ".2f"),
    ]
    for other in ("by score alone", "at random", "nearest frames"):
        for score, to in (("psnr", "the truth"), ("psnr_near", "the unpruned edit")):
            found = paired_difference(own, ways.get(other, rows[:0]), score)
            text = f"{at}, as planned is nearer to {to} than {other}"
            criteria.append(_check(text, found, _surely_positive, " dB"))
    return criteria


def keyframe_criteria(rows: pd.DataFrame) -> list[Criterion]:
    def gain(rows: pd.DataFrame, first: str, second: str) -> Interval:
        return paired_difference(rows[rows["way"] == first], rows[rows["way"] == second], "psnr_near")

    criteria = []
    groups = dict(list(rows.groupby("group")))
    for where, (adaptive, uniform) in PAIRS.items():
        if not (rows["way"] == uniform).any():
            continue
        if "uneven motion" in groups:
            text, passed = _half_of_uniform(groups["uneven motion"], (adaptive, uniform))
            criteria.append(Criterion(f"uneven motion{where}: uniform needs twice adaptive's keyframes", text, passed))
        for group in ("steady motion", "cuts"):
            if group in groups:
                found = gain(groups[group], adaptive, uniform)
                text = f"{group}{where}: adaptive is no worse than uniform"
                criteria.append(_check(text, found, _not_surely_negative, " dB"))
    changed = {way for way in rows["way"] if way.endswith(f",{OUTPUT}")} - {way for _, way in PAIRS.values()}
    for way in sorted(changed):
        text = f"outputs propagated: nearer to joint than with {way.removesuffix(f',{OUTPUT}')}"
        criteria.append(_check(text, gain(rows, OUTPUT, way), _surely_positive, " dB"))
    return criteria


def _half_of_uniform(rows: pd.DataFrame, ways: tuple[str, str]) -> tuple[str, bool]:
    """Return in words how many keyframes uniform needs for adaptive's PSNR, and whether always twice as many."""
    most = rows["asked"].max()
    # Uniform's curve ends at `most` keyframes, so that only counts up to half of that can be checked.
    fair = [(k, needs) for k, _, needs in uniform_for_adaptive(rows, ways) if 2 * k <= most]
    texts = [f"{f'{needs:.1f}' if math.isfinite(needs) else f'>{most:.0f}'} for {k:.0f}" for k, needs in fair]
    return ", ".join(texts) or "not run", bool(fair) and all(needs >= 2 * k for k, needs in fair)


def pair_criteria(rows: pd.DataFrame) -> list[Criterion]:
    ways = ["adaptive", "best", "4 even"]
    near = best_by_way(rows)["psnr_near"].unstack().reindex(columns=ways)
    adaptive, best, four = (near[way] for way in ways)
    lost, reach = mean_over_clips(adaptive - best), mean_over_clips(best - four)
    if lost["mean"] is None:
        return []
    # In a run that was cut short, the best pair is the best of those that were edited.
    tried = f"the best of {(rows['way'] == 'pair').sum() / len(near):.0f} pairs"
    return [
        _check(f"uneven motion: two chosen keyframes are within 0.5 dB of {tried}", lost, _at_least(-0.5), " dB"),
        _check(f"uneven motion: {tried} is as good as four even keyframes", reach, _at_least(0), " dB"),
    ]


# --- the contest ----------------------------------------------------------------------------------


def method_criteria(contest: Contest, kinds: Sequence[str]) -> list[Criterion]:
    """Return the criteria of the default against other methods, on short clips."""
    criteria = []
    for other in ("paper", "paper-adapted", "tokenflow", "paper-50", "tokenflow-50"):
        own_steps = other.endswith("-50")
        for kind in kinds:
            part = contest.only(kind=kind)
            psnr, temporal, seconds = (
                part.difference(DEFAULT, other, score) for score in ("psnr", "temporal", "seconds")
            )
            if psnr["mean"] is None:
                continue
            at = "" if own_steps else " at equal steps"
            criteria.append(_check(f"{kind}: PSNR beats {other}{at}", psnr, _positive, " dB"))
            criteria.append(_check(f"{kind}: temporal error is under {other}'s", temporal, _negative))
            if own_steps:
                criteria.append(_check(f"{kind}: faster than {other}", seconds, _negative, " s", "+.1f"))
    joint = contest.difference(DEFAULT, JOINT, "psnr")
    if joint["mean"] is not None:
        criteria.append(_check("within 0.5 dB of joint on short clips", joint, _at_least(-0.5), " dB"))
    return criteria


def part_criteria(contest: Contest, contestants: Sequence[dict[str, str]]) -> list[Criterion]:
    """Return, for each part, whether it gains PSNR with the whole interval: lost if switched off, or gained if on."""
    criteria = []
    for who in contestants:
        off, _, what = who["name"].partition("-")
        if who["name"] not in contest.contestants or not who["group"].startswith("part") or off not in ("no", "with"):
            continue
        better, worse = (who["against"], who["name"]) if off == "no" else (who["name"], who["against"])
        found = contest.difference(better, worse, "psnr")
        if found["mean"] is not None:
            criteria.append(_check(f"{what} gains PSNR", found, _surely_positive, " dB"))
    return criteria


def cut_criteria(contest: Contest) -> list[Criterion]:
    counts = [contest.scores(DEFAULT, f"crossing_{what}").dropna() for what in ("segments", "frames")]
    if not all(map(len, counts)):
        return []
    segments, frames = (int(count.sum()) for count in counts)
    value = f"{segments} segments, {frames} frames"
    return [Criterion("no segment and no blend crosses a cut", value, segments == 0 and frames == 0)]
