"""The command line of the quality benchmark, and the order in which its parts take turns."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the processes that score import this file, and need none of these
    from benchmarks.quality.bench import Bench
    from benchmarks.quality.cases import Clip
    from benchmarks.quality.contestants import Contestant

Part = tuple[float, Callable[[], bool]]
"""A weight, and a step that returns whether there is more."""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    from benchmarks import quality
    from benchmarks.run import add_model_choice

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description=quality.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_choice(parser)
    add = parser.add_argument
    add(
        "--methods",
        default="all",
        help='contestants, by comma: names, "methods", "parts", "all", "none"; -NAME drops one',
    )
    add(
        "--variants",
        type=_variants,
        default="",
        metavar="A=1;B=2,C=3",
        help="the default with settings changed, to tune it",
    )
    add("--clips", type=int, help="for the contest; default: as many as the time allows, or 8")
    add("--frames", type=int, default=32, help="of a short clip")
    add("--long-frames", type=int, default=256, help="of a long clip, one after every eight short ones; 0: none")
    add("--kinds", type=_kinds, default=_kinds("colour,background,object,style"), help="of edit")
    add("--each", type=int, default=2, help="kinds of edit that a clip is given")
    _add_sweeps(parser)
    add("--size", type=int, help="pixels of a side; default: the model's own")
    add("--split", choices=("val", "test"), default="test", help="val to tune by")
    add("--scene-seed", type=int, default=0, help="draws the clips")
    add("--shard", type=_shard, default=(0, 1), metavar="I/N", help="only every N-th clip, from the I-th (from 0)")
    add("--minutes", type=float, help="stop then, and report what there is")
    add("--shared", action="store_true", help="other runs share the device: seconds are not kept")
    add("--workers", type=int, help="processes that score; default: all cores but two")
    add("--films", type=int, default=8, help="clips shown side by side")
    add("--out", type=Path, help="a folder for quality.json, index.html, RESULTS.md and the clips")
    add("--json", type=Path, help="all results; default: in --out")
    add("--html", type=Path, help="the report page; the clips it shows are put beside it")
    add("--markdown", type=Path, help="the main table")
    add("--from", dest="sources", type=Path, nargs="+", metavar="FILE", help="report on these results; run nothing")
    add("--commit", help="of the code that runs, where git cannot tell")
    options = parser.parse_args(argv)
    options.out = options.out or (Path("outputs/quality") if options.json is None else options.json.parent)
    options.json = options.json or options.out / "quality.json"
    if options.html is None and options.markdown is None:
        options.html, options.markdown = options.out / "index.html", options.out / "RESULTS.md"
    return options


def _add_sweeps(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--sweep",
        action="append",
        type=_sweep,
        default=[],
        metavar="NAME=VALUES",
        help="prune=0,0.3,..., keyframes=2,3,... or pairs=N (two keyframes, of each N-th frame); may be given again",
    )
    add("--sweep-clips", type=int, help="for each sweep; default: as many as the time allows, or 6")
    add("--sweep-frames", type=int, default=48, help="of a clip of a sweep")
    add("--sweep-keyframes", type=int, default=32, help="while pruning is swept")
    add(
        "--sweep-sampled",
        type=_numbers,
        default=[],
        metavar="0.5,0.7",
        help="more shares to try while pruning is swept",
    )


def _kinds(text: str) -> tuple[str, ...]:
    from benchmarks.quality.cases import KINDS

    kinds = tuple(text.split(","))
    if set(kinds) - set(KINDS):
        raise argparse.ArgumentTypeError(f"choose some of {', '.join(KINDS)}")
    return kinds


def _variants(text: str) -> list[Contestant]:
    from benchmarks.quality.contestants import parse_variants

    return parse_variants(text)


def _numbers(text: str) -> list[float]:
    return [float(value) for value in text.split(",")]


def _sweep(text: str) -> tuple[str, list[float]]:
    name, _, values = text.partition("=")
    if name not in ("prune", "keyframes", "pairs") or not values:
        raise argparse.ArgumentTypeError("give prune=0,0.3,..., keyframes=2,3,... or pairs=2")
    if name == "pairs" and (not values.isdigit() or int(values) < 1):
        raise argparse.ArgumentTypeError(f"pairs={values}: give one whole number from 1 on")
    return name, sorted(_numbers(values))


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (count.isdigit() and index.isdigit() and int(index) < int(count)):
        raise argparse.ArgumentTypeError("give I/N with I from 0 to N - 1")
    return int(index), int(count)


# --- running --------------------------------------------------------------------------------------


def take_turns(parts: list[Part], over: Callable[[], bool]) -> None:
    """Run the parts (weight, step) a step at a time, the one with the least time for its weight first.

    A step returns whether there is more.
    """
    spent = [0.0] * len(parts)
    open_parts = set(range(len(parts)))
    while open_parts and not over():
        number = min(open_parts, key=lambda i: (spent[i] / parts[i][0], i))
        start = time.monotonic()
        if not parts[number][1]():
            open_parts.discard(number)
        spent[number] += time.monotonic() - start


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run the parts that the options ask for; returns the results, which are also written to `options.json`."""
    from benchmarks.quality.bench import Results, open_bench, warm_up
    from benchmarks.quality.cases import contest_clips
    from benchmarks.quality.contestants import choose_contestants
    from benchmarks.run import clip_size, load
    from scenes.training.classifier import load_judge

    contestants = [*choose_contestants(options.methods), *options.variants]
    backbone = load(options)
    options.size = clip_size(options.size, backbone.profile)
    judge = load_judge(options.judge, backbone.device)
    results = Results(options.json, _meta(options, backbone, contestants))
    workers = options.workers or max(1, (os.cpu_count() or 2) - 2)
    with open_bench(
        backbone, judge, results, workers=workers, minutes=options.minutes, size=options.size, shared=options.shared
    ) as bench:
        parts = [*_contest_part(options, bench, contestants), *_sweep_parts(options, bench, options.variants)]
        first = next(iter(contest_clips("val", 0, frames=options.frames, long_frames=0))).pair("colour", options.size)
        warm_up(bench, first.source, first.source_prompt)
        take_turns(parts, lambda: bench.over)
    return results.data


