"""What settings do by kind of edit, on a plainly trained model and a world that leaves much open.

    python -m benchmarks.quality.kinds --split val --clips 16 --frames 16 --json kinds.json --pictures DIR \\
        --variants "default;rescale=1;focus=0,coarse=0.5"

Each clip is drawn with its true edit. Figures: PSNR to the truth, inside what the edit changes, outside it and in a
band around it; the same inside to the nearest of several true films, as words leave much open ("nearest"); change along
the true flow between neighbouring frames ("temporal") and between frames far apart ("long-range"), as multiples of the
autoencoded truth's; how often the judge sees what was asked; sharpness inside, of the autoencoded truth's.

Printed are the tables of KINDS.md: means by kind of edit, and how the first of the variants differs from the
others, clip by clip.

`--variants`: settings to compare, separated by ";". "default", "fast", "paper" and "tokenflow" are presets; "true
place: ..." is told where the edit takes place, grown by 8 pixels. It goes before settings or a preset:
"true place: default".
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion, laplace

from adaflow_core.config import PRESETS, EditConfig, FilledEdit, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.engine.edit_place import EditPlace
from adaflow_core.storage.cache import Cache
from adaflow_core.video.types import Video
from benchmarks.metrics import psnr, warp_error
from benchmarks.output import write_json
from benchmarks.quality.consistency import far_flows, long_range_error, spread_pairs
from benchmarks.quality.contestants import parse_variants
from benchmarks.quality.report.kinds import BOUND, KINDS, SOURCE, by_kind, paired
from benchmarks.run import clip_size
from benchmarks.scores import autoencode, judge_clip
from benchmarks.truth import MOTIONS, Pair, TrueFilms, draw, other_value
from scenes.clips import FPS, SIZE
from scenes.training.classifier import load_judge
from scenes.world import KINDS as THINGS
from scenes.world import sample

SEED = 80_000  # of the world's generator; no other benchmark draws from here
BAND = 12  # pixels around the changed region
TRUE_PLACE = "true place:"


def make_pair(number: int, frames: int, split: str, device: str, ambiguous: bool = True, *, size: int = SIZE) -> Pair:
    """Draw clip `number` with its edit: kinds and motions in turn; `ambiguous`: hidden variables are drawn too."""
    kind, motion = KINDS[number % len(KINDS)], MOTIONS[number // len(KINDS) % len(MOTIONS)]
    row = sample(1, seed=SEED + number, split=split, motion=motion, ambiguous=ambiguous)
    row = row.replace(present2=False, occluder=0)
    times = np.linspace(0, 1, frames, dtype=np.float32)
    return draw(row, kind, other_value(row, kind, SEED + number), times, size, device)


def another_thing(pair: Pair, number: int) -> Pair:
    """Return the film of a true edit to another thing than the one asked for.

    It shows what a steady film of another outline scores: the true flow follows the true outline, so that its errors
    along the flow are above 1.
    """
    known = {*pair.before.names("kind"), *pair.after.names("kind")}
    others = [thing for thing in THINGS if thing not in known]
    size = pair.source.shape[1]
    return draw(pair.before, "object", others[number // len(KINDS) % len(others)], pair.times, size)


def sharpness(frames: np.ndarray, region: np.ndarray) -> float:
    """Mean absolute Laplacian of the brightness inside `region` [T, H, W]."""
    return float(
        np.mean([np.abs(laplace(f.mean(-1)))[m].mean() for f, m in zip(frames, region, strict=True) if m.any()])
    )


class Judged:
    """One clip with everything that is needed to score its edits."""

    def __init__(self, pair: Pair, device: str, true_films: int = 0) -> None:
        self.pair = pair
        self.flows, self.visible = pair.flows(device)
        self.pairs = spread_pairs(len(pair.source))
        self.far = far_flows(pair.after.to(device), pair.times, self.pairs, pair.source.shape[1])
        cross = np.ones((1, 3, 3), bool)
        grown = binary_dilation(pair.region, cross, iterations=BAND)
        self.truths = TrueFilms(pair, true_films, device) if true_films else None
        self.band = grown & ~binary_erosion(pair.region, cross, iterations=BAND, border_value=1)

    def score(self, frames: np.ndarray, judge: Any) -> dict[str, float]:
        truth, region = self.pair.truth, self.pair.region
        return {
            "psnr": psnr(frames, truth),
            "inside": psnr(frames, truth, region),
            "nearest": psnr(frames, self.truths.nearest(frames), region) if self.truths else float("nan"),
            "outside": psnr(frames, truth, ~region),
            "band": psnr(frames, truth, self.band),
            "temporal": warp_error(frames, self.flows, self.visible),
            "long_range": long_range_error(frames, self.pairs, *self.far),
            "seen": judge_clip(judge, frames, self.pair)["target_frames"],
            "sharpness": sharpness(frames, region),
        }


def run_clip(number: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the scores of all references and variants on one clip."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    engine, judge, size = _models(options)
    pair = make_pair(number, options.frames, options.split, device, not options.plain_world, size=size)
    judged, rows = Judged(pair, device, options.true_films), []

    def add(name: str, frames: np.ndarray) -> None:
        scores = judged.score(frames, judge)
        rows.append({"clip": number, "kind": pair.kind, "name": name, "prompt": pair.prompt} | scores)
        if options.pictures is not None:
            options.pictures.mkdir(parents=True, exist_ok=True)
            sheet = Image.fromarray(np.ascontiguousarray(frames).reshape(-1, *frames.shape[2:]))
            sheet.save(
                options.pictures / f"{number:02}-{pair.kind}-{name.replace('=', '').replace(',', '_')}.webp", quality=95
            )

    add(SOURCE, pair.source)
    add(BOUND, autoencode(engine.backbone, pair.truth))
    if pair.kind == "object":
        add("another thing", autoencode(engine.backbone, another_thing(pair, number).truth))
    for name, plan_config, edit_config in options.ways:
        config = replace(plan_config, source_prompt=pair.source_prompt)
        plan = engine.plan(pair.source, config, edit=edit_config, fps=FPS)
        with true_place(engine, pair) if name.startswith(TRUE_PLACE) else nullcontext():
            result = engine.edit(plan, pair.prompt, edit_config).forget_state()
        add(name, result.frames)
    return rows


@contextmanager
def true_place(engine: AdaFlow, pair: Pair) -> Iterator[None]:
    """Give the engine the true place of the edit within the block: the changed region, 8 pixels wider, on latents.

    `EditPlace.find` is patched. It may be called for some of the clip's frames, which are recognised by their pixels.
    """
    factor = engine.backbone.factor
    region = torch.from_numpy(pair.region).float()[:, None]
    place = F.max_pool2d(F.max_pool2d(region, factor), 3, stride=1, padding=1)[:, 0].numpy()
    rows = {frame.tobytes(): row for frame, row in zip(pair.source, place, strict=True)}

    def told(
        _judge: EditPlace, config: FilledEdit, video: Video, _latents: np.ndarray, _keyframes: np.ndarray
    ) -> np.ndarray | None:
        if pair.region.all() or not config.focus:  # everywhere
            return None
        return np.stack([rows[frame.tobytes()] for frame in video.frames])

    with patch.object(EditPlace, "find", told):
        yield


_loaded: list[Any] = []


def _models(options: argparse.Namespace) -> tuple[AdaFlow, Any, int]:
    """Return the engine, the judge and the clips' side in pixels, loaded once per process."""
    if not _loaded:
        torch.set_num_threads(1)
        engine = AdaFlow.from_pretrained(str(options.model), cache=Cache(options.cache))
        judge = load_judge(options.judge, engine.backbone.device)
        _loaded.extend((engine, judge, clip_size(options.size, engine.profile)))
    return _loaded[0], _loaded[1], _loaded[2]


