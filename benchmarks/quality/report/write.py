"""From the file of results to the page and the table; several files, of shards or of parts, become one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.output import say
from benchmarks.quality import PARTS
from benchmarks.quality.report.page import render_page
from benchmarks.quality.report.summary import Summary
from benchmarks.quality.report.tables import commands, render_markdown


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


def write_reports(data: dict[str, Any], json_path: Path, html: Path | None, markdown: Path | None) -> None:
    """The merged results where there is no such file yet, the page with its clips, the table."""
    summary = Summary.of(data)
    if not json_path.exists():
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
    path.write_text(text)


def copy_media(row: dict[str, Any], source: Path, target: Path) -> None:
    """Copy the sheet and the film of a case to beside the page."""
    for name in ("sheet", "film"):
        if row[name] and (source / row[name]).exists() and not (target / row[name]).exists():
            (target / row[name]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / row[name], target / row[name])