def _part(
    options: argparse.Namespace,
    weight: float,
    clips: Iterator[Clip],
    asked: int | None,
    usual: int,
    work: Callable[[Clip], None],
) -> Part:
    """Return a step that runs one clip. `asked`: how many clips; None: as many as the time allows, or `usual`."""
    index, count = options.shard
    limit = asked if asked is not None else None if options.minutes is not None else usual
    own = islice(clips, index, limit, count)

    def step() -> bool:
        clip = next(own, None)
        if clip is not None:
            work(clip)
        return clip is not None

    return weight, step


def _contest_part(options: argparse.Namespace, bench: Bench, contestants: list[Contestant]) -> Iterator[Part]:
    from benchmarks.quality.cases import contest_clips
    from benchmarks.quality.contest import run_clip

    if options.methods == "none":
        return
    clips = contest_clips(
        options.split, options.scene_seed, frames=options.frames, long_frames=options.long_frames,
        kinds=options.kinds, each=options.each,
    )  # fmt: skip
    films = iter([True] * options.films)
    yield _part(
        options, 2.0, clips, options.clips, 8, lambda clip: run_clip(bench, clip, contestants, next(films, False))
    )


def _sweep_parts(options: argparse.Namespace, bench: Bench, tried: list[Contestant]) -> Iterator[Part]:
    from benchmarks.quality import sweeps
    from benchmarks.quality.cases import sweep_clips, uneven_clips

    def prune(ratios: list[float], clip: Clip) -> None:
        sweeps.prune(bench, clip, ratios, options.sweep_keyframes, options.sweep_sampled)

    def keyframes(counts: list[float], clip: Clip) -> None:
        sweeps.keyframes(bench, clip, [int(count) for count in counts], tried)

    def pairs(stride: list[float], clip: Clip) -> None:
        sweeps.pairs(bench, clip, int(stride[0]))

    for name, values in options.sweep:
        run_sweep = {"prune": prune, "keyframes": keyframes, "pairs": pairs}[name]
        draw = uneven_clips if name == "pairs" else partial(sweep_clips, name)
        clips = draw(options.split, options.scene_seed, frames=options.sweep_frames, kinds=options.kinds)
        yield _part(options, 1.0, clips, options.sweep_clips, 6, partial(run_sweep, values))


def _meta(options: argparse.Namespace, backbone: Any, contestants: list[Any]) -> dict[str, Any]:
    from benchmarks.run import describe_machine

    return {
        "command": shlex.join(["python", "-m", "benchmarks.quality", *options.arguments]),
        "commit": options.commit or _commit(),
        "split": options.split,
        "scene_seed": options.scene_seed,
        "size": options.size,
        "frames": [options.frames, options.long_frames, options.sweep_frames],
        "shard": "/".join(map(str, options.shard)),
        "machine": describe_machine(backbone),
        "feature_width": backbone.unet.config["block_out_channels"][::-1][backbone.profile.feature_block],
        "contestants": [
            {"name": who.name, "text": who.text, "group": who.group, "against": who.against} for who in contestants
        ],
    }


def _commit() -> str:
    try:
        return subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    options.arguments = sys.argv[1:] if argv is None else argv
    from benchmarks.quality.report.write import merge, write_reports

    data = merge(options.sources, options.json) if options.sources else run(options)
    write_reports(data, options.json, options.html, options.markdown)


if __name__ == "__main__":
    main()
