"""Masks of regions against the drawn world's true ones, by intersection over union.

    python -m benchmarks.picture.regions carried --clips 2 --frames 48
    python -m benchmarks.picture.regions words --model assets/plain-sd --clips 12 --frames 16
    python -m benchmarks.picture.regions edits --model assets/plain-sd --clips 4 --frames 16

"carried": each motion, painted once where its thing is seen best. "words": the thing named by words of the source
prompt; 0 where no place is found. "edits": PSNR to the true edit inside what it changes, of an edit of the region and
of the whole frame.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from adaflow_core.config import PlanConfig
from adaflow_core.editing.smoothing import flow_between
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import AdaFlowError
from adaflow_core.picture.region.carry import Source, carry, iou
from adaflow_core.picture.region.mask import Region
from adaflow_core.progress import Monitor
from adaflow_core.storage.cache import Cache
from benchmarks.metrics import psnr
from benchmarks.quality.kinds import make_pair
from scenes.captions import plain
from scenes.clips import FPS
from scenes.render import render
from scenes.world import MOTIONS, SceneBatch, sample

SEED = 71_000  # of the world's generator; no other benchmark draws from here
CLOSE = 0.97  # of the largest area: frames in which a thing is seen well


def drawn(row: SceneBatch, frames: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The clip [T, H, W, 3] uint8, and where its thing is [T, H, W]."""
    picture = render(row, torch.linspace(0, 1, frames), size=size)
    return (picture.rgb[0].permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy(), (picture.ids[0] == 1).numpy()


def ious(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([iou(*pair) for pair in zip(found, truth, strict=True)]))


def carried(options: argparse.Namespace) -> Iterator[tuple[str, list[float]]]:
    """Each motion with the IoU of its clips."""
    for motion in MOTIONS:
        scores = []
        for number in range(options.clips):
            row = sample(1, seed=SEED + number, split=options.split, motion=motion)
            frames, truth = drawn(row, options.frames, options.size)
            flow = np.stack([flow_between(*frames[t : t + 2]) for t in range(len(frames) - 1)]).astype(np.float16)
            cuts = np.flatnonzero(np.linspace(0, 1, len(frames)) >= row.cut_time.numpy())[:1]
            areas = truth.sum(axis=(1, 2))
            good = np.flatnonzero(areas >= CLOSE * areas.max())
            best = int(good[np.abs(good - len(frames) // 2).argmin()])
            with Monitor().stage("carry", 2 * len(frames)) as stage:
                scores.append(ious(carry(Source(frames, flow), cuts, {best: truth[best]}, stage) > 127, truth))
        yield motion, scores


def named(options: argparse.Namespace) -> Iterator[tuple[str, list[float]]]:
    """Each clip's source prompt with the IoU of the region that its thing's words name."""
    engine = AdaFlow.from_pretrained(str(options.model), cache=Cache(options.cache))
    motions = [motion for motion in MOTIONS if motion != "cut"]
    for number in range(options.clips):
        motion = motions[number % len(motions)]
        row = sample(1, seed=SEED + 1000 + number, split=options.split, motion=motion, ambiguous=True)
        frames, truth = drawn(row, options.frames, options.size)
        prompt, words = plain(row)[0], f"{row.names('colour')[0]} {row.names('kind')[0]}"
        plan = engine.plan(frames, PlanConfig(source_prompt=prompt), fps=FPS)
        try:
            found = engine.region(plan, Region(words=words)).weights == 255
        except AdaFlowError:  # no place stands out: nothing is found
            found = np.zeros_like(truth)
        yield prompt, [ious(found, truth)]


def edits(options: argparse.Namespace) -> Iterator[tuple[str, list[float]]]:
    """Each clip's prompt with the dB inside what it changes: of the region's edit, of the whole frame's pasted in."""
    engine = AdaFlow.from_pretrained(str(options.model), cache=Cache(options.cache))
    for number in range(options.clips):
        pair = make_pair(number, options.frames, options.split, "cpu")
        plan = engine.plan(pair.source, PlanConfig(source_prompt=pair.source_prompt), fps=FPS)
        inside = pair.region.copy()
        if inside.all():  # of a style: its left half
            inside[:, :, inside.shape[2] // 2 :] = False
        region = Region(masks=inside)
        part, whole = (engine.edit(plan, pair.prompt, region=one).frames for one in (region, None))
        yield f"{pair.kind}: {pair.prompt}", [psnr(frames, pair.truth, inside) for frames in (part, whole)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["carried", "words", "edits"])
    parser.add_argument("--model", type=Path, default=Path("assets/plain-sd"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--clips", type=int, default=2, help="of each motion where masks are carried")
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--cache", type=Path, default=Path("outputs/regions-cache"))
    options = parser.parse_args()
    found = []
    for name, scores in {"carried": carried, "words": named, "edits": edits}[options.what](options):
        found.append(scores)
        print(f"{' '.join(f'{score:.3f}' for score in scores)}  {name}", flush=True)
    print(f"{' '.join(f'{score:.3f}' for score in np.mean(found, axis=0))}  mean")


if __name__ == "__main__":
    main()
