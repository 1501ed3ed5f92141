"""One keyframe of a film given as its true edit: a pattern that no word names, carried through the film.

    python -m benchmarks.picture.by_hand --model assets/plain-sd --clips 6 --frames 24

Films are drawn twice, plain and with a pattern on their thing; of every second one the colour changes too, and its
prompt says so. Figures: PSNR to the true film inside the thing and outside it, and the long-range error as a multiple
of the true film's; of the source, of the prompt alone and of the prompt with the true keyframe.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.picture.by_hand import ByHand
from adaflow_core.storage.cache import Cache
from benchmarks.metrics import psnr
from benchmarks.output import cell, say, table, write_json
from benchmarks.quality.consistency import far_flows, long_range_error, spread_pairs
from benchmarks.run import clip_size
from benchmarks.truth import MOTIONS
from scenes.captions import plain
from scenes.clips import FPS, FRAMES
from scenes.hidden import PATTERNS
from scenes.motion import MAIN
from scenes.render import render
from scenes.world import COLOURS, SceneBatch, sample

SEED = 73_000  # of the world's generator; no other benchmark draws from here
WAYS = ("source", "prompt", "by hand")


@dataclass(frozen=True)
class Film:
    """A film, its true edit, and where that differs."""

    name: str
    after: SceneBatch  # one row
    times: np.ndarray  # [T] clip time
    source: np.ndarray  # [T, H, W, 3] uint8
    truth: np.ndarray  # [T, H, W, 3] uint8
    region: np.ndarray  # [T, H, W] bool
    source_prompt: str
    prompt: str


def painted(row: SceneBatch, pattern: str) -> SceneBatch:
    coat = row.hidden.main
    coat = replace(coat, pattern=torch.full_like(coat.pattern, PATTERNS.index(pattern)))
    return row.with_hidden(replace(row.hidden, main=coat))


def draw(number: int, frames: int, split: str, size: int) -> Film:
    """Draw film `number`: motions and patterns in turn; the middle frames of a clip as long as the bundled ones."""
    motion, pattern = MOTIONS[number % len(MOTIONS)], PATTERNS[1 + number % (len(PATTERNS) - 1)]
    row = sample(1, seed=SEED + number, split=split, motion=motion, ambiguous=True)
    before = painted(row.replace(present2=False, occluder=0, style="photo"), "plain")
    after = painted(before, pattern)
    if number % 2:
        others = [colour for colour in COLOURS if colour != before.names("colour")[0]]
        after = after.replace(colour=others[number % len(others)])
    whole = torch.linspace(0, 1, max(frames, FRAMES))
    times = whole[(len(whole) - frames) // 2 :][:frames]
    drawn = [render(one, times, size) for one in (before, after)]
    pixels = [rearrange((one.rgb[0] * 255).round().byte(), "t c h w -> t h w c").numpy() for one in drawn]
    region, prompts = (drawn[0].ids[0] == MAIN).numpy(), [plain(one)[0] for one in (before, after)]
    return Film(f"{motion}, {pattern}: {prompts[1]}", after, times.numpy(), *pixels, region, *prompts)


def edits(engine: AdaFlow, film: Film, config: EditConfig) -> dict[str, np.ndarray]:
    """Return the film's frames by each way of editing; the keyframe that is given is the middle one."""
    plan = engine.plan(film.source, PlanConfig(source_prompt=film.source_prompt), edit=config, fps=FPS)
    keyframes = plan.layout.keyframes
    given = int(keyframes[len(keyframes) // 2])
    alone = engine.edit(plan, film.prompt, config).forget_state()
    changed = ByHand({given: film.truth[given]})
    by_hand = engine.edit(plan, film.prompt, config, by_hand=changed).forget_state()
    return dict(zip(WAYS, (film.source, alone.frames, by_hand.frames), strict=True))


def scores(film: Film, frames: np.ndarray) -> dict[str, float]:
    pairs = spread_pairs(len(frames))
    flows = far_flows(film.after, film.times, pairs, frames.shape[1])
    far, true = (long_range_error(one, pairs, *flows) for one in (frames, film.truth))
    inside, outside = (psnr(frames, film.truth, where) for where in (film.region, ~film.region))
    return {"inside": inside, "outside": outside, "long_range": far / true}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="assets/plain-sd")
    parser.add_argument("--split", default="test")
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--first", type=int, default=0, help="the number of the first film")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", type=int, help="pixels of a side; default: the model's own")
    parser.add_argument("--steps", type=int, help="by default the model's own")
    parser.add_argument("--cache", type=Path, default=Path("outputs/by-hand-cache"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    engine, rows = AdaFlow.from_pretrained(options.model, cache=Cache(options.cache)), []
    size = clip_size(options.size, engine.profile)
    for number in range(options.first, options.first + options.clips):
        film = draw(number, options.frames, options.split, size)
        for way, frames in edits(engine, film, EditConfig(steps=options.steps)).items():
            rows.append({"film": film.name, "way": way, **scores(film, frames)})
            say("  ".join([*(f"{rows[-1][name]:.2f}" for name in ("inside", "outside", "long_range")), way, film.name]))
    cells = []
    for way in WAYS:
        mean = {name: np.mean([row[name] for row in rows if row["way"] == way]) for name in ("inside", "outside")}
        far = np.mean([row["long_range"] for row in rows if row["way"] == way])
        cells.append([way, cell(mean["inside"]), cell(mean["outside"]), cell(far, ".2f")])
    print(table(["way", "inside dB", "outside dB", "long-range"], cells))
    write_json(options.json, rows)


if __name__ == "__main__":
    main()
