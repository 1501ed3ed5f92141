"""What the edit benchmarks share: arguments, engines and timed edits."""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch

from adaflow_core.config import METHODS, EditConfig, ModelProfile, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.loading import load_backbone
from adaflow_core.storage.cache import Cache
from adaflow_core.types import EditResult, Plan
from adaflow_core.version import __version__
from benchmarks.output import say
from benchmarks.truth import Pair
from scenes.clips import FPS

# --- arguments ------------------------------------------------------------------------------------


def add_model_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="embedded", help="embedded, a folder or a Hub id")
    parser.add_argument("--judge", type=Path, default=Path("assets/judge"))
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--profile",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a field of the model's profile, for tuning",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    add_model_choice(parser)
    parser.add_argument("--cache", type=Path, help="keep the cache here, and reuse it; default: nothing cached")
    parser.add_argument("--json", type=Path, help="write all scores here")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet here: source, edit and truth")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add options for settings of plan and edit; without them the model's own values hold."""
    for name in ("guidance", "injection-attention", "injection-conv", "prune", "kv-frames"):
        parser.add_argument(f"--{name}", type=float)
    for name in ("steps", "inversion-steps", "keyframes", "stride"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--method", choices=METHODS)
    parser.add_argument("--negative", choices=("empty", "source"))
    parser.add_argument("--seed", type=int, default=0, help="of the edit")


def make_configs(arguments: argparse.Namespace, source_prompt: str) -> tuple[PlanConfig, EditConfig]:
    """The settings that were given on the command line."""
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    plan = {name: given[name] for name in ("prune", "kv_frames", "keyframes", "method") if name in given}
    names = ("guidance", "injection_attention", "injection_conv", "steps", "inversion_steps", "stride", "seed")
    edit = {name: given[name] for name in names if name in given}
    if "negative" in given:
        edit["negative_prompt"] = source_prompt if given["negative"] == "source" else ""
    return PlanConfig(source_prompt=source_prompt, **plan), EditConfig(**edit)


def profile_changes(changes: list[str]) -> dict[str, Any]:
    """Parse ["guidance=4", "negative=empty"] as fields of a `ModelProfile`, with their types."""
    defaults: dict[str, Any] = asdict(ModelProfile())
    del defaults["vocabulary"], defaults["words"]
    values: dict[str, Any] = {}
    for change in changes:
        name, _, text = change.partition("=")
        if name not in defaults:
            raise SystemExit(f"--profile {change}: choose a field of {', '.join(sorted(defaults))}")
        kind = float if defaults[name] is None else type(defaults[name])
        choices = get_args(get_type_hints(ModelProfile)[name])
        if kind is str and text not in choices:
            raise SystemExit(f"--profile {change}: choose one of {', '.join(choices)}")
        try:
            values[name] = kind(text)
        except ValueError:
            raise SystemExit(f"--profile {change}: {name} is {'a whole' if kind is int else 'a'} number") from None
    return values


def load(arguments: argparse.Namespace) -> Backbone:
    backbone = load_backbone(arguments.model, device=arguments.device)
    return replace(backbone, profile=replace(backbone.profile, **profile_changes(arguments.profile)))


def describe_machine(backbone: Backbone) -> dict[str, Any]:
    """Where and with what the figures were made."""
    return {
        "version": __version__,
        "model": backbone.name,
        "fingerprint": backbone.fingerprint,
        "device": str(backbone.device),
        "accelerator": torch.cuda.get_device_name(backbone.device) if backbone.device.type == "cuda" else None,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
    }


def clip_size(asked: int | None, profile: ModelProfile) -> int:
    """Return the side in pixels of drawn clips: the asked one or else the model's; prints a note if it is smaller."""
    if asked is not None and asked < profile.size:
        say(f"clips of {asked} pixels are smaller than the model's {profile.size}, and edits may come out worse")
    return asked or profile.size


# --- running --------------------------------------------------------------------------------------


@contextmanager
def fresh_engine(backbone: Backbone, cache: Path | None = None) -> Iterator[AdaFlow]:
    """Yield an engine with an empty cache that is deleted at the end, unless `cache` names one to keep."""
    if cache is not None:
        yield AdaFlow(backbone, Cache(cache))
        return
    with tempfile.TemporaryDirectory(prefix="adaflow-benchmark-") as folder:
        yield AdaFlow(backbone, Cache(Path(folder)))


@dataclass(frozen=True)
class Run:
    """One edit with its plan, and the seconds that each took."""

    plan: Plan
    result: EditResult
    plan_seconds: float
    edit_seconds: float


def run(engine: AdaFlow, pair: Pair, plan_config: PlanConfig, edit_config: EditConfig) -> Run:
    """Plan and edit the pair's source: the bundled file if it has one, else the frames as drawn."""
    start = time.perf_counter()
    plan = engine.plan(pair.file or pair.source, plan_config, edit=edit_config, fps=FPS)
    planned = time.perf_counter()
    result = engine.edit(plan, pair.prompt, edit_config).forget_state()
    return Run(plan, result, planned - start, time.perf_counter() - planned)
