"""The command line of LongV-EVAL."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from adaflow_core.batch.files import Storage, absolute
from adaflow_core.batch.manifest import read_manifest
from adaflow_core.cli.arguments import add_model, add_workers
from adaflow_core.cli.bar import Bar
from adaflow_core.cli.batches import run_batch
from adaflow_core.config import METHODS, PRESETS, EditConfig, PlanConfig
from adaflow_core.errors import AdaFlowError, Stopped, counted
from benchmarks import longv
from benchmarks.longv.models import CLIP, DINO, load_aesthetic
from benchmarks.longv.scorer import INSTALL, LongVScorer
from benchmarks.longv.table import markdown, summarise
from benchmarks.output import plain_json

NAMES = tuple(dict.fromkeys(["adaflow", "paper", *METHODS]))


def configs_of(names: str, steps: int | None, seed: int) -> dict[str, tuple[PlanConfig, EditConfig]]:
    """The settings behind "adaflow,tokenflow,paper": presets by their names, else the method with default settings."""
    found = {}
    for name in names.split(","):
        if name not in NAMES:
            raise AdaFlowError(f"method {name!r} is unknown; choose some of {', '.join(NAMES)}")
        plan, edit = PRESETS.get(name, PRESETS["default"])
        if name in METHODS:
            plan = replace(plan, method=name)  # type: ignore[arg-type]
        if steps is not None:
            edit = replace(edit, steps=steps, inversion_steps=None)
        found[name] = (plan, replace(edit, seed=seed))
    return found


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.longv",
        description=longv.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--manifest", required=True, metavar="FILE.jsonl")
    parser.add_argument("--out", default="outputs/longv", metavar="DIR|URL")
    parser.add_argument("--methods", default="adaflow,tokenflow,per-frame", metavar="A,B")
    parser.add_argument("--steps", type=int, help="of every method; default: each one's own")
    parser.add_argument("--seed", type=int, default=0)
    add_model(parser)
    add_workers(parser)
    parser.set_defaults(deliver="working")  # the size at which edits are scored
    parser.add_argument("--clip", default=CLIP, metavar="ID|DIR")
    parser.add_argument("--dino", default=DINO, metavar="ID|DIR")
    parser.add_argument("--aesthetic", metavar="FILE", help="LAION's head on that CLIP")
    parser.add_argument("--dover", metavar="FILE.pt", help="DOVER as TorchScript; see benchmarks/longv/dover.py")
    return parser.parse_args(argv)


def evaluate(arguments: argparse.Namespace, stop: Callable[[], bool]) -> int:
    if find_spec("scipy") is None:  # of the intervals and the warp error: refused before the first edit
        raise AdaFlowError(f"the package scipy is missing; {INSTALL}")
    clips = read_manifest(arguments.manifest)
    methods = configs_of(arguments.methods, arguments.steps, arguments.seed)
    # A Ray worker may have another working directory.
    parts = {name: getattr(arguments, name) for name in ("clip", "dino", "aesthetic", "dover")}
    parts = {name: absolute(part) if part and Path(part).exists() else part for name, part in parts.items()}
    scorer = LongVScorer(**parts, device=arguments.device)
    skipped = scorer.skipped()
    for name, remedy in skipped.items():
        print(f"{name} is left out; {remedy}", file=sys.stderr)
    if "frame_quality" not in skipped:
        load_aesthetic(arguments.aesthetic)  # what is not such a head is refused before the first edit
    summary = run_batch(arguments, clips, methods, scorer, Bar(), stop)
    storage, table = Storage(arguments.out), summarise(summary.asked)
    text = markdown(table, skipped)
    storage.write("summary.md", text.encode())
    storage.write_json("summary.json", plain_json(table))
    print(text)
    print(f"{summary.made} edits made, {summary.kept} there before, in {summary.seconds:.0f} s; {arguments.out}")
    if others := len(summary.rows) - len(summary.asked):
        print(f"{counted(others, 'edit')} there of other clips, methods or settings: not in this table")
    if summary.problems:
        raise AdaFlowError(f"{len(summary.problems)} edits failed; {arguments.out}/problems.json says why")
    return 0


def main(argv: list[str] | None = None) -> int:
    stopped = False

    def ask_to_stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask_to_stop)
    try:
        return evaluate(parse(argv), lambda: stopped)
    except AdaFlowError as problem:
        print(f"longv_eval: error: {problem}", file=sys.stderr)
        return 2
    except Stopped:
        print("longv_eval: stopped; run the same command again to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
