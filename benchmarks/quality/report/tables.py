"""From the file of results to the page and the table; several files, of shards or of parts, become one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.intervals import Bar
from benchmarks.output import cell, say
from benchmarks.quality import PARTS
from benchmarks.quality.cases import KINDS
from benchmarks.quality.contestants import BOUND, COPY
from benchmarks.quality.report.summary import (
    Contest,
    Interval,
    cut_bars,
    keyframe_bars,
    method_bars,
    pair_bars,
    part_bars,
    slimming_bars,
)

# Score -> how it is headed, formatted and scaled in tables.
COLUMNS: dict[str, tuple[str, str, float]] = {
    "psnr": ("PSNR, dB", ".2f", 1),
    "psnr_inside": ("inside", ".2f", 1),
    "psnr_outside": ("outside", ".2f", 1),
    "ssim_inside": ("SSIM inside", ".3f", 1),
    "ssim_outside": ("outside", ".3f", 1),
    "temporal": ("temporal error", ".2f", 1),
    "target": ("edit seen, %", ".0f", 100),
    "others": ("rest kept, %", ".0f", 100),
    "psnr_near": ("to joint, dB", ".2f", 1),
    "keyframes": ("keyframes", ".1f", 1),
    "kept": ("tokens kept, %", ".0f", 100),
    "seconds": ("plan and edit, s", ".2f", 1),
    "peak_memory": ("peak, GiB", ".2f", 2**-30),
}
MAIN_COLUMNS = (
    "psnr", "psnr_inside", "psnr_outside", "ssim_inside", "temporal", "target", "others", "psnr_near", "keyframes",
    "seconds", "peak_memory",
)  # fmt: skip


def merge(sources: list[Path]) -> dict[str, Any]:
    """The results of several files; where two hold the same row, the later file's stands."""
    files = [(path, json.loads(path.read_text())) for path in sources]
    data: dict[str, Any] = {"meta": dict(files[0][1]["meta"])}
    data["meta"]["commands"] = [command for _, file in files for command in commands(file["meta"])]
    names: dict[str, dict[str, str]] = {}
    for part in PARTS:
        rows: dict[Any, dict[str, Any]] = {}
        for path, file in files:
            names |= {who["name"]: who for who in file["meta"]["contestants"]}
            for row in file[part]:
                named = [str(row.get(k)) for k in ("case", "contestant", "way", "ratio", "asked", "frames")]
                extra = {"folder": row.get("folder") or str(path.parent)} if part == "media" else {}
                rows[tuple(named)] = row | extra
        data[part] = list(rows.values())
    data["meta"]["contestants"] = list(names.values())
    return data


def commands(meta: dict[str, Any]) -> list[str]:
    return meta.get("commands") or [meta["command"]]


def write_reports(data: dict[str, Any], json_path: Path, html: Path | None, markdown: Path | None) -> None:
    """The merged results where there is no such file yet, the page with its clips, the table."""
    from benchmarks.quality.report.page import page

    if not json_path.exists():
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(data, allow_nan=False) + "\n")
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        for row in data["media"]:
            bring(row, Path(row.get("folder") or json_path.parent), html.parent)
        html.write_text(page(data))
        say(f"report: {html}")
    if markdown is not None:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        markdown.write_text(results_text(data))
        say(f"table: {markdown}")


def bring(row: dict[str, Any], source: Path, target: Path) -> None:
    """Copy the pictures of a case beside the page."""
    for name in ("sheet", "film"):
        if row[name] and (source / row[name]).exists() and not (target / row[name]).exists():
            (target / row[name]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / row[name], target / row[name])


# --- tables ---------------------------------------------------------------------------------------


def ranked(data: dict[str, Any], contest: Contest, group: str = "method") -> list[str]:
    """The contestants of a group that took part, as the table of contestants has them; references at the end."""
    names = [who["name"] for who in data["meta"]["contestants"] if who["group"] == group]
    references = [COPY, BOUND] if group == "method" else []
    return [name for name in [*names, *references] if name in contest.contestants]


def spread(found: Interval, form: str, scale: float = 1) -> str:
    """A mean with half the width of its interval."""
    if found["mean"] is None:
        return "-"
    text = cell(found["mean"] * scale, form)
    # The interval of two clips says nothing and fills the table.
    return text if found["count"] < 3 else f"{text} ±{cell((found['mean'] - found['low']) * scale, form)}"


