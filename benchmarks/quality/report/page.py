"""The report page: one HTML file with its style and plots inside, and the clips beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmarks.quality.cases import KINDS, MOTIONS
from benchmarks.quality.contestants import BOUND, COPY, DEFAULT, JOINT, SAME_COUNT
from benchmarks.quality.report import plots
from benchmarks.quality.report.criteria import all_criteria
from benchmarks.quality.report.summary import Contest, Summary, best_by_way, curve, uniform_for_adaptive
from benchmarks.quality.report.tables import (
    COLUMNS,
    Cell,
    Line,
    Table,
    criteria_table,
    describe_run,
    order_contestants,
    psnr_by,
    score_table,
)

FOLDER = Path(__file__).parent
PAIR_RINGS = {"chosen": "adaptive", "even": "2 even", "best": "best"}  # label of a ring -> its way in the rows
WORST = 12  # sheets of the edits furthest from their bound
GROUPS = {  # groups of contestants that are compared with another one -> what the plots show
    "part": "The default with one part switched off, or one on that it leaves out, less the default.",
    "part at equal keyframes": "The same for the parts that choose keyframes, all given the default's number.",
    "variant": "The default with settings changed, less the default.",
}


def render_page(summary: Summary) -> str:
    """The page as HTML; a section whose value is empty is left out by the template."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        style=Markup((FOLDER / "page.css").read_text()),
        tiles=_tiles(summary.short),
        sections={
            "Methods": _methods(summary),
            "Parts": _parts(summary),
            "Slimming": _slimming(summary.prune),
            "Keyframes": _keyframes(summary.keyframes),
            "Two keyframes": _pairs(summary.pairs),
            "What must be shown": {topic: criteria_table(found) for topic, found in all_criteria(summary).items()},
            "Clips": _clips(summary),
            "How it was made": {"run": describe_run(summary), "contestants": summary.meta["contestants"]},
        },
    )


def _tiles(short: Contest) -> list[tuple[str, str]]:
    """The four figures that a reader looks for first, with their words."""
    mean = {who: short.mean(who, "psnr")["mean"] for who in (DEFAULT, BOUND)}
    if mean[DEFAULT] is None:
        return []
    bound, seconds = (math.nan if x is None else x for x in (mean[BOUND], short.mean(DEFAULT, "seconds")["mean"]))
    tiles = [(f"{mean[DEFAULT]:.1f} dB", f"PSNR of the default to the true edit; its bound {bound:.1f}")]
    for other, text in (
        ("tokenflow", "against tokenflow at equal steps"),
        ("paper-adapted", "against paper-adapted at equal steps"),
        (JOINT, "against all frames edited together"),
    ):
        found = short.difference(DEFAULT, other, "psnr")["mean"]
        if found is not None:
            tiles.append((f"{found:+.1f} dB", text))
    return [*tiles, (f"{seconds:.1f} s", "plan and edit of a short clip, nothing known before")]


# --- sections: what the template shows, {} for nothing ------------------------------------------------


def _differences(contest: Contest, pairs: Sequence[tuple[str, str]], labels: dict[str, str]) -> list[Markup]:
    """A plot for each score of `labels`: the first of each pair of contestants less the second."""
    found = []
    for score, label in labels.items():
        rows = {who: contest.difference(who, against, score) for who, against in pairs}
        table = pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "low", "high"]).astype(float)
        found.append(Markup(plots.intervals(table.dropna(subset="mean"), label, COLUMNS[score].better == "lower")))
    return [plot for plot in found if plot]


def _methods(summary: Summary) -> dict[str, Any]:
    if not summary.contest.cases:
        return {}
    short, long = summary.short, summary.long
    names = order_contestants(summary, short)
    others = [(who, DEFAULT) for who in names if who not in (DEFAULT, COPY, BOUND)]
    by = {}
    for title, field, order in (("kind of edit", "kind", KINDS), ("motion", "group", MOTIONS)):
        values = [value for value in order if value in set(short.table[field])]
        if len(values) > 1:
            by[title] = psnr_by(short, names, field, values)
    labels = {"psnr": "PSNR less the default's, dB", "temporal": "temporal error less the default's"}
    return {
        "scores": score_table(short, names),
        "plots": _differences(short, others, labels),
        "by": by,
        "long": score_table(long, order_contestants(summary, long)) if long.clips else None,
    }


