"""The flags of every command, and the settings that they ask for."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from adaflow_core.config import (
    BUDGET,
    CROPS,
    DELIVERIES,
    PRESETS,
    EditConfig,
    PlanConfig,
    Setting,
    read_settings,
    settings_of,
)
from adaflow_core.errors import AdaFlowError
from adaflow_core.version import __version__

if TYPE_CHECKING:
    from adaflow_core.film.project import Project


class _Parser(argparse.ArgumentParser):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A range from the end, as in `--frames -4:`, is a value like a negative number, not a flag.
        self._negative_number_matcher = re.compile(r"^-(\d+|\d*\.\d+|\d+:(-?\d+)?)$")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Report an unknown flag before a missing one, which the unknown one may be, misspelt."""
        for word in args if args and self._subparsers is None else ():
            flag = word.partition("=")[0]
            if flag == "--":
                break
            known = self._option_string_actions
            if flag.startswith("--") and not any(name.startswith(flag) for name in known):
                near = get_close_matches(flag, known, 1)
                self.error(f"there is no {flag}" + (f"; did you mean {near[0]}?" if near else ""))
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        raise AdaFlowError(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    # pip installs a command `adaflow`; a checkout has only the module.
    program = "adaflow" if Path(sys.argv[0]).stem == "adaflow" else "python -m adaflow_core"
    top = _Parser(prog=program, description="Text-driven editing of long videos with a diffusion model.")
    top.add_argument("--version", action="version", version=f"adaflow {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    plan = commands.add_parser("plan", help="choose keyframes and kept tokens; write plan.json and pictures")
    _shared(plan)
    plan.add_argument("--prompt", metavar="TEXT", help="also show where an edit to this prompt changes the video")
    plan.add_argument("--out", type=Path, default=Path("outputs/plan"), metavar="DIR")

    edit = commands.add_parser("edit", help="edit a video by text")
    _shared(edit, video="?")
    add_prompts(edit)
    _add_settings(edit, EditConfig)
    edit.add_argument("--out", type=Path, default=Path("outputs/edit.mp4"), metavar="FILE.mp4")
    add_delivery(edit)
    edit.add_argument("--report", type=_path, metavar="FILE.json")
    _add_region(edit)
    _add_by_hand(edit)
    _add_film(edit)
    edit.set_defaults(model=None)

    retake = commands.add_parser("retake", help="edit a stretch of a project's film again, all else untouched")
    retake.add_argument("project", type=Path, metavar="PROJECT.json")
    add_model(retake)
    _add_cache(retake)
    retake.add_argument("--frames", required=True, metavar="A:B", help="the stretch, the end not included")
    retake.add_argument("--prompt", metavar="TEXT", help="by default what the stretch shows now")
    retake.add_argument("--source-prompt", metavar="TEXT", help="what is in the stretch now")
    _add_settings(retake, EditConfig)
    retake.add_argument("--out", type=Path, default=Path("outputs/retake.mp4"), metavar="FILE.mp4")
    add_delivery(retake)
    retake.set_defaults(model=None)  # the project's

    batch = commands.add_parser("batch", help="edit all clips of a manifest, here or on a Ray cluster")
    batch.add_argument("manifest", metavar="FILE.jsonl", help="a line a clip: video, source_prompt, prompts")
    _add_common(batch)
    _add_settings(batch, PlanConfig, without=["source_prompt"])
    _add_settings(batch, EditConfig)
    add_workers(batch)
    add_delivery(batch)
    batch.add_argument("--out", default="outputs/batch", metavar="DIR|URL", help="a folder, s3://... or gs://...")
    batch.set_defaults(source_prompt="")  # each clip has its own

    commands.add_parser("models", help="list the models whose layout the engine knows")

    check = commands.add_parser("selfcheck", help="reconstruct and edit with a model; say what is off")
    add_model(check, alone=True)
    check.add_argument("--video", type=Path, metavar="VIDEO", help="by default a bundled clip")
    return top


def gpu_count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of GPUs; give 1 or more")
    return int(text)


def _not_empty(text: str) -> str:
    if not text.strip():  # e.g. from an unset shell variable; later code would take the flag as not given
        raise argparse.ArgumentTypeError("it is empty; give a value, or leave the flag out")
    return text


def _path(text: str) -> Path:
    return Path(_not_empty(text))


def whole_number(low: int, high: float = math.inf) -> Callable[[str], int]:
    """Return a function that parses a whole number from `low` to `high`."""
    span = f"from {low} on" if high == math.inf else f"from {low} to {high:g}"

    def read(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number {span}")
        return int(text)

    return read


def positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return value


def gpu_share(text: str) -> float:
    """Parse the number of GPUs of a task: Ray takes fractions below 1, else whole numbers."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value == 0 or 1e-4 <= value <= 1 or (value > 1 and value.is_integer())):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no share of GPUs; give 0, a part of one from 0.0001, or a number"
        )
    return value


def add_model(command: argparse.ArgumentParser, alone: bool = False) -> None:
    """`alone`: the command works on one GPU only."""
    command.add_argument(
        "--model", type=_not_empty, default="embedded", metavar="embedded|sd15|sd21-base|sd21|ID|DIR|FILE.safetensors"
    )
    command.add_argument(
        "--lora", action="append", default=[], metavar="FILE|ID[=WEIGHT]", help="fused into the model; may be repeated"
    )
    command.add_argument("--vae", default="", metavar="DIR|FILE|ID", help="an autoencoder in place of the model's own")
    command.add_argument(
        "--embedding",
        action="append",
        default=[],
        metavar="FILE|ID[=WORD]",
        help="a textual inversion; may be repeated",
    )
    command.add_argument("--device", default="auto", metavar="auto|cuda|mps|cpu")
    if not alone:
        command.add_argument("--gpus", type=gpu_count, default=1, metavar="N", help="edit the film on N GPUs")
    command.add_argument("--dtype", default="auto", choices=["auto", "float16", "bfloat16", "float32"])
    command.add_argument("--attention", default="auto", choices=["auto", "sdpa", "xformers"])


def _add_region(edit: argparse.ArgumentParser) -> None:
    group = edit.add_argument_group("region", "only a part of the picture is edited; all else stays, byte for byte")
    group.add_argument(
        "--mask", type=_path, action="append", default=[], metavar="FILE",
        help="white where the edit may change: a picture of one frame, carried to the others, may be given again; or a "
        "video or folder with a picture of each frame",
    )  # fmt: skip
    group.add_argument(
        "--mask-frame", type=int, action="append", default=[], metavar="N", help="of each --mask picture; default: 0"
    )
    group.add_argument("--region", type=_not_empty, metavar="WORDS", help="of the source prompt, that name the part")
    group.add_argument("--feather", type=int, metavar="PIXELS", help="over which the edit fades out (default: 8)")
    group.add_argument(
        "--crop", choices=CROPS,
        help="auto (default): where frames are larger than the model was trained at, a crop around the region is "
        "edited; small: also a crop of half that size, which is faster and less sure; never: always whole frames",
    )  # fmt: skip


def _add_by_hand(edit: argparse.ArgumentParser) -> None:
    group = edit.add_argument_group("keyframes by hand")
    group.add_argument(
        "--keyframe-image", type=_keyframe_image, action="append", default=[], metavar="N=FILE",
        help="frame N, from 0, as it was edited in another program; what was changed in it goes on through the video. "
        "May be given again. Without --prompt nothing else is edited",
    )  # fmt: skip


def _keyframe_image(text: str) -> tuple[int, Path]:
    number, _, path = text.partition("=")
    if not number.strip().isdecimal() or not path:
        raise AdaFlowError(f"--keyframe-image is {text!r}; give a frame's number and its picture, as in 12=frame.png")
    return int(number), Path(path)


def add_delivery(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--deliver", default="source", choices=DELIVERIES, help="the size of what is written (default: source): the "
        "video's own, with what the edit changed laid over it, or the working size",
    )  # fmt: skip


def _add_film(edit: argparse.ArgumentParser) -> None:
    group = edit.add_argument_group("drafts and projects")
    group.add_argument(
        "--draft", action="store_true", help="only the keyframes, before smoothing: draft.png and draft.json, a "
        "project, beside --out. The same command without --draft goes on from it",
    )  # fmt: skip
    compared = group.add_mutually_exclusive_group()
    compared.add_argument(
        "--seeds", type=_not_empty, metavar="N,N,...", help="with --draft: up to four seeds side by side"
    )
    compared.add_argument(
        "--compare", metavar="SETTING=X,X,...", help="with --draft: up to four values of a setting of the edit"
    )
    group.add_argument(
        "--project", type=_path, metavar="FILE.json", help="video, prompt and settings in one file: read if it is "
        "there, under the flags, and written",
    )  # fmt: skip


def add_prompts(command: argparse.ArgumentParser) -> None:
    """Add the flags for what the edited video should show: as a whole, or range by range."""
    ways = command.add_mutually_exclusive_group()
    ways.add_argument(
        "--prompt", action="append", metavar="[A:B] TEXT",
        help='what the video should show; may be given again for ranges: "0:48 a ball", in seconds "0s:2s a ball". A '
        "text that itself begins so has the range of all frames before it",
    )  # fmt: skip
    ways.add_argument("--prompts", type=_path, metavar="FILE.json", help='[{"frames": [0, 48], "prompt": "..."}, ...]')
    command.add_argument(
        "--crossfade", type=int, metavar="FRAMES", help="over which one range's edit goes over into the next in a shot"
    )


def _shared(command: argparse.ArgumentParser, video: str | None = None) -> None:
    command.add_argument("video", type=Path, metavar="VIDEO", nargs=video)
    _add_common(command)
    command.add_argument("--fps", type=positive, metavar="X", help="the rate of a folder of pictures (default: 24)")
    _add_cache(command)
    _add_settings(command, PlanConfig)


def _add_cache(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--cache-gb", type=positive, metavar="N", help="how large the cache may grow (default: ADAFLOW_CACHE_GB, or "
        "20); what one film needs stays beyond it until another is edited",
    )  # fmt: skip


def _add_common(command: argparse.ArgumentParser) -> None:
    add_model(command)
    command.add_argument("--frames", type=_not_empty, metavar="A:B", help="only these frames")
    command.add_argument("--size", type=_not_empty, metavar="WxH", help="working size in pixels")
    command.add_argument("--preset", default="default", choices=sorted(PRESETS))
    command.add_argument("--settings", type=Path, metavar="FILE.json", help="the settings of a report, under the flags")


def _add_settings(
    command: argparse.ArgumentParser, config: type[PlanConfig | EditConfig], without: Iterable[str] = ()
) -> None:
    """Add a flag for each setting; a flag that is not given is no attribute of the parsed arguments."""
    title = f"settings of the {'plan' if config is PlanConfig else 'edit'}"
    group = command.add_argument_group(title, "auto: what the model, the device or the video asks for")
    budget = group.add_mutually_exclusive_group() if config is PlanConfig else group
    for name, setting in settings_of(config).items():
        if name in without:
            continue
        options: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": _help(setting)}
        if setting.kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif setting.choices and not setting.several:
            options["choices"] = setting.choices
        else:
            options |= {"type": setting.parse, "metavar": _metavar(setting)}
        (budget if name in BUDGET else group).add_argument(setting.flag, **options)


def _help(setting: Setting) -> str:
    notes = []
    if setting.low is not None and setting.high is not None:
        notes.append(f"{setting.low:g} to {setting.high:g}")
    if setting.kind is bool:
        notes.append(f"default: {'on' if setting.default else 'off'}")
    elif setting.default not in (None, ""):
        notes.append(f"default: {setting.as_text(setting.default)}")
    noted = f" ({'; '.join(notes)})" if notes else ""
    return f"{setting.help}{noted}. {setting.effect}".strip()


def _metavar(setting: Setting) -> str:
    if setting.several:
        return ",".join(map(str, setting.choices))
    return ("auto|" if setting.takes_auto else "") + {int: "N", float: "X", str: "TEXT"}[setting.kind]


def add_workers(command: argparse.ArgumentParser) -> None:
    """Add the flags for where a batch runs, and how much of it."""
    command.add_argument("--ray", metavar="local|ADDRESS", help="on Ray: on this machine, or on a cluster")
    command.add_argument(
        "--workers", type=whole_number(1), metavar="N", help="with --ray: tasks at a time; default: what fits"
    )
    command.add_argument(
        "--gpus-per-task", type=gpu_share, metavar="G", help="with --ray; default: 1 where there are any"
    )
    command.add_argument("--retries", type=whole_number(0), default=2, metavar="N", help="of a task whose worker dies")
    command.add_argument("--limit", type=whole_number(1), metavar="N", help="only the first N clips")
    command.add_argument("--cache", metavar="DIR", help="where each machine keeps what its edits share")
    command.add_argument(
        "--cache-gb", type=positive, metavar="N", help="how large it may grow (default: the machine's "
        "ADAFLOW_CACHE_GB, or 100)",
    )  # fmt: skip


def plan_config(arguments: argparse.Namespace, project: Project | None = None) -> PlanConfig:
    """Return the plan's settings: of the flags, else of --settings, else of an opened project, else of the preset."""
    flags = given_flags(arguments, PlanConfig)
    if flags.keys() & set(BUDGET):
        flags = dict.fromkeys(BUDGET) | flags
    if flags.get("keyframes") and flags.get("keyframes_at", "").strip():
        raise AdaFlowError("--keyframes says how many there are, and --keyframes-at which frames; give one of them")
    if "keyframes" in flags:  # overrides `keyframes_at` of a project or a report
        flags = {"keyframes_at": ""} | flags
    return replace(PRESETS[arguments.preset][0], **_under_flags(arguments, project)[0] | flags)


def edit_config(arguments: argparse.Namespace, project: Project | None = None) -> EditConfig:
    """Return the edit's settings, in the same order as `plan_config`."""
    return replace(PRESETS[arguments.preset][1], **_under_flags(arguments, project)[1] | edit_flags(arguments))


def check_preset(arguments: argparse.Namespace, project: Project | None = None) -> None:
    """Raise AdaFlowError if the preset and the file of --settings, or an opened project, set something differently.

    What a flag sets is no conflict, and --settings may override the project.
    """
    without = _settings(arguments)
    if project is not None:
        _check_alike("a project", arguments.preset, without, _settings(arguments, project))
    if arguments.settings is not None:
        bare = argparse.Namespace(**vars(arguments) | {"settings": None})
        _check_alike("the file of --settings", arguments.preset, _settings(bare), without)


def _settings(arguments: argparse.Namespace, project: Project | None = None) -> dict[str, Any]:
    return vars(plan_config(arguments, project)) | vars(edit_config(arguments, project))


def _check_alike(holder: str, chosen: str, asked: dict[str, Any], kept: dict[str, Any]) -> None:
    """Raise AdaFlowError if the preset `chosen` sets something that the holder of settings sets differently.

    `asked`: all settings without those of the holder; `kept`: with them.
    """
    usual, preset = (vars(plan) | vars(edit) for plan, edit in (PRESETS["default"], PRESETS[chosen]))
    differ = [name for name in preset if preset[name] != usual[name] and asked[name] != kept[name]]
    if kept["steps"] is not None and kept["steps"] <= (asked["max_steps"] or 0):  # as older versions wrote it
        differ = [name for name in differ if name != "max_steps"]
    if differ:
        raise AdaFlowError(
            f"{holder} has settings of its own, and those of --preset {chosen} are others "
            f"({', '.join(differ)}); change single ones by their flags, not by --preset"
        )


def edit_flags(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the edit's flags, which override a preset's or a project's settings."""
    flags = given_flags(arguments, EditConfig)
    # A preset's number of inversion steps belongs to the preset's steps.
    return {"inversion_steps": None} | flags if "steps" in flags else flags


def given_flags(arguments: argparse.Namespace, config: type) -> dict[str, Any]:
    return {name: value for name, value in vars(arguments).items() if name in settings_of(config)}


def _under_flags(arguments: argparse.Namespace, project: Project | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings that flags override: --settings over those of an opened project."""
    plan, edit = ({}, {}) if project is None else (vars(project.plan), vars(project.edit))
    given = ({}, {}) if arguments.settings is None else read_settings(arguments.settings)
    return plan | given[0], edit | given[1]
