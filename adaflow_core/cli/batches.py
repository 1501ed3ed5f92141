"""`batch`: many clips by one method, here or on a Ray cluster."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaflow_core.cli.arguments import check_preset, edit_config, plan_config
from adaflow_core.cli.bar import Bar
from adaflow_core.cli.outputs import check_apart, inputs_beside
from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.errors import AdaFlowError, counted
from adaflow_core.model.files.parts import ModelParts

if TYPE_CHECKING:
    from adaflow_core.batch.manifest import Clip
    from adaflow_core.batch.run import Summary
    from adaflow_core.batch.task import Scorer


def batch_command(arguments: argparse.Namespace, bar: Bar, stop: Any) -> None:
    from adaflow_core.batch.files import absolute
    from adaflow_core.batch.manifest import read_manifest
    from adaflow_core.batch.table import TABLES
    from adaflow_core.video.types import parse_range, parse_size

    check_preset(arguments)
    # Edits are filed by method, so those of another preset need another name.
    named = [arguments.preset if arguments.preset != "default" else None, vars(arguments).get("method")]
    methods = {"-".join(filter(None, named)) or "adaflow": (plan_config(arguments), edit_config(arguments))}
    if arguments.frames:
        parse_range(arguments.frames)
    if arguments.size:
        parse_size(arguments.size)
    clips = [
        replace(clip, frames=clip.frames or arguments.frames, size=clip.size or arguments.size)
        for clip in read_manifest(arguments.manifest)
    ]
    if "://" not in arguments.out:
        tables = {name: Path(absolute(arguments.out)) / name for name in TABLES}
        check_apart(tables, (("the manifest", Path(arguments.manifest)), *inputs_beside(arguments)))
    unsaid = sum(not clip.source_prompt for clip in clips[: arguments.limit])
    if unsaid:
        print(
            f"adaflow: note: nothing says what is in {counted(unsaid, 'clip')}; with a source_prompt edits keep more",
            file=sys.stderr,
        )
    summary = run_batch(arguments, clips, methods, None, bar, stop)
    print(
        f"{counted(summary.made, 'edit')} made, {summary.kept} there before, in {summary.seconds:.0f} s\n"
        f"{arguments.out}"
    )
    if summary.problems:
        raise AdaFlowError(f"{counted(len(summary.problems), 'edit')} failed; {arguments.out}/problems.json says why")


def run_batch(
    arguments: argparse.Namespace,
    clips: list[Clip],
    methods: dict[str, tuple[PlanConfig, EditConfig]],
    scorer: Scorer | None,
    bar: Bar,
    stop: Any,
) -> Summary:
    """Run the batch that the arguments of `add_model` and `add_workers` ask for."""
    from adaflow_core.batch.run import run
    from adaflow_core.batch.task import Job

    if arguments.gpus > 1:
        raise AdaFlowError("--gpus is for one film; leave it out: --ray local shares a batch's clips out to all GPUs")
    job = Job(
        out=arguments.out,
        model=str(ModelParts(arguments.model, tuple(arguments.lora), arguments.vae, tuple(arguments.embedding))),
        device=arguments.device,
        dtype=arguments.dtype,
        attention=arguments.attention,
        cache=arguments.cache,
        cache_gb=arguments.cache_gb,
        deliver=arguments.deliver,
        scorer=scorer,
    )
    return run(
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
