"""Checks the rows and scores in a batch's files, and gathers all of them into tables."""

from __future__ import annotations

import io
import json
from typing import Any

from adaflow_core.batch.files import Storage

TABLES = ("table.jsonl", "table.parquet", "problems.json")  # written at the end of every run


def is_whole_row(row: dict[str, Any]) -> bool:
    """Return whether `row` has the fields of a row that an edit wrote."""
    return "digest" in row and isinstance(row.get("scores"), dict)


def is_score_of(score: dict[str, Any], row: dict[str, Any]) -> bool:
    """Return whether a score is of the row's edit, and not of an earlier one with other settings."""
    return bool(score.get("edit") == row["digest"])


def gather(storage: Storage) -> list[dict[str, Any]]:
    """Write all rows with their scores to table.jsonl and, if pyarrow is installed, table.parquet; returns the rows."""
    scores = storage.read_all("scores", ".json")
    rows = []
    for name, row in storage.read_all("rows", ".json").items():
        if not is_whole_row(row):
            continue
        found = scores.get(name.replace("rows/", "scores/", 1), {})
        found = dict(found) if is_score_of(found, row) else {}
        row["scored_with"] = found.pop("with", None)
        row["scores"] |= {name: value for name, value in found.items() if name != "edit"}
        rows.append(row)
    if rows:
        storage.write("table.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
        table = _parquet(rows)
        if table is not None:
            storage.write("table.parquet", table)
    return rows


def _parquet(rows: list[dict[str, Any]]) -> bytes | None:
    """Return a Parquet table, or None without pyarrow: a column per value, `scores.NAME` per score.

    Lists and objects are stored as JSON text.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return None
    flat = []
    for row in rows:
        values = {name: value for name, value in row.items() if name != "scores"}
        values |= {f"scores.{name}": value for name, value in row["scores"].items()}
        flat.append({n: json.dumps(v) if isinstance(v, (dict, list)) else v for n, v in values.items()})
    names = list(dict.fromkeys(name for row in flat for name in row))
    columns = {name: [row.get(name) for row in flat] for name in names}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()