def _parts(summary: Summary) -> dict[str, Any]:
    against = {who["name"]: who["against"] for who in summary.meta["contestants"]}
    groups = []
    for group, text in GROUPS.items():
        names = order_contestants(summary, summary.short, group)
        pairs = [(who, against[who]) for who in names if who not in (against[who], SAME_COUNT)]
        if pairs:
            labels = {
                "psnr": "PSNR to the truth, dB: to the left the default is better",
                "temporal": "temporal error: to the right the default is better",
            }
            found = _differences(summary.short, pairs, labels)
            groups.append({"text": text, "plots": found, "scores": score_table(summary.short, names)})
    return {"groups": groups, "width": summary.meta["feature_width"]} if groups else {}


def _slimming(rows: pd.DataFrame) -> dict[str, Any]:
    if rows.empty:
        return {}
    ways = list(rows["way"].unique())
    pruned, unpruned = rows[rows["ratio"] > 0], curve(rows[rows["ratio"] == 0], "ratio", "psnr")
    found = []
    for score, label, marks in (
        ("psnr", "PSNR to the truth, dB", {"all tokens": unpruned["mean"].iloc[0]} if len(unpruned) else {}),
        ("psnr_near", "PSNR to the unpruned edit, dB", {"35 dB": 35.0}),
    ):
        series = {way: curve(pruned[pruned["way"] == way], "ratio", score) for way in ways}
        found.append(Markup(plots.lines(series, "share of tokens pruned", label, marks)))
    return {"clips": rows["case"].nunique(), "keyframes": int(rows["keyframes"].max()), "ways": ways, "plots": found}


def _keyframes(rows: pd.DataFrame) -> dict[str, Any]:
    if rows.empty:
        return {}
    ways, counts = list(rows["way"].unique()), sorted(rows["asked"].unique())
    found, lines = [], []
    for group, own in rows.groupby("group", sort=False):
        series = {way: curve(own[own["way"] == way], "asked", "psnr_near") for way in ways}
        plot = Markup(plots.lines(series, "keyframes", "PSNR to the joint edit, dB"))
        found.append((f"{group}, {own['case'].nunique()} clips", plot))
        needed = {k: n for k, _, n in uniform_for_adaptive(own) if math.isfinite(n)}
        cells = (f"{needed[k]:.1f}" if k in needed else f"over {counts[-1]:.0f}" for k in counts)
        lines.append(Line([Cell(group), *map(Cell, cells)]))
    return {"ways": ways, "plots": found, "needed": Table(["", *(f"{k:.0f}" for k in counts)], lines)}


def _pairs(rows: pd.DataFrame) -> dict[str, Any]:
    nearest = best_by_way(rows)
    found = []
    for case, ways in nearest.groupby(level="case", sort=False):
        ways = ways.droplevel("case")
        tried = rows[(rows["case"] == case) & (rows["way"] == "pair")].dropna(subset="psnr_near")
        values = dict(zip(map(tuple, tried["frames"]), tried["psnr_near"], strict=True))
        rings = [tuple(ways.at[way, "frames"]) if way in ways.index else None for way in PAIR_RINGS.values()]
        text = ", ".join(f"{way} {value:.2f} dB" for way, value in ways["psnr_near"].items())
        found.append((case, text, Markup(plots.pair_map(values, rings, "to joint, dB"))))
    return {"key": ["every pair of keyframes", *PAIR_RINGS], "cases": found} if found else {}


def _clips(summary: Summary) -> dict[str, Any]:
    """The films, and the sheets of the edits that are furthest below their bound."""
    media = {row["case"]: row for row in summary.media}
    bound, own = (summary.short.scores(who, "psnr").droplevel("clip") for who in (BOUND, DEFAULT))
    loss = (bound - own).dropna().sort_values(ascending=False)
    worst = [(media[case], value) for case, value in loss.items() if case in media]
    return {"films": [row for row in summary.media if row["film"]], "worst": worst[:WORST]} if media else {}
