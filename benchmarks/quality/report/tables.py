"""The tables of the page and of RESULTS.md, and RESULTS.md itself."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from benchmarks.intervals import Criterion, Interval
from benchmarks.output import cell
from benchmarks.quality.cases import KINDS
from benchmarks.quality.contestants import BOUND, COPY, DEFAULT, SAME_COUNT
from benchmarks.quality.report.criteria import all_criteria
from benchmarks.quality.report.summary import Contest, Summary


class Column(NamedTuple):
    head: str
    form: str
    better: Literal["higher", "lower"] | None = None  # None: neither, no best is marked
    scale: float = 1


COLUMNS = {  # by score
    "psnr": Column("PSNR, dB", ".2f", "higher"),
    "psnr_inside": Column("inside", ".2f", "higher"),
    "psnr_outside": Column("outside", ".2f", "higher"),
    "ssim_inside": Column("SSIM inside", ".3f", "higher"),
    "temporal": Column("temporal error", ".2f", "lower"),
    "target": Column("edit seen, %", ".0f", scale=100),
    "others": Column("rest kept, %", ".0f", scale=100),
    "psnr_near": Column("to joint, dB", ".2f", "higher"),
    "keyframes": Column("keyframes", ".1f"),
    "seconds": Column("plan and edit, s", ".2f", "lower"),
    "peak_memory": Column("peak, GiB", ".2f", "lower", 2**-30),
}


class Cell(NamedTuple):
    text: str
    small: str = ""  # shown in a smaller size after the text
    kind: str = ""  # its class on the page: best, yes, no


class Line(NamedTuple):
    cells: list[Cell]
    kind: str = ""  # own, reference


class Table(NamedTuple):
    head: list[str]
    lines: list[Line]

    def markdown(self) -> str:
        rows = [self.head, ["---", *["--:"] * (len(self.head) - 1)]]
        for line in self.lines:
            rows.append([
                {"yes": "yes: ", "no": "no: "}.get(c.kind, "") + f"{c.text} {c.small}".rstrip() for c in line.cells
            ])  # fmt: skip
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def order_contestants(summary: Summary, contest: Contest, group: str = "method") -> list[str]:
    """The contestants of a group that took part, as the table of contestants has them; references at the end."""
    names = [who["name"] for who in summary.meta["contestants"] if who["group"] == group]
    references = [COPY, BOUND] if group == "method" else []
    return [name for name in [*names, *references] if name in contest.contestants]


def interval_cell(found: Interval, column: Column, kind: str = "") -> Cell:
    """A mean with half the width of its interval."""
    if found["mean"] is None:
        return Cell("-")
    text = cell(found["mean"] * column.scale, column.form)
    if found["count"] < 3:  # the interval of two clips says nothing and fills the table
        return Cell(text, kind=kind)
    return Cell(text, f"±{cell((found['mean'] - found['low']) * column.scale, column.form)}", kind)


def _line(who: str, cells: list[Cell]) -> Line:
    kind = "own" if who in (DEFAULT, SAME_COUNT) else "reference" if who in (COPY, BOUND) else ""
    return Line([Cell(who), *cells], kind)


def score_table(contest: Contest, names: list[str]) -> Table:
    """All scores of these contestants; the best of each column, references apart, is marked."""
    means = {who: {score: contest.mean(who, score) for score in COLUMNS} for who in names}
    best = {}
    for score, column in COLUMNS.items():
        known = [means[who][score]["mean"] for who in names if who not in (COPY, BOUND)]
        known = [mean for mean in known if mean is not None]
        if column.better and len(known) > 1:
            best[score] = max(known) if column.better == "higher" else min(known)
    lines = []
    for who in names:
        cells = []
        for score, column in COLUMNS.items():
            found = means[who][score]
            is_best = score in best and found["mean"] == best[score] and who not in (COPY, BOUND)
            cells.append(interval_cell(found, column, "best" if is_best else ""))
        lines.append(_line(who, cells))
    return Table(["", *(column.head for column in COLUMNS.values())], lines)


def psnr_by(contest: Contest, names: list[str], field: str, values: list[str]) -> Table:
    """Return a table of PSNR with a column for each value of a field of the rows."""
    parts = [contest.only(**{field: value}) for value in values]
    cells = {who: [interval_cell(part.mean(who, "psnr"), COLUMNS["psnr"]) for part in parts] for who in names}
    return Table(["", *values], [_line(who, cells[who]) for who in names])


def criteria_table(criteria: list[Criterion]) -> Table:
    """A line for each criterion; those of kinds of edit ("colour: ...") share one, a column each."""
    kinds = [kind for kind in KINDS if any(c.text.startswith(f"{kind}: ") for c in criteria)]
    lines: dict[str, dict[str, Criterion]] = {}
    for criterion in criteria:
        kind, _, text = criterion.text.partition(": ")
        if kind not in kinds:
            kind, text = "", criterion.text
        lines.setdefault(text, {})[kind] = criterion
    columns = kinds if all(set(line) <= set(kinds) for line in lines.values()) else [*kinds, ""]
    head = ["", *(column or "all" if kinds else "" for column in columns or [""])]
    return Table(head, [
        Line([Cell(text), *(_criterion_cell(line.get(column)) for column in columns or [""])])
        for text, line in lines.items()
    ])  # fmt: skip


def _criterion_cell(criterion: Criterion | None) -> Cell:
    if criterion is None:
        return Cell("")
    text, opens, interval = criterion.value.partition(" (")
    return Cell(text, f"({interval}" if opens else "", "yes" if criterion.passed else "no")


def runs_of(meta: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the metadata of each run in the results."""
    return meta.get("runs") or [meta]


