"""The command line: plan, edit, retake, batch, models, selfcheck."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, replace
from difflib import get_close_matches
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, NoReturn

from adaflow_core.config import BUDGET, PRESETS, EditConfig, PlanConfig, Setting, read_settings, settings_of
from adaflow_core.errors import AdaFlowError, Stopped, counted
from adaflow_core.model.files.parts import ModelParts
from adaflow_core.progress import Progress
from adaflow_core.version import __version__

if TYPE_CHECKING:
    from tqdm import tqdm

    from adaflow_core.batch.manifest import Clip
    from adaflow_core.batch.run import Scorer, Summary
    from adaflow_core.engine import AdaFlow
    from adaflow_core.film.project import Project
    from adaflow_core.film.timeline import PromptRange, Timeline
    from adaflow_core.types import Plan

_SECONDS_A_LINE = 10  # of a download, where there is no terminal


class _Parser(argparse.ArgumentParser):
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """A flag that does not exist is named before one that is missing: it may be that one, misspelt."""
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


class Bar:
    """Stage, share done and time left on a terminal; elsewhere a line when a stage is done."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._next_line = 0.0

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __call__(self, progress: Progress) -> None:
        done = progress.done >= progress.total
        if not sys.stderr.isatty():
            self._print(progress, done)
            return
        if self._bar is None or (self._bar.desc, self._bar.total) != (progress.stage, progress.total):
            self.close()
            self._bar = _new_bar(progress)
        self._bar.initial = progress.skipped  # says nothing about the pace
        self._bar.update(progress.done - self._bar.n)
        if done:
            self.close()

    def _print(self, progress: Progress, done: bool) -> None:
        if done:
            print(f"{progress.stage}: {progress.elapsed:.1f} s", file=sys.stderr, flush=True)
        elif progress.unit and time.monotonic() >= self._next_line:  # downloads may take an hour
            left = "" if progress.remaining is None else f", about {progress.remaining:.0f} s left"
            print(f"{progress.stage}: {progress.amount}{left}", file=sys.stderr, flush=True)
            self._next_line = time.monotonic() + _SECONDS_A_LINE


def _new_bar(progress: Progress) -> tqdm:
    from tqdm import tqdm

    # tqdm's own width and height draw nothing where the terminal does not know them.
    columns, lines = get_terminal_size()
    bar = tqdm(
        total=progress.total,
        desc=progress.stage,
        file=sys.stderr,
        ncols=columns,
        nrows=lines,
        ascii=".#",
        unit=progress.unit,
        unit_scale=bool(progress.unit),
        bar_format="{desc:<14} [{bar:24}] {n_fmt}/{total_fmt}{unit} {remaining} left",
        smoothing=0,  # the time left is by the mean pace of the stage: chunks take unequal times
    )
    bar.start_t -= progress.elapsed
    return bar