def score_table(contest: Contest, names: list[str], columns: tuple[str, ...]) -> tuple[list[str], list[list[str]]]:
    head = ["", *(COLUMNS[c][0] for c in columns)]
    rows = [[who, *(spread(contest.mean(who, c), *COLUMNS[c][1:]) for c in columns)] for who in names]
    return head, rows


def all_bars(data: dict[str, Any]) -> dict[str, list[Bar]]:
    """What must be shown, by topic; topics that were not run are left out."""
    contest = Contest(data["contest"]).only(long=False)
    kinds = sorted({row["kind"] for row in data["contest"]})
    found = {
        "Slimming": slimming_bars(data["prune"]),
        "Keyframes": [*keyframe_bars(data["keyframes"]), *pair_bars(data["pairs"]), *cut_bars(contest)],
        "The default against the others": method_bars(contest, kinds),
        "What each part gains": part_bars(contest, data["meta"]["contestants"]),
    }
    return {topic: bars for topic, bars in found.items() if bars}


def bar_table(bars: list[Bar]) -> tuple[list[str], list[tuple[str, list[Bar | None]]]]:
    """Bars as lines; those of kinds of edit ("colour: ...") share one, a column each."""
    kinds = [kind for kind in KINDS if any(bar.text.startswith(f"{kind}: ") for bar in bars)]
    lines: dict[str, dict[str, Bar]] = {}
    for bar in bars:
        kind, _, text = bar.text.rpartition(": ") if bar.text.split(": ")[0] in kinds else ("", "", bar.text)
        lines.setdefault(text, {})[kind] = bar
    columns = kinds if all(set(line) <= set(kinds) for line in lines.values()) else [*kinds, ""]
    columns = columns or [""]
    head = ["", *(column or "all" if kinds else "" for column in columns)]
    return head, [(text, [line.get(column) for column in columns]) for text, line in lines.items()]


def about(data: dict[str, Any]) -> list[tuple[str, str]]:
    """How the figures were made."""
    meta, machine = data["meta"], data["meta"]["machine"]
    contest = Contest(data["contest"])
    short, long = contest.only(long=False), contest.only(long=True)
    sweeps = ", ".join(f"{name}: {len({r['case'] for r in data[name]})}" for name in ("prune", "keyframes", "pairs"))
    where = machine.get("accelerator") or machine["device"]
    return [
        ("command", "\n".join(commands(meta))),
        ("clips", f"{short.clips} short, {long.clips} long, {len(contest.cases)} edits of them; of sweeps {sweeps}"),
        ("frames", "short {}, long {}, sweeps {}; {} pixels a side".format(*meta["frames"], meta["size"])),
        ("seeds", f"{meta['split']} split, scene seed {meta['scene_seed']}, edit seed 0"),
        ("commit", meta["commit"]),
        ("model", f"{machine['model']}, {machine['fingerprint']}"),
        ("machine", f"{where}, {machine['cores']} cores, torch {machine['torch']}"),
    ]


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def results_text(data: dict[str, Any]) -> str:
    """RESULTS.md."""
    contest = Contest(data["contest"])
    short = contest.only(long=False)
    out = [
        "# Quality against rendered truth",
        "",
        "Written by `python -m benchmarks.quality`; means over clips with 95 % intervals. The temporal error is the",
        "change along the true flow, relative to that of the autoencoded truth, where the judge sees the edit.",
        "",
        *(f"- {name}: {' · '.join(f'`{x}`' for x in text.splitlines()) if name == 'command' else text}"
          for name, text in about(data)),
    ]  # fmt: skip
    for title, part in (("Methods, short clips", short), ("Methods, long clips", contest.only(long=True))):
        if names := ranked(data, part):
            out += ["", f"## {title}", "", markdown_table(*score_table(part, names, MAIN_COLUMNS))]
    parts = [*ranked(data, short, "part"), *ranked(data, short, "part at equal keyframes")]
    if parts:
        out += ["", "## Without one part", "", markdown_table(*score_table(short, parts, MAIN_COLUMNS))]
    if names := ranked(data, short, "variant"):
        out += ["", "## Variants", "", markdown_table(*score_table(short, names, MAIN_COLUMNS))]
    out += ["", "## What must be shown", ""]
    for topic, bars in all_bars(data).items():
        head, rows = bar_table(bars)
        lines = [[text, *("" if b is None else f"{'yes' if b.passed else 'no'}: {b.value}" for b in row)]
                 for text, row in rows]  # fmt: skip
        out += [f"### {topic}", "", markdown_table(head, lines), ""]
    return "\n".join(out).rstrip() + "\n"
