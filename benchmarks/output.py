"""What the benchmarks print and write: progress, text tables, JSON and contact sheets."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.truth import Pair

SHEET_FRAMES, SHEET_PIXELS, CAPTION_PIXELS = 4, 128, 14


def say(text: str) -> None:
    """Progress goes to stderr, so that the table can be piped."""
    print(text, file=sys.stderr, flush=True)


def plain_json(data: Any) -> Any:
    """Plain JSON data, numbers to six digits; nan and infinity become null."""
    if isinstance(data, dict):
        return {str(key): plain_json(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [plain_json(value) for value in data]
    if isinstance(data, (bool, np.bool_)):
        return bool(data)
    if isinstance(data, (float, np.floating)):
        return float(f"{data:.6g}") if math.isfinite(data) else None
    return data


def write_json(path: Path | None, data: Any) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(plain_json(data), indent=2, allow_nan=False) + "\n")


def cell(value: float | None, form: str = ".1f") -> str:
    return "-" if value is None or not np.isfinite(value) else format(value, form)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as they need; the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def sheet_rows(pair: Pair, edited: dict[str, np.ndarray]) -> Image.Image:
    """A few frames of the source, of each edit and of the truth, one row each, under the prompt."""
    strips = {"source": pair.source, **edited, "truth": pair.truth}
    chosen = np.linspace(0, len(pair.times) - 1, min(SHEET_FRAMES, len(pair.times))).round().astype(int)
    height = CAPTION_PIXELS + len(strips) * SHEET_PIXELS
    page = Image.new("RGB", (SHEET_FRAMES * SHEET_PIXELS, height), "white")
    pen = ImageDraw.Draw(page)
    pen.text((3, 1), f"{pair.name}", fill="black", font_size=10)
    for row, (name, frames) in enumerate(strips.items()):
        y = CAPTION_PIXELS + row * SHEET_PIXELS
        for column, t in enumerate(chosen):
            picture = Image.fromarray(frames[t]).resize((SHEET_PIXELS, SHEET_PIXELS), Image.Resampling.LANCZOS)
            page.paste(picture, (column * SHEET_PIXELS, y))
        pen.text((4, y + 2), name, fill="white", font_size=11, stroke_width=1, stroke_fill="black")
    return page


def write_sheet(path: Path | None, parts: list[Image.Image], columns: int = 4) -> None:
    if path is None or not parts:
        return
    columns = min(columns, len(parts))
    width, height = max(p.width for p in parts), max(p.height for p in parts)
    page = Image.new("RGB", (columns * width, -(-len(parts) // columns) * height), "white")
    for index, part in enumerate(parts):
        page.paste(part, (index % columns * width, index // columns * height))
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path)