def parser() -> argparse.ArgumentParser:
    # Installed with pip there is a command `adaflow`; a checkout has only the module.
    program = "adaflow" if Path(sys.argv[0]).stem == "adaflow" else "python -m adaflow_core"
    top = _Parser(prog=program, description="Text-driven editing of long videos with a diffusion model.")
    top.add_argument("--version", action="version", version=f"adaflow {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    plan = commands.add_parser("plan", help="choose keyframes and kept tokens; write plan.json and pictures")
    _shared(plan)
    plan.add_argument("--prompt", metavar="TEXT", help="also show where an edit to this prompt changes the video")
    plan.add_argument("--out", type=Path, default=Path("outputs/plan"), metavar="DIR")
    plan.set_defaults(run=_plan)

    edit = commands.add_parser("edit", help="edit a video by text")
    _shared(edit, video="?")
    add_prompts(edit)
    _add_settings(edit, EditConfig)
    edit.add_argument("--out", type=Path, default=Path("outputs/edit.mp4"), metavar="FILE.mp4")
    edit.add_argument("--report", type=Path, metavar="FILE.json")
    _add_film(edit)
    edit.set_defaults(run=_edit, model=None)

    retake = commands.add_parser("retake", help="edit a stretch of a project's film again, all else untouched")
    retake.add_argument("project", type=Path, metavar="PROJECT.json")
    add_model(retake)
    retake.add_argument("--frames", required=True, metavar="A:B", help="the stretch, the end not included")
    retake.add_argument("--prompt", metavar="TEXT", help="by default what the stretch shows now")
    retake.add_argument("--source-prompt", metavar="TEXT", help="what is in the stretch now")
    _add_settings(retake, EditConfig)
    retake.add_argument("--out", type=Path, default=Path("outputs/retake.mp4"), metavar="FILE.mp4")
    retake.set_defaults(run=_retake, model=None)  # the project's

    batch = commands.add_parser("batch", help="edit all clips of a manifest, here or on a Ray cluster")
    batch.add_argument("manifest", metavar="FILE.jsonl", help="a line a clip: video, source_prompt, prompts")
    _add_common(batch)
    _add_settings(batch, PlanConfig, without=["source_prompt"])
    _add_settings(batch, EditConfig)
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
    command.add_argument("--model", default="embedded", metavar="embedded|sd15|sd21-base|sd21|ID|DIR|FILE.safetensors")
    command.add_argument(
        "--lora", action="append", default=[], metavar="FILE[=WEIGHT]", help="fused into the model; may be repeated"
    )
    command.add_argument("--vae", default="", metavar="DIR|FILE", help="an autoencoder in place of the model's own")
    command.add_argument(
        "--embedding", action="append", default=[], metavar="FILE[=WORD]", help="a textual inversion; may be repeated"
    )
    command.add_argument("--device", default="auto", metavar="auto|cuda|mps|cpu")
    command.add_argument("--dtype", default="auto", choices=["auto", "float16", "bfloat16", "float32"])
    command.add_argument("--attention", default="auto", choices=["auto", "sdpa", "xformers"])


def _add_film(edit: argparse.ArgumentParser) -> None:
    group = edit.add_argument_group("drafts and projects")
    group.add_argument(
        "--draft", action="store_true", help="only the keyframes, before smoothing: draft.png and draft.json, a "
        "project, beside --out. The same command without --draft goes on from it",
    )  # fmt: skip
    compared = group.add_mutually_exclusive_group()
    compared.add_argument("--seeds", metavar="N,N,...", help="with --draft: up to four seeds side by side")
    compared.add_argument(
        "--compare", metavar="SETTING=X,X,...", help="with --draft: up to four values of a setting of the edit"
    )
    group.add_argument(
        "--project", type=Path, metavar="FILE.json", help="video, prompt and settings in one file: read if it is "
        "there, under the flags, and written",
    )  # fmt: skip


def add_prompts(command: argparse.ArgumentParser) -> None:
    """What the edited video should show: as a whole, or range by range."""
    ways = command.add_mutually_exclusive_group()
    ways.add_argument(
        "--prompt", action="append", metavar="[A:B] TEXT",
        help='what the video should show; may be given again for ranges: "0:48 a ball", in seconds "0s:2s a ball"',
    )  # fmt: skip
    ways.add_argument("--prompts", type=Path, metavar="FILE.json", help='[{"frames": [0, 48], "prompt": "..."}, ...]')
    command.add_argument(
        "--crossfade", type=int, metavar="FRAMES", help="over which one range's edit goes over into the next in a shot"
    )


def _shared(command: argparse.ArgumentParser, video: str | None = None) -> None:
    command.add_argument("video", type=Path, metavar="VIDEO", nargs=video)
    _add_common(command)
    _add_settings(command, PlanConfig)


def _add_common(command: argparse.ArgumentParser) -> None:
    add_model(command)
    command.add_argument("--frames", metavar="A:B", help="only these frames")
    command.add_argument("--size", metavar="WxH", help="working size in pixels")
    command.add_argument("--preset", default="default", choices=sorted(PRESETS))
    command.add_argument("--settings", type=Path, metavar="FILE.json", help="the settings of a report, under the flags")


def _add_settings(
    command: argparse.ArgumentParser, config: type[PlanConfig | EditConfig], without: Iterable[str] = ()
) -> None:
    """A flag for each setting. Those that are not given are no attributes of the parsed arguments."""
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
    """Where a batch runs and how much of it."""
    command.add_argument("--ray", metavar="local|ADDRESS", help="on Ray: on this machine, or on a cluster")
    command.add_argument("--workers", type=int, metavar="N", help="with --ray: tasks at a time; default: what fits")
    command.add_argument("--gpus-per-task", type=float, metavar="G", help="with --ray; default: 1 where there are any")
    command.add_argument("--retries", type=int, default=2, metavar="N", help="of a task whose worker dies")
    command.add_argument("--limit", type=int, metavar="N", help="only the first N clips")
    command.add_argument("--cache", metavar="DIR", help="where each machine keeps what its edits share")
    command.add_argument("--cache-gb", type=float, default=100, metavar="N", help="how large it may grow")


def _plan_config(arguments: argparse.Namespace) -> PlanConfig:
    flags = _flags(arguments, PlanConfig)
    if flags.keys() & set(BUDGET):
        flags = dict.fromkeys(BUDGET) | flags
    return replace(PRESETS[arguments.preset][0], **_settings_file(arguments)[0] | flags)


def _edit_config(arguments: argparse.Namespace) -> EditConfig:
    flags = _flags(arguments, EditConfig)
    if "steps" in flags:
        flags = {"inversion_steps": None} | flags  # the preset's own number belongs to the preset's steps
    return replace(PRESETS[arguments.preset][1], **_settings_file(arguments)[1] | flags)


def _flags(arguments: argparse.Namespace, config: type) -> dict[str, Any]:
    return {name: value for name, value in vars(arguments).items() if name in settings_of(config)}


def _settings_file(arguments: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings under the flags: those of --settings over those of a project that was opened."""
    project = vars(arguments).get("opened")
    plan, edit = ({}, {}) if project is None else (vars(project.plan), vars(project.edit))
    given = ({}, {}) if arguments.settings is None else read_settings(arguments.settings)
    return plan | given[0], edit | given[1]


def _make_plan(arguments: argparse.Namespace, edit: EditConfig | None, bar: Bar, stop: Any) -> tuple[AdaFlow, Plan]:
    from adaflow_core import video

    # Everything that can be wrong with the arguments is looked at before the model loads.
    config = _plan_config(arguments)
    size = video.parse_size(arguments.size) if arguments.size else None
    frames = video.parse_range(arguments.frames) if arguments.frames else None
    video.probe(arguments.video)
    engine = _load(arguments, bar, stop)
    plan = engine.plan(arguments.video, config, edit=edit, size=size, frames=frames, progress=bar, stop=stop)
    for note in plan.notes:
        print(f"adaflow: note: {note}", file=sys.stderr)
    return engine, plan


def _load(arguments: argparse.Namespace, bar: Bar, stop: Any) -> AdaFlow:
    from adaflow_core.engine import AdaFlow

    return AdaFlow.from_pretrained(
        arguments.model,
        loras=arguments.lora,
        vae=arguments.vae,
        embeddings=arguments.embedding,
        device=arguments.device,
        dtype=arguments.dtype,
        attention=arguments.attention,
        progress=bar,
        stop=stop,
    )


def _plan(arguments: argparse.Namespace, bar: Bar, stop: Any) -> None:
    from adaflow_core.report.export import save_plan
    from adaflow_core.report.visualize import place_sentence
    from adaflow_core.video import probe
    from adaflow_core.video.write import check_folder

    prompt = arguments.prompt
    if prompt is not None:
        _check_prompt(prompt)
    edit = _edit_config(arguments)
    probe(arguments.video)
    check_folder(arguments.out / "plan.json")
    engine, plan = _make_plan(arguments, edit, bar, stop)
    place = None if prompt is None else engine.place(plan, prompt, config=edit, progress=bar, stop=stop)
    folder = save_plan(plan, arguments.out, place)
    if place is not None:
        print(place_sentence(place))
    print(
        f"{counted(len(plan.segments), 'keyframe')} for {counted(len(plan.video), 'frame')}; "
        f"each attends to {plan.tokens_kept} of {plan.tokens_full} tokens ({plan.kept_ratio:.0%})\n"
        f"forecast for the edit: {plan.forecast.total:.0f} s, {plan.forecast.peak_memory_bytes / 2**30:.1f} GiB\n"
        f"{folder}"
    )


def _check_prompt(prompt: str) -> None:
    if not prompt.strip():
        raise AdaFlowError("the prompt is empty; say what the video should show with --prompt")


def _edit(arguments: argparse.Namespace, bar: Bar, stop: Any) -> None:
    from adaflow_core.video import probe
    from adaflow_core.video.write import check_folder, check_output

    _open(arguments)
    asked = _asked(arguments)
    config = _edit_config(arguments)
    compared = _compared(arguments, config)
    probe(arguments.video)
    check_output(arguments.out, arguments.video)
    for path in (arguments.report, arguments.project):
        if path:
            check_folder(path)
    engine, plan = _make_plan(arguments, config, bar, stop)
    timeline = _on(asked, plan)
    if arguments.draft:
        _draft(arguments, engine, plan, timeline, compared, bar, stop)
        return
    takes, prompt = arguments.opened.takes if arguments.opened else (), timeline.one_prompt(plan.video)
    if prompt is None:
        seconds = engine.forecast_timeline(plan, timeline, config).total
        print(f"forecast: {seconds:.0f} s for {len(timeline.ranges)} ranges", file=sys.stderr)
    if prompt is None or takes or arguments.project:  # whose frames are kept for retakes
        result = engine.replay(plan, timeline, config, takes, progress=bar, stop=stop)
    else:
        result = engine.edit(plan, prompt, config, progress=bar, stop=stop)
    for warning in result.warnings:
        print(f"adaflow: note: {warning}", file=sys.stderr)
    path = result.save(arguments.out)
    if arguments.project:
        _project(arguments, plan, timeline, config).save(arguments.project)
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


def _open(arguments: argparse.Namespace) -> None:
    """What the project holds, if there is one, in place of the arguments that are not given."""
    from adaflow_core.film.project import open_project

    arguments.opened = None
    if arguments.project and arguments.project.exists():
        arguments.opened = project = open_project(arguments.project, arguments.video)
        if arguments.preset != "default":
            raise AdaFlowError("a project has settings of its own; change single ones by their flags, not by --preset")
        arguments.video = project.video
        for name in ("model", "size", "frames"):
            setattr(arguments, name, getattr(arguments, name) or getattr(project, name))
    arguments.model = arguments.model or "embedded"
    if arguments.video is None:
        raise AdaFlowError("VIDEO is missing; give it, or a --project that holds it")


def _project(arguments: argparse.Namespace, plan: Plan, timeline: Timeline, config: EditConfig) -> Project:
    """The project of this edit; of one that was opened, with what the arguments changed."""
    from adaflow_core.film.project import Project

    opened, keyframes = arguments.opened, tuple(plan.segments.keyframes.tolist())
    asked = _plan_config(arguments)
    if opened is not None and opened.plan == asked and opened.keyframes not in ((), keyframes):
        print("adaflow: note: this machine finds other keyframes than the project has; the film may differ",
              file=sys.stderr)  # fmt: skip
    return Project(
        video=arguments.video,
        plan=asked,
        edit=config,
        prompts=tuple(timeline.as_json()),
        model=arguments.model,
        size=arguments.size,
        frames=arguments.frames,
        keyframes=keyframes,
        takes=() if opened is None else opened.takes,
        rest=({} if opened is None else opened.rest) | {"crossfade": timeline.crossfade},
    )


def _compared(arguments: argparse.Namespace, config: EditConfig) -> list[tuple[str, EditConfig]]:
    """The edits that a draft shows side by side, with their labels."""
    from adaflow_core.film.draft import MOST

    text = f"seed={arguments.seeds}" if arguments.seeds else arguments.compare
    if text is None:
        return [("edit", config)]
    if not arguments.draft:
        raise AdaFlowError("--seeds and --compare show drafts side by side; add --draft, or give one value by its flag")
    name, _, values = text.partition("=")
    setting = settings_of(EditConfig).get(name.replace("-", "_"))
    parts = values.split(",")
    if setting is None or not values:
        raise AdaFlowError(f"--compare is {text!r}; name a setting of the edit and its values, as in guidance=4,8")
    if len(parts) > MOST:
        raise AdaFlowError(f"{len(parts)} drafts are to be compared; {MOST} fit side by side")
    if setting.name == "seed" and not config.variation:
        raise AdaFlowError("without --variation an edit is the same for every seed; add, say, --variation 0.3")
    given = [replace(config, **{setting.name: setting.parse(part)}) for part in parts]
    return [(f"{name} {part}", edit) for part, edit in zip(parts, given, strict=True)]


def _draft(
    arguments: argparse.Namespace,
    engine: AdaFlow,
    plan: Plan,
    timeline: Timeline,
    compared: list[tuple[str, EditConfig]],
    bar: Bar,
    stop: Any,
) -> None:
    from adaflow_core.film.draft import contact_sheet
    from adaflow_core.report.canvas import save_picture

    prompt = timeline.one_prompt(plan.video)
    if prompt is None:
        raise AdaFlowError("a draft shows one prompt for the whole video; try the ranges one by one, with --frames")
    seconds = sum(engine.forecast_draft(plan, config).total for _, config in compared)
    print(f"forecast: {seconds:.0f} s for the draft, {plan.forecast.total:.0f} s for the edit", file=sys.stderr)
    drafts = []
    for label, config in compared:
        drafts.append((label, engine.draft(plan, prompt, config, progress=bar, stop=stop)))
    for warning in dict.fromkeys(warning for _, draft in drafts for warning in draft.warnings):
        print(f"adaflow: note: {warning}", file=sys.stderr)
    folder = arguments.out.parent
    project = _project(arguments, plan, timeline, _edit_config(arguments))
    tried = [{"label": label, **draft.report} for label, draft in drafts]
    for path in (folder / "draft.json", arguments.project):
        if path:
            replace(project, rest=project.rest | {"drafts": tried}).save(path)
    print(save_picture(contact_sheet(plan, drafts), folder / "draft.png"))


def _asked(arguments: argparse.Namespace) -> str | Timeline:
    """One prompt for the whole video, or a timeline: of the arguments, else of the project."""
    from adaflow_core.film.timeline import Timeline, parse_prompts, read_prompts

    project, crossfade = arguments.opened, arguments.crossfade
    asked: str | tuple[PromptRange, ...]
    if arguments.prompts:
        asked = read_prompts(arguments.prompts)
    elif arguments.prompt:
        asked = parse_prompts(arguments.prompt)
    elif project:
        return project.timeline if crossfade is None else replace(project.timeline, crossfade=crossfade)
    else:
        raise AdaFlowError("--prompt is missing; give it, or a --project that holds it")
    if isinstance(asked, str):
        _check_prompt(asked)
        return asked
    return Timeline(asked) if crossfade is None else Timeline(asked, crossfade)


def _on(asked: str | Timeline, plan: Plan) -> Timeline:
    """What is asked for, in frames of the planned video."""
    from adaflow_core.film.timeline import PromptRange, Timeline

    return (Timeline((PromptRange(0, len(plan.video), asked),)) if isinstance(asked, str) else asked).on(plan.video)


def _retake(arguments: argparse.Namespace, bar: Bar, stop: Any) -> None:
    from adaflow_core.film.project import open_project
    from adaflow_core.video import parse_range, parse_size
    from adaflow_core.video.write import check_output

    project, chosen = open_project(arguments.project), parse_range(arguments.frames)
    check_output(arguments.out, project.video)
    arguments.model = arguments.model or project.model
    engine = _load(arguments, bar, stop)
    plan = engine.plan(
        project.video, project.plan, size=parse_size(project.size) if project.size else None,
        frames=parse_range(project.frames) if project.frames else None, progress=bar, stop=stop,
    )  # fmt: skip
    before = engine.replay(plan, project.timeline, project.edit, project.takes, progress=bar, stop=stop)
    start, end, _ = chosen.indices(len(plan.video))
    config = replace(project.edit, **_flags(arguments, EditConfig))
    print(f"forecast: {engine.forecast_retake(plan, (start, end), config).total:.0f} s", file=sys.stderr)
    result = engine.retake(
        plan, before, (start, end), arguments.prompt, config,
        source_prompt=arguments.source_prompt, progress=bar, stop=stop,
    )  # fmt: skip
    for warning in result.warnings:
        print(f"adaflow: note: {warning}", file=sys.stderr)
    path = result.save(arguments.out)
    replace(project, takes=tuple(result.report["takes"])).save(arguments.project)
    print(path)


def _batch(arguments: argparse.Namespace, bar: Bar, stop: Any) -> None:
    from adaflow_core.batch.manifest import read_manifest
    from adaflow_core.video.types import parse_range, parse_size

    method = vars(arguments).get("method") or ("adaflow" if arguments.preset == "default" else arguments.preset)
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
    """The batch that the arguments of `add_model` and `add_workers` ask for."""
    from adaflow_core.batch import run as batch

    job = batch.Job(
        out=arguments.out,
        model=str(ModelParts(arguments.model, tuple(arguments.lora), arguments.vae, tuple(arguments.embedding))),
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
    from adaflow_core.model.hub.client import SHORT_NAMES
    from adaflow_core.model.loading import KNOWN_MODELS

    for name, description in KNOWN_MODELS.items():
        where = f" ({SHORT_NAMES[name]})" if name in SHORT_NAMES else ""
        print(f"{name}\n    {description}{where}")
    print(
        "any other Hub id, folder in diffusers' format or single .safetensors file of Stable Diffusion 1.x or 2.x;\n"
        "--lora, --vae and --embedding add to it"
    )


def _selfcheck(arguments: argparse.Namespace, bar: Bar, stop: Any) -> None:
    from adaflow_core.selfcheck import selfcheck

    findings = selfcheck(_load(arguments, bar, stop), arguments.video, progress=bar, stop=stop)
    print(findings.table)
    if findings.problems:
        raise AdaFlowError("; ".join(findings.problems))


def main(argv: list[str] | None = None) -> int:
    """Exit status 0, 2 for anything the user can mend (one line on stderr), 130 when stopped."""
    stopped = False

    def ask_to_stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    before = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        arguments = parser().parse_args(argv)
        with closing(Bar()) as bar:
            arguments.run(arguments, bar, lambda: stopped)
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
