"""Writes the page and the table from the file of results; merges several files, of shards or of parts, into one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.output import say
from benchmarks.quality import PARTS
from benchmarks.quality.report.page import render_page
from benchmarks.quality.report.summary import Summary
from benchmarks.quality.report.tables import render_markdown, runs_of


def merge(sources: list[Path], out: Path) -> dict[str, Any]:
    """The results of several files, for the file `out`; where two hold the same row, the later file's stands.

    What an earlier merge left in `out` is no source. Results of a run are not written over.
    """
    others = [path for path in sources if path.resolve() != out.resolve()]
    if not others:
        return json.loads(out.read_text())
    if out.exists() and "runs" not in json.loads(out.read_text())["meta"]:
        raise SystemExit(f"{out} holds the results of a run; give another folder with --out")
    files = [(path, json.loads(path.read_text())) for path in others]
    _check_alike(files)
    runs = [run for _, file in files for run in runs_of(file["meta"])]
    data: dict[str, Any] = {"meta": {"runs": runs, "feature_width": files[0][1]["meta"]["feature_width"]}}
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


def _check_alike(files: list[tuple[Path, dict[str, Any]]]) -> None:
    """Raise SystemExit if files differ in a setting over which no mean may be taken."""
    (first, own), *others = (
        (path, {"split": run["split"], "size": run["size"], "model": run["machine"]["model"]})
        for path, file in files
        for run in runs_of(file["meta"])
    )
    for path, other in others:
        for name, value in own.items():
            if other[name] != value:
                raise SystemExit(f"{name} is {value} in {first} and {other[name]} in {path}; report on each alone")


def write_reports(data: dict[str, Any], json_path: Path, html: Path | None, markdown: Path | None) -> None:
    """Write the results, the page with its clips, and the table."""
    summary = Summary.of(data)
    _write(json_path, json.dumps(data, allow_nan=False) + "\n")
    if html is not None:
        for row in data["media"]:
            copy_media(row, Path(row.get("folder") or json_path.parent), html.parent)
        _write(html, render_page(summary))
        say(f"report: {html}")
    if markdown is not None:
        _write(markdown, render_markdown(summary))
        say(f"table: {markdown}")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    trial = path.with_suffix(".part")
    trial.write_text(text)
    trial.replace(path)


def copy_media(row: dict[str, Any], source: Path, target: Path) -> None:
    """Copy the sheet and the film of a case to beside the page."""
    for name in ("sheet", "film"):
        if row[name] and (source / row[name]).exists() and source.resolve() != target.resolve():
            (target / row[name]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / row[name], target / row[name])
