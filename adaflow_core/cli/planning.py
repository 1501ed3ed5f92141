"""`plan`, and what every command does before it edits: load the model and plan the video."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from adaflow_core.cli.arguments import check_preset, edit_config, plan_config
from adaflow_core.cli.bar import Bar
from adaflow_core.cli.outputs import check_apart, inputs_beside, inputs_of
from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.errors import AdaFlowError, counted

if TYPE_CHECKING:
    from adaflow_core.engine import AdaFlow
    from adaflow_core.types import Plan


def plan_command(arguments: argparse.Namespace, bar: Bar, stop: Any) -> None:
    from adaflow_core.progress import Monitor
    from adaflow_core.report.export import FILES, save_plan
    from adaflow_core.report.overlays import place_sentence
    from adaflow_core.video import probe
    from adaflow_core.video.write import check_folder

    prompt = arguments.prompt
    if prompt is not None:
        check_prompt(prompt)
    check_preset(arguments)
    config, edit = plan_config(arguments), edit_config(arguments)
    probe(arguments.video)
    outputs = {name: arguments.out / name for name in FILES}
    check_apart(outputs, (*inputs_of(arguments.video, None, None), *inputs_beside(arguments)))
    check_folder(arguments.out / "plan.json")
    engine, plan = make_plan(arguments, config, edit, bar, stop)
    place = None if prompt is None else engine.place(plan, prompt, config=edit, progress=bar, stop=stop)
    folder = save_plan(plan, arguments.out, place, monitor=Monitor(bar, stop))
    if place is not None:
        print(place_sentence(place))
    print(
        f"{counted(len(plan.segments), 'keyframe')} for {counted(len(plan.video), 'frame')}; "
        f"each attends to {plan.tokens_kept} of {plan.tokens_full} tokens ({plan.kept_ratio:.0%})\n"
        f"forecast for the edit: {plan.forecast.total:.0f} s, {plan.forecast.peak_memory_bytes / 2**30:.1f} GiB\n"
        f"{folder}"
    )


def check_prompt(prompt: str) -> None:
    if not prompt.strip():
        raise AdaFlowError("the prompt is empty; say what the video should show with --prompt")


def make_plan(
    arguments: argparse.Namespace, config: PlanConfig, edit: EditConfig | None, bar: Bar, stop: Any
) -> tuple[AdaFlow, Plan]:
    from adaflow_core import video

    # All arguments are checked before the model is loaded.
    size = video.parse_size(arguments.size) if arguments.size else None
    frames = video.parse_range(arguments.frames) if arguments.frames else None
    video.probe(arguments.video)
    rate = {} if arguments.fps is None else {"fps": arguments.fps}
    if rate and not arguments.video.is_dir():
        raise AdaFlowError(f"--fps is for a folder of pictures, and {arguments.video} has its own rate; leave it out")
    engine = load(arguments, bar, stop)
    plan = engine.plan(arguments.video, config, edit=edit, size=size, frames=frames, **rate, progress=bar, stop=stop)
    for note in plan.notes:
        print(f"adaflow: note: {note}", file=sys.stderr)
    return engine, plan


def load(arguments: argparse.Namespace, bar: Bar, stop: Any) -> AdaFlow:
    from adaflow_core.engine import AdaFlow
    from adaflow_core.storage.cache import Cache

    make = AdaFlow.from_pretrained
    if getattr(arguments, "gpus", 1) > 1:
        from adaflow_core.several.engine import TeamEngine

        make = partial(TeamEngine.of, gpus=arguments.gpus)
    return make(
        arguments.model,
        cache=Cache.default(getattr(arguments, "cache_gb", None)),
        loras=arguments.lora,
        vae=arguments.vae,
        embeddings=arguments.embedding,
        device=arguments.device,
        dtype=arguments.dtype,
        attention=arguments.attention,
        progress=bar,
        stop=stop,
    )