def describe_run(summary: Summary) -> dict[str, str]:
    """Describe how the figures were made; facts in which runs differ are given for each run."""

    def each(text: str, between: str = "; ") -> str:
        return between.join(dict.fromkeys(text.format(**run, device=_device(run)) for run in runs_of(summary.meta)))

    sweeps = {"prune": summary.prune, "keyframes": summary.keyframes, "pairs": summary.pairs}
    sweep_cases = ", ".join(f"{name}: {rows['case'].nunique()}" for name, rows in sweeps.items())
    edits = f"{summary.contest.cases} edits of them; of sweeps {sweep_cases}"
    return {
        "command": each("{command}", "\n"),
        "clips": f"{summary.short.clips} short, {summary.long.clips} long, {edits}",
        "frames": each("short {frames[0]}, long {frames[1]}, sweeps {frames[2]}; {size} pixels a side"),
        "seeds": each("{split} split, scene seed {scene_seed}, edit seed 0"),
        "commit": each("{commit}"),
        "model": each("{machine[model]}, {machine[fingerprint]}"),
        "machine": each("{device}, {machine[cores]} cores, torch {machine[torch]}"),
    }


def _device(run: dict[str, Any]) -> str:
    return run["machine"].get("accelerator") or run["machine"]["device"]


def render_markdown(summary: Summary) -> str:
    """RESULTS.md."""
    short, long = summary.short, summary.long
    about = describe_run(summary)
    about["command"] = " · ".join(f"`{command}`" for command in about["command"].splitlines())
    parts = [name for group in ("part", "part at equal keyframes") for name in order_contestants(summary, short, group)]
    sections = {
        "Methods, short clips": (short, order_contestants(summary, short)),
        "Methods, long clips": (long, order_contestants(summary, long)),
        "Without one part": (short, parts),
        "Variants": (short, order_contestants(summary, short, "variant")),
    }
    out = [
        "# Quality against rendered truth",
        "",
        "Written by `python -m benchmarks.quality`; means over clips with 95 % intervals. The temporal error is the",
        "change along the true flow, relative to that of the autoencoded truth, where the judge sees the edit.",
        "",
        *(f"- {name}: {text}" for name, text in about.items()),
    ]
    for title, (contest, names) in sections.items():
        if names:
            out += ["", f"## {title}", "", score_table(contest, names).markdown()]
    out += ["", "## What must be shown", ""]
    for topic, criteria in all_criteria(summary).items():
        out += [f"### {topic}", "", criteria_table(criteria).markdown(), ""]
    return "\n".join(out).rstrip() + "\n"
