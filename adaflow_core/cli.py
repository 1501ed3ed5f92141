"""The command line: plan, edit, batch, models, selfcheck."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from adaflow_core.config import IMPORTANCE, METHODS, PRESETS, PROPAGATION, EditConfig, PlanConfig, read_settings
from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.progress import Progress
from adaflow_core.types import Plan
from adaflow_core.version import __version__

if TYPE_CHECKING:
    from adaflow_core.batch.manifest import Clip
    from adaflow_core.batch.run import Scorer, Summary
    from adaflow_core.engine import AdaFlow


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise AdaFlowError(f"{message}; see {self.prog} --help")


class Bar:
    """Stage, share done and time left, on one line of a terminal; a line per stage elsewhere."""

    def __init__(self) -> None:
        self._stage = ""
        self._live = sys.stderr.isatty()

    def __call__(self, progress: Progress) -> None:
        left = progress.remaining
        if self._live:
            filled = round(24 * progress.done / max(1, progress.total))
            tail = f"{left:4.0f} s left" if left is not None and progress.done < progress.total else " " * 11
            bar = f"[{'#' * filled}{'.' * (24 - filled)}] {progress.done}/{progress.total} {tail}"
            line = f"{progress.stage:<14} {bar}"
            end = "\n" if progress.done >= progress.total else ""
            print(f"\r{line:<78}", end=end, file=sys.stderr, flush=True)
        elif progress.done >= progress.total:
            print(f"{progress.stage}: {progress.elapsed:.1f} s", file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog="adaflow", description="Text-driven editing of long videos with a diffusion model.")
    top.add_argument("--version", action="version", version=f"adaflow {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    plan = commands.add_parser("plan", help="choose keyframes and kept tokens; write plan.json and pictures")
    _shared(plan)
    plan.add_argument("--out", type=Path, default=Path("outputs/plan"), metavar="DIR")
    plan.set_defaults(run=_plan)

    edit = commands.add_parser("edit", help="edit a video by text")
    _shared(edit)
    edit.add_argument("--prompt", required=True, metavar="TEXT", help="what the edited video should show")
    _edit_settings(edit)
    edit.add_argument("--out", type=Path, default=Path("outputs/edit.mp4"), metavar="FILE.mp4")
    edit.add_argument("--report", type=Path, metavar="FILE.json")
    edit.set_defaults(run=_edit)

    batch = commands.add_parser("batch", help="edit all clips of a manifest, here or on a Ray cluster")
    batch.add_argument("manifest", metavar="FILE.jsonl", help="a line a clip: video, source_prompt, prompts")
    add_model(batch)
    _plan_settings(batch)
    _edit_settings(batch)
    add_workers(batch)
    batch.add_argument("--out", default="outputs/batch", metavar="DIR|URL", help="a folder, s3://... or gs://...")
    batch.set_defaults(run=_batch, source_prompt="")  # each clip has its own

    models = commands.add_parser("models", help="list the models whose layout the engine knows")
    models.set_defaults(run=_models)

    check = commands.add_parser("selfcheck", help="reconstruct and edit with a model; say what is off")
    add_model(check)
    check.add_argument("--video", type=Path, metavar="VIDEO", help="by default a bundled clip")
    check.set_defaults(run=_selfcheck)
    return top


def add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", default="embedded", metavar="embedded|ID|DIR")
    command.add_argument("--device", default="auto", metavar="auto|cuda|mps|cpu")
    command.add_argument("--dtype", default="auto", choices=["auto", "float16", "bfloat16", "float32"])
    command.add_argument("--attention", default="auto", choices=["auto", "sdpa", "xformers"])


def _shared(command: argparse.ArgumentParser) -> None:
    command.add_argument("video", type=Path, metavar="VIDEO")
    command.add_argument("--source-prompt", metavar="TEXT", help="what is in the video now")
    add_model(command)
    _plan_settings(command)


def _plan_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument("--preset", default="default", choices=sorted(PRESETS))
    command.add_argument("--settings", type=Path, metavar="FILE.json", help="the settings of a report, under the flags")
    command.add_argument("--method", choices=METHODS)
    budget = command.add_mutually_exclusive_group()
    budget.add_argument("--prune", type=float, metavar="R", help="share of tokens dropped, 0..1")
    budget.add_argument("--kv-frames", type=float, metavar="N", help="keep N frames' worth of tokens")
    command.add_argument("--keyframes", metavar="auto|K", help="how many keyframes")
    command.add_argument("--scales", metavar="1,2,4", help="similarity scales, in tokens")
    command.add_argument("--importance", choices=IMPORTANCE)
    command.add_argument("--frames", metavar="A:B", help="only these frames")
    command.add_argument("--size", metavar="WxH", help="working size in pixels")


def _edit_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument("--negative-prompt", metavar="TEXT", help="what the guidance points away from")
    command.add_argument("--steps", type=int, metavar="N")
    command.add_argument("--inversion-steps", type=int, metavar="N", help="a multiple of --steps")
    command.add_argument("--guidance", type=float, metavar="G")
    command.add_argument("--guided", type=float, metavar="X", help="share of the steps with guidance, 0..1")
    command.add_argument("--injection-attention", type=float, metavar="X", help="share of steps, 0..1")
    command.add_argument("--injection-conv", type=float, metavar="X", help="share of steps, 0..1")
    command.add_argument("--propagation", choices=PROPAGATION, help="what frames take from keyframes")
    command.add_argument("--fidelity", type=float, metavar="X", help="how closely the inversion's path is held, 0..1")
    command.add_argument("--tolerance", type=float, metavar="X", help="changes that count as none, 0..1 of the usual")
    command.add_argument(
        "--detail", type=float, metavar="X", help="how far the source is shown where nothing changes, 0..1"
    )
    command.add_argument(
        "--low-memory", action="store_true", default=None, help="for GPUs of 8 to 12 GiB; a little slower"
    )
    command.add_argument("--seed", type=int, metavar="S")


def add_workers(command: argparse.ArgumentParser) -> None:
    """Where a batch runs and how much of it."""
    command.add_argument("--ray", metavar="local|ADDRESS", help="on Ray: on this machine, or on a cluster")
    command.add_argument("--workers", type=int, metavar="N", help="with --ray: tasks at a time; default: what fits")
    command.add_argument("--gpus-per-task", type=float, metavar="G", help="with --ray; default: 1 where there are any")
    command.add_argument("--retries", type=int, default=2, metavar="N", help="of a task whose worker dies")
    command.add_argument("--limit", type=int, metavar="N", help="only the first N clips")
    command.add_argument("--cache", metavar="DIR", help="where each machine keeps what its edits share")
    command.add_argument("--cache-gb", type=float, default=100, metavar="N", help="how large it may grow")


def _plan_config(arguments: argparse.Namespace) -> PlanConfig:
    config = PRESETS[arguments.preset][0]
    if arguments.settings is not None:
        config = replace(config, **read_settings(arguments.settings)[0])
    changes: dict[str, Any] = {}
    if arguments.prune is not None or arguments.kv_frames is not None:
        changes |= {"prune": arguments.prune, "kv_frames": arguments.kv_frames}
    if arguments.keyframes is not None and arguments.keyframes != "auto":
        changes["keyframes"] = _whole("keyframes", arguments.keyframes)
    if arguments.scales is not None:
        changes["scales"] = tuple(_whole("scales", part) for part in arguments.scales.split(","))
    for name in ("source_prompt", "method", "importance"):
        if getattr(arguments, name) is not None:
            changes[name] = getattr(arguments, name)
    return replace(config, **changes)


def _edit_config(arguments: argparse.Namespace) -> EditConfig:
    names = (
        "steps",
        "inversion_steps",
        "guidance",
        "guided",
        "negative_prompt",
        "injection_attention",
        "injection_conv",
        "propagation",
        "fidelity",
        "tolerance",
        "detail",
        "low_memory",
        "seed",
    )
    changes = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if "steps" in changes and "inversion_steps" not in changes:
        # The preset's own number belongs to the preset's steps.
        changes["inversion_steps"] = None
    config = PRESETS[arguments.preset][1]
    if arguments.settings is not None:
        config = replace(config, **read_settings(arguments.settings)[1])
    return replace(config, **changes)


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise AdaFlowError(f"{name} is {text!r}; it must be a whole number") from None


def _make_plan(arguments: argparse.Namespace, edit: EditConfig | None, bar: Bar, stop: Any) -> tuple[AdaFlow, Plan]:
    from adaflow_core import video

    # Everything that can be wrong with the arguments is looked at before the model loads.
    config = _plan_config(arguments)
    size = video.parse_size(arguments.size) if arguments.size else None
    frames = video.parse_range(arguments.frames) if arguments.frames else None
    video.probe(arguments.video)
    engine = _load(arguments)
    plan = engine.plan(arguments.video, config, edit=edit, size=size, frames=frames, progress=bar, stop=stop)
    for note in plan.notes:
        print(f"adaflow: note: {note}", file=sys.stderr)
    return engine, plan


def _load(arguments: argparse.Namespace) -> AdaFlow:
    from adaflow_core.engine import AdaFlow

    return AdaFlow.from_pretrained(
        arguments.model,
        device=arguments.device,
        dtype=arguments.dtype,
        attention=arguments.attention,
    )


def _plan(arguments: argparse.Namespace, bar: Bar, stop: Any) -> None:
    from adaflow_core.report.export import save_plan
    from adaflow_core.video.write import check_folder

    check_folder(arguments.out / "plan.json")
    _, plan = _make_plan(arguments, None, bar, stop)
    folder = save_plan(plan, arguments.out)
    print(
        f"{len(plan.segments)} keyframes for {len(plan.video)} frames; each attends to {plan.tokens_kept} of "
        f"{plan.tokens_full} tokens ({plan.kept_ratio:.0%})\n"
        f"forecast for the edit: {plan.forecast.total:.0f} s, {plan.forecast.peak_memory_bytes / 2**30:.1f} GiB\n"
        f"{folder}"
    )


def _edit(arguments: argparse.Namespace, bar: Bar, stop: Any) -> None:
    from adaflow_core.video.write import check_folder, check_output

    if not arguments.prompt.strip():
        raise AdaFlowError("the prompt is empty; say what the video should show with --prompt")
    config = _edit_config(arguments)
    check_output(arguments.out, arguments.video)
    if arguments.report:
        check_folder(arguments.report)
    engine, plan = _make_plan(arguments, config, bar, stop)
    result = engine.edit(plan, arguments.prompt, config, progress=bar, stop=stop)
    for warning in result.warnings:
        print(f"adaflow: note: {warning}", file=sys.stderr)
    path = result.save(arguments.out)
    if arguments.report:
        scores = asdict(engine.score(plan, result, progress=bar, stop=stop))
        report = json.dumps(result.report | {"scores": scores}, indent=1)
        try:
            arguments.report.write_text(report, encoding="utf-8")
        except OSError as problem:
            raise AdaFlowError(
                f"cannot write {arguments.report} ({problem.strerror}); free some space: the video is in {path}"
            ) from problem
    print(path)


def _batch(arguments: argparse.Namespace, bar: Bar, stop: Any) -> None:
    from adaflow_core.batch.manifest import read_manifest
    from adaflow_core.video.types import parse_range, parse_size

    method = arguments.method or ("adaflow" if arguments.preset == "default" else arguments.preset)
    methods = {method: (_plan_config(arguments), _edit_config(arguments))}
    if arguments.frames:
        parse_range(arguments.frames)
    if arguments.size:
        parse_size(arguments.size)
    clips = [
        replace(clip, frames=clip.frames or arguments.frames, size=clip.size or arguments.size)
        for clip in read_manifest(arguments.manifest)
    ]
    summary = run_batch(arguments, clips, methods, None, bar, stop)
    print(f"{summary.made} edits made, {summary.kept} there before, in {summary.seconds:.0f} s\n{arguments.out}")
    if summary.problems:
        raise AdaFlowError(f"{len(summary.problems)} edits failed; {arguments.out}/problems.json says why")


def run_batch(
    arguments: argparse.Namespace,
    clips: list[Clip],
    methods: dict[str, tuple[PlanConfig, EditConfig]],
    scorer: Scorer | None,
    bar: Bar,
    stop: Any,
) -> Summary:
    """The batch that the arguments of `add_model` and `add_workers` ask for."""
    from adaflow_core.batch import run as batch

    job = batch.Job(
        out=arguments.out,
        model=arguments.model,
        device=arguments.device,
        dtype=arguments.dtype,
        attention=arguments.attention,
        cache=arguments.cache,
        cache_bytes=int(arguments.cache_gb * 2**30),
        scorer=scorer,
    )
    return batch.run(
        job,
        clips[: arguments.limit],
        methods,
        ray=arguments.ray,
        workers=arguments.workers,
        gpus=arguments.gpus_per_task,
        retries=arguments.retries,
        progress=bar,
        say=lambda text: print(text, file=sys.stderr, flush=True),
        stop=stop,
    )


def _models(arguments: argparse.Namespace, bar: Bar, stop: Any) -> None:
    from adaflow_core.model.loading import KNOWN_MODELS

    for name, description in KNOWN_MODELS.items():
        print(f"{name}\n    {description}")
    print("any other Hub id or folder with a Stable Diffusion 1.x or 2.x layout in safetensors")


def _selfcheck(arguments: argparse.Namespace, bar: Bar, stop: Any) -> None:
    from adaflow_core.selfcheck import selfcheck

    findings = selfcheck(_load(arguments), arguments.video, progress=bar, stop=stop)
    for line in findings.lines:
        print(line)
    if findings.problems:
        raise AdaFlowError(f"{len(findings.problems)} of the checks failed: {'; '.join(findings.problems)}")


def main(argv: list[str] | None = None) -> int:
    """Exit status 0, 2 for anything the user can mend (one line on stderr), 130 when stopped."""
    stopped = False

    def ask_to_stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    before = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        arguments = parser().parse_args(argv)
        arguments.run(arguments, Bar(), lambda: stopped)
    except AdaFlowError as problem:
        print(f"adaflow: error: {problem}", file=sys.stderr)
        return 2
    except Stopped:
        print("adaflow: stopped; run the same command again to go on from the cache", file=sys.stderr)
        return 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0
