"""Masks of regions against the drawn world's true ones, by intersection over union.

    python -m benchmarks.picture.regions carried --clips 2 --frames 48
    python -m benchmarks.picture.regions words --model assets/plain-sd --clips 12 --frames 16
    python -m benchmarks.picture.regions edits --model assets/plain-sd --clips 4 --frames 16
    python -m benchmarks.picture.regions crops --clips 8 --frames 4 --size 512 --least 0.5 0.75 1

"carried": each motion, painted once where its thing is seen best. "words": the thing named by words of the source
prompt; 0 where no place is found. "edits": PSNR to the true edit inside what it changes, of an edit of the region and
of the whole frame. "crops": edits of things of a twentieth to a sixth of the frame; dB inside as of "edits", for whole
frames pasted in, for the region of whole frames, and for a crop of each `--least` side (in sizes that the model was
trained at) with its share of the frame. `--region` of benchmarks.speed counts what crops save.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.editing.place.cutout import iou
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import AdaFlowError
from adaflow_core.motion.flow import flow_between
from adaflow_core.picture.region import Region, window
from adaflow_core.picture.region.carry import Source, carry
from adaflow_core.progress import Monitor
from adaflow_core.storage.cache import Cache
from benchmarks.metrics import psnr
from benchmarks.quality.kinds import make_pair
from benchmarks.run import clip_size
from benchmarks.truth import MOTIONS as MOVING
from benchmarks.truth import Pair, draw, other_value
from scenes.captions import plain
from scenes.clips import FPS, SIZE
from scenes.render import render
from scenes.world import MOTIONS, SceneBatch, sample

SEED = 71_000  # of the world's generator; no other benchmark draws from here
SMALL = 0.05, 0.17  # of the frame's area: a thing that is edited in a crop, where it is largest
CLOSE = 0.97  # of the largest area: frames in which a thing is seen well


def drawn(row: SceneBatch, frames: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The clip [T, H, W, 3] uint8, and where its thing is [T, H, W]."""
    picture = render(row, torch.linspace(0, 1, frames), size=size)
    return (picture.rgb[0].permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy(), (picture.ids[0] == 1).numpy()


def ious(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([iou(*pair) for pair in zip(found, truth, strict=True)]))


def loaded(options: argparse.Namespace) -> AdaFlow:
    """Load the model; without `--size`, clips are drawn at the model's own size."""
    engine = AdaFlow.from_pretrained(str(options.model), cache=Cache(options.cache))
    options.size = clip_size(options.size, engine.profile)
    return engine


def carried(options: argparse.Namespace) -> Iterator[tuple[str, list[float]]]:
    """Yield each motion with the IoU of its clips."""
    for motion in MOTIONS:
        scores = []
        for number in range(options.clips):
            row = sample(1, seed=SEED + number, split=options.split, motion=motion)
            frames, truth = drawn(row, options.frames, options.size or SIZE)
            flow = np.stack([flow_between(*frames[t : t + 2]) for t in range(len(frames) - 1)]).astype(np.float16)
            cuts = np.flatnonzero(np.linspace(0, 1, len(frames)) >= row.cut_time.numpy())[:1]
            areas = truth.sum(axis=(1, 2))
            good = np.flatnonzero(areas >= CLOSE * areas.max())
            best = int(good[np.abs(good - len(frames) // 2).argmin()])
            with Monitor().stage("carry", 2 * len(frames)) as stage:
                scores.append(ious(carry(Source(frames, flow), cuts, {best: truth[best]}, stage) > 127, truth))
        yield motion, scores


def named(options: argparse.Namespace) -> Iterator[tuple[str, list[float]]]:
    """Yield each clip's source prompt with the IoU of the region that its thing's words name."""
    engine = loaded(options)
    motions = [motion for motion in MOTIONS if motion != "cut"]
    for number in range(options.clips):
        motion = motions[number % len(motions)]
        row = sample(1, seed=SEED + 1000 + number, split=options.split, motion=motion, ambiguous=True)
        frames, truth = drawn(row, options.frames, options.size)
        prompt, words = plain(row)[0], f"{row.names('colour')[0]} {row.names('kind')[0]}"
        plan = engine.plan(frames, PlanConfig(source_prompt=prompt), fps=FPS)
        try:
            found = engine.region(plan, Region(words=words)).weights == 255
        except AdaFlowError:  # no place stands out, so no region is found
            found = np.zeros_like(truth)
        yield prompt, [ious(found, truth)]


def edits(options: argparse.Namespace) -> Iterator[tuple[str, list[float]]]:
    """Each clip's prompt with the dB inside what it changes: of the region's edit, of the whole frame's pasted in."""
    engine = loaded(options)
    for number in range(options.clips):
        pair = make_pair(number, options.frames, options.split, "cpu", size=options.size)
        plan = engine.plan(pair.source, PlanConfig(source_prompt=pair.source_prompt), fps=FPS)
        inside = pair.region.copy()
        if inside.all():  # of a style: its left half
            inside[:, :, inside.shape[2] // 2 :] = False
        region = Region(masks=inside)
        part, whole = (engine.edit(plan, pair.prompt, region=one).forget_state().frames for one in (region, None))
        yield f"{pair.kind}: {pair.prompt}", [psnr(frames, pair.truth, inside) for frames in (part, whole)]


def small_things(options: argparse.Namespace) -> Iterator[Pair]:
    """Clips with an edit of a thing's colour or kind, the thing of the size that crops are for."""
    found, number = 0, 0
    while found < options.clips:
        row = sample(1, seed=SEED + 2000 + number, split=options.split, motion=MOVING[number % len(MOVING)])
        row, kind = row.replace(present2=False, occluder=0), ("colour", "object")[found % 2]
        value = other_value(row, kind, SEED + number)
        pair = draw(row, kind, value, np.linspace(0, 1, options.frames, dtype=np.float32), options.size)
        number += 1
        if SMALL[0] <= pair.region.mean(axis=(1, 2)).max() <= SMALL[1]:
            found += 1
            yield pair


def crops(options: argparse.Namespace) -> Iterator[tuple[str, list[float]]]:
    """Each clip's prompt with the dB inside what it changes: pasted in, of whole frames, and of a crop for each
    least side, with its share."""
    engine = loaded(options)
    for pair in small_things(options):
        plan = engine.plan(pair.source, PlanConfig(source_prompt=pair.source_prompt), fps=FPS)
        region = Region(masks=pair.region, crop="never")
        config = EditConfig(steps=options.steps, inversion_steps=options.steps)
        edited = engine.edit(plan, pair.prompt, config).forget_state()
        pasted = engine.region(plan, region).lay(edited.frames, pair.source)
        whole = engine.edit(plan, pair.prompt, config, region=region).forget_state()
        scores = [psnr(frames, pair.truth, pair.region) for frames in (pasted, whole.frames)]
        for least in options.least:
            with patch.dict(window.LEAST, auto=least), patch.object(window, "LARGEST", 1.0):
                part = engine.edit(plan, pair.prompt, config, region=replace(region, crop="auto")).forget_state()
            share = part.report["crop"]["share"] if part.report["crop"] else 1.0
            scores += [psnr(part.frames, pair.truth, pair.region), share]
        yield f"{pair.kind}: {pair.prompt}", scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["carried", "words", "edits", "crops"])
    parser.add_argument("--model", type=Path, default=Path("assets/plain-sd"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--clips", type=int, default=2, help="of each motion where masks are carried")
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--size", type=int, help=f"pixels of a side; default: the model's own, {SIZE} without one")
    parser.add_argument("--least", type=float, nargs="+", default=[*window.LEAST.values()])
    parser.add_argument("--steps", type=int, help="of inversion and edit; default: the model's")
    parser.add_argument("--cache", type=Path, default=Path("outputs/regions-cache"))
    options = parser.parse_args()
    found = []
    for name, scores in {"carried": carried, "words": named, "edits": edits, "crops": crops}[options.what](options):
        found.append(scores)
        print(f"{' '.join(f'{score:.3f}' for score in scores)}  {name}", flush=True)
    print(f"{' '.join(f'{score:.3f}' for score in np.mean(found, axis=0))}  mean")


if __name__ == "__main__":
    main()