def ways_of(text: str) -> list[tuple[str, PlanConfig, EditConfig]]:
    """Return the names and settings of `--variants`; "default" and other names of presets are presets."""
    found = []
    for part in (part.strip() for part in text.split(";")):
        settings = part.removeprefix(TRUE_PLACE).strip()
        if settings in PRESETS:
            found.append((part, *PRESETS[settings]))
        elif part:
            (who,) = parse_variants(settings)
            found.append((part, who.plan, who.edit))
    return found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("assets/plain-sd"))
    parser.add_argument("--judge", type=Path, default=Path("assets/judge-ambiguous"))
    parser.add_argument("--split", default="val", choices=("val", "test"))
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--first", type=int, default=0, help="number of the first clip")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="only the clips of these kinds")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, help="pixels of a side; default: the model's own")
    parser.add_argument("--plain-world", action="store_true", help="nothing hidden, as the embedded model knows it")
    parser.add_argument("--variants", dest="ways", type=ways_of, default="default", help="as said above")
    parser.add_argument(
        "--true-films", type=int, default=0, help='to draw beside the truth for "nearest"; half a second each on a CPU'
    )
    parser.add_argument("--workers", type=int, default=1, help="processes, each with the model")
    parser.add_argument("--cache", type=Path, default=Path("outputs/kinds-cache"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pictures", type=Path, help="a folder for all frames, one strip for each edit")
    options = parser.parse_args(argv)
    numbers = [n for n in range(options.first, options.first + options.clips) if KINDS[n % len(KINDS)] in options.kinds]
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
        for found in pool.map(run_clip, numbers, [options] * len(numbers)):
            rows += found
            print(f"clip {found[0]['clip']}: {found[0]['prompt']}", flush=True)
            write_json(options.json, rows)
    print(by_kind(rows).markdown())
    first = options.ways[0][0]
    if len(options.ways) > 1:
        print("\n" + paired(rows, first).markdown())


if __name__ == "__main__":
    main()
