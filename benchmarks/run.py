"""What the edit benchmarks share: arguments, engines, timed edits and contact sheets."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from adaflow_core.backbone import Backbone, load_backbone
from adaflow_core.cache import Cache
from adaflow_core.config import METHODS, EditConfig, ModelProfile, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.types import EditResult, Plan
from adaflow_core.version import __version__
from benchmarks.scores import plain_json
from benchmarks.truth import Pair
from scenes.clips import FPS

SHEET_FRAMES, SHEET_PIXELS, CAPTION_PIXELS = 4, 128, 14


def say(text: str) -> None:
    """Progress goes to stderr, so that the table can be piped."""
    print(text, file=sys.stderr, flush=True)


# --- arguments ------------------------------------------------------------------------------------


def add_model_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="embedded", help="embedded, a folder or a Hub id")
    parser.add_argument("--judge", type=Path, default=Path("assets/judge"))
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--profile",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a field of the model's profile, for tuning",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    add_model_choice(parser)
    parser.add_argument("--cache", type=Path, help="keep the cache here, and reuse it; default: nothing cached")
    parser.add_argument("--json", type=Path, help="write all scores here")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet here: source, edit and truth")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Settings of plan and edit; left out, the model's own."""
    for name in ("guidance", "injection-attention", "injection-conv", "prune", "kv-frames"):
        parser.add_argument(f"--{name}", type=float)
    for name in ("steps", "inversion-steps", "keyframes"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--method", choices=METHODS)
    parser.add_argument("--negative", choices=("empty", "source"))
    parser.add_argument("--seed", type=int, default=0, help="of the edit")


def configs(arguments: argparse.Namespace, source_prompt: str) -> tuple[PlanConfig, EditConfig]:
    """The settings that were given on the command line."""
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    plan = {name: given[name] for name in ("prune", "kv_frames", "keyframes", "method") if name in given}
    names = ("guidance", "injection_attention", "injection_conv", "steps", "inversion_steps", "seed")
    edit = {name: given[name] for name in names if name in given}
    if "negative" in given:
        edit["negative_prompt"] = source_prompt if given["negative"] == "source" else ""
    return PlanConfig(source_prompt=source_prompt, **plan), EditConfig(**edit)


def profile_changes(changes: list[str]) -> dict[str, Any]:
    """["guidance=4", "negative=empty"] as fields of a `ModelProfile`, with their types."""
    defaults: dict[str, Any] = asdict(ModelProfile())
    del defaults["vocabulary"]
    values: dict[str, Any] = {}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in defaults:
            raise SystemExit(f"--profile {change}: choose a field of {', '.join(sorted(defaults))}")
        values[name] = type(defaults[name])(text)
    return values


def load(arguments: argparse.Namespace) -> Backbone:
    backbone = load_backbone(arguments.model, device=arguments.device)
    return replace(backbone, profile=replace(backbone.profile, **profile_changes(arguments.profile)))


def machine(backbone: Backbone) -> dict[str, Any]:
    """Where and with what the figures were made."""
    return {
        "version": __version__,
        "model": backbone.name,
        "fingerprint": backbone.fingerprint,
        "device": str(backbone.device),
        "accelerator": torch.cuda.get_device_name(backbone.device) if backbone.device.type == "cuda" else None,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
    }


# --- running --------------------------------------------------------------------------------------


@contextmanager
def fresh_engine(backbone: Backbone, cache: Path | None = None) -> Iterator[AdaFlow]:
    """An engine whose cache is empty and goes when it ends, unless `cache` names one to keep."""
    if cache is not None:
        yield AdaFlow(backbone, Cache(cache))
        return
    with tempfile.TemporaryDirectory(prefix="adaflow-benchmark-") as folder:
        yield AdaFlow(backbone, Cache(Path(folder)))


@dataclass(frozen=True)
class Run:
    """One edit with its plan, and the seconds that each took."""

    plan: Plan
    result: EditResult
    plan_seconds: float
    edit_seconds: float


def run(engine: AdaFlow, pair: Pair, plan_config: PlanConfig, edit_config: EditConfig) -> Run:
    """Plan and edit the pair's source: the bundled file if it has one, else the frames as drawn."""
    start = time.perf_counter()
    plan = engine.plan(pair.file or pair.source, plan_config, edit=edit_config, fps=FPS)
    planned = time.perf_counter()
    result = engine.edit(plan, pair.prompt, edit_config)
    return Run(plan, result, planned - start, time.perf_counter() - planned)


# --- output ---------------------------------------------------------------------------------------


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
