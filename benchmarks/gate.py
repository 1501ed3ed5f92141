"""`per-frame` against `joint` on free edits of the ambiguous world, by long-range error: is the world ambiguous enough?

    python -m benchmarks.gate --model assets/plain-sd --clips 12 --frames 16 --json gate.json

If editing each frame alone is no less consistent than editing all together, the world leaves too little open.
The bar: `per-frame` at least 1.5 times `joint`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.engine import AdaFlow
from benchmarks.quality.consistency import far_flows, long_range_error, spread_pairs
from benchmarks.truth import MOTIONS, draw, other_value
from scenes.clips import FPS
from scenes.world import sample

FREE = ("background", "object", "style")  # kinds of edit that leave much open
SEED = 70_000  # of the world's generator; no other benchmark draws from here
METHODS = ("joint", "per-frame")
BAR = 1.5


def clip_errors(
    engine: AdaFlow, number: int, frames: int, edit: EditConfig, split: str, device: str
) -> dict[str, str | float]:
    """Long-range errors of one clip's edit by each method, relative to the true film's."""
    kind, motion = FREE[number % len(FREE)], MOTIONS[number // len(FREE) % len(MOTIONS)]
    row = sample(1, seed=SEED + number, split=split, motion=motion, ambiguous=True)
    row = row.replace(present2=False, occluder=0)
    times = np.linspace(0, 1, frames, dtype=np.float32)
    pair = draw(row, kind, other_value(row, kind, SEED + number), times, device=device)
    pairs = spread_pairs(frames)
    flows, visible = far_flows(pair.after.to(device), times, pairs, pair.source.shape[1])
    true = long_range_error(pair.truth, pairs, flows, visible)
    found: dict[str, str | float] = {"kind": kind, "prompt": pair.prompt, "true": true}
    for method in METHODS:
        config = replace(PlanConfig(), method=method, source_prompt=pair.source_prompt)
        plan = engine.plan(pair.source, config, edit=edit, fps=FPS)
        found[method] = long_range_error(engine.edit(plan, pair.prompt, edit).frames, pairs, flows, visible) / true
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("assets/plain-sd"))
    parser.add_argument("--split", default="val", choices=("val", "test"))
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--steps", type=int, help="default: Stable Diffusion's own")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    engine = AdaFlow.from_pretrained(str(options.model))
    edit = EditConfig(steps=options.steps)
    rows = []
    for number in range(options.clips):
        rows.append(clip_errors(engine, number, options.frames, edit, options.split, device))
        row = rows[-1]
        print(*(f"{row[m]:.2f}" for m in METHODS), row["kind"], row["prompt"], flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=2) + "\n")
    for kind in (*FREE, "all"):
        some = [row for row in rows if kind in ("all", row["kind"])]
        joint, alone = (float(np.mean([float(row[m]) for row in some])) if some else float("nan") for m in METHODS)
        verdict = f"  {'pass' if alone >= BAR * joint else 'FAIL'} (bar {BAR})" if kind == "all" else ""
        print(f"{kind}: joint {joint:.2f}, per-frame {alone:.2f}, ratio {alone / joint:.2f}{verdict}")


if __name__ == "__main__":
    main()
