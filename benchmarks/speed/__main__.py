"""The command line of the speed benchmark."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from adaflow_core.config import CROPS, PRESETS
from adaflow_core.model.backbone import Backbone
from benchmarks import speed
from benchmarks.output import say, write_json
from benchmarks.speed.measure import STAGES, Measurement, describe_rate, run_forecasts
from benchmarks.speed.micro import keyframe_attention, keyframe_pass
from benchmarks.speed.stand_ins import ARCHITECTURES, check_finite, make_backbone

MICRO = ("pass", "attention")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description=speed.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--arch", choices=ARCHITECTURES, default="sd21")
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--size", default="672x384", help="WIDTHxHEIGHT in pixels")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="default")
    parser.add_argument("--keyframes", type=int)
    parser.add_argument("--prune", type=float)
    parser.add_argument("--kv-frames", type=float)
    parser.add_argument("--steps", type=int, help="of the edit; the inversion keeps the preset's ratio to it")
    parser.add_argument("--stride", type=int, help="at most so many frames from one that the model edits to the next")
    parser.add_argument("--chunk", type=int, help="frames per call of the UNet")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="end after the last of these")
    parser.add_argument("--low-memory", action="store_true")
    parser.add_argument("--micro", nargs="*", choices=MICRO, help="only the keyframes' attention or pass; none: both")
    parser.add_argument("--forecast", action="store_true", help="only what is forecast against what five edits take")
    parser.add_argument("--region", type=float, metavar="SHARE", help="edit a square of that part of the frame")
    parser.add_argument("--crop", choices=CROPS, default="auto", help="of the region")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--gpus", type=int, default=1, help="edit the film on several")
    parser.add_argument("--again", action="store_true", help="also edit to a second prompt")
    parser.add_argument("--cache", type=Path, help="keep the cache here; default: nothing is kept, and all is measured")
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("outputs/speed.json"),
        help="results, rewritten as they come; default: outputs/speed.json",
    )
    return parser.parse_args(argv)


def run_micro(backbone: Backbone, given: argparse.Namespace) -> None:
    """One pass of 96 keyframes; their attention by K and kept tokens against the same without slimming."""
    width, height = map(int, given.size.split("x"))
    results: dict[str, Any] = {"machine": describe_rate(backbone)}
    runs: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {"pass": keyframe_pass, "attention": keyframe_attention}
    for name in given.micro or MICRO:
        results[name] = []
        for row in runs[name](backbone, width, height):
            results[name].append(row)
            write_json(given.json, results)


def main(argv: list[str] | None = None) -> None:
    given = parse(argv)
    say(f"results: {given.json}")
    backbone = make_backbone(given.arch, given.device)
    width, height = map(int, given.size.split("x"))
    check_finite(backbone, width, height)
    if given.micro is not None:
        run_micro(backbone, given)
        return
    if given.forecast:
        run_forecasts(backbone, given)
        return
    with tempfile.TemporaryDirectory(prefix="adaflow-speed-") as folder:
        Measurement(backbone, given, Path(folder)).run()


if __name__ == "__main__":
    main()
