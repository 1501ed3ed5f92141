"""Edits two bundled clips by fixed settings and prints what came of them: equal lines, equal frames.

Run it before and after a change that must not change any picture; on one machine the lines are equal to the bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
CLIPS = {  # name -> what is in it, the edit, frames
    "ball": ("a red ball in a meadow", "a blue ball in a meadow", slice(0, 8)),
    "duck": ("a yellow duck on the ocean", "a pink duck on the ocean", slice(20, 28)),  # a cut lies within
}
TIMED = ("seconds", "forecast")  # fields of a plan's report that differ from run to run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="adaflow-digests-") as cache:
        os.environ["ADAFLOW_CACHE"] = cache
        for line in lines(arguments.threads):
            print(line, flush=True)


def lines(threads: int) -> Iterator[str]:
    """One line for each edit: its clip, its settings, and digests of its plan and of its frames."""
    import torch

    from adaflow_core import PRESETS, AdaFlow, EditConfig, PlanConfig
    from adaflow_core.report.export import plan_arrays, plan_report

    torch.set_num_threads(threads)
    settings = {
        "default": (PlanConfig(), EditConfig(steps=3)),
        "paper": (PRESETS["paper"][0], replace(PRESETS["paper"][1], steps=2, inversion_steps=4)),
        "tokenflow": (PRESETS["tokenflow"][0], replace(PRESETS["tokenflow"][1], steps=2)),
        "low-memory": (
            PlanConfig(keyframes=3, prune=0.4, refinement="none", importance="prompt", scales=(1, 2)),
            EditConfig(steps=2, guidance=3.0, low_memory=True, fidelity=0.5, tolerance=0.1),
        ),
    }
    engine = AdaFlow.from_pretrained(device="cpu", dtype="float32")
    for clip, (source, prompt, frames) in CLIPS.items():
        for name, (plan_config, edit_config) in settings.items():
            config = replace(plan_config, source_prompt=source)
            plan = engine.plan(ROOT / f"assets/clips/{clip}.mp4", config, frames=frames)
            report = {key: value for key, value in plan_report(plan).items() if key not in TIMED}
            digest = hashlib.blake2b(json.dumps(report, sort_keys=True).encode(), digest_size=8)
            for array in plan_arrays(plan).values():
                digest.update(array.tobytes())
            edited = engine.edit(plan, prompt, edit_config).forget_state().report["frames_digest"]
            yield f"{clip:5} {name:11} plan {digest.hexdigest()} frames {edited}"


if __name__ == "__main__":
    main()
