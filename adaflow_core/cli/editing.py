"""`edit` with its drafts, ranges and projects, and `retake`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaflow_core.cli.arguments import edit_config, edit_flags, plan_config
from adaflow_core.cli.bar import Bar
from adaflow_core.cli.planning import check_prompt, load, make_plan
from adaflow_core.config import EditConfig, settings_of
from adaflow_core.errors import AdaFlowError

if TYPE_CHECKING:
    from adaflow_core.engine import AdaFlow
    from adaflow_core.film.project import Project
    from adaflow_core.film.timeline import PromptRange, Timeline
    from adaflow_core.picture.by_hand import ByHand
    from adaflow_core.picture.full_size import Delivered
    from adaflow_core.picture.region import Region
    from adaflow_core.types import EditResult, Plan


def edit_command(arguments: argparse.Namespace, bar: Bar, stop: Any) -> None:
    from adaflow_core.video import probe
    from adaflow_core.video.write import check_folder, check_output

    _open(arguments)
    by_hand = _by_hand(arguments)
    asked = _asked(arguments)
    config = edit_config(arguments)
    region = _region(arguments)
    over: dict[str, Any] = {"region": region, "by_hand": by_hand, "progress": bar, "stop": stop}
    compared = _compared(arguments, config)
    probe(arguments.video)
    check_output(arguments.out, arguments.video)
    for path in (arguments.report, arguments.project):
        if path:
            check_folder(path)
    engine, plan = make_plan(arguments, config, bar, stop)
    _say_crop(arguments, engine, plan, region, over)
    timeline = _on(asked, plan)
    if arguments.draft:
        _draft(arguments, engine, plan, timeline, compared, over)
        return
    if not any(plan.config.source_prompt or each.source_prompt for each in timeline.ranges):
        print("adaflow: note: nothing says what is in the video; with --source-prompt the edit keeps more of it",
              file=sys.stderr)  # fmt: skip
    takes, prompt = arguments.opened.takes if arguments.opened else (), timeline.one_prompt(plan.video)
    if prompt is None:
        seconds = engine.forecast_timeline(plan, timeline, config).total
        print(f"forecast: {seconds:.0f} s for {len(timeline.ranges)} ranges", file=sys.stderr)
    if prompt is None or takes or arguments.project:  # whose frames are kept for retakes
        result = engine.replay(plan, timeline, config, takes, **over)
    else:
        result = engine.edit(plan, prompt, config, **over)
    _note(arguments, result.warnings)
    written = _deliver(arguments, plan, result, bar, stop)
    if arguments.project:
        _save(_project(arguments, plan, timeline, config), over, arguments.project)
    if arguments.report:
        scores = engine.score(plan, result, progress=bar, stop=stop)
        _note(arguments, scores.warnings)
        delivered = {"deliver": written.deliver, "delivered_size": written.size}
        report = json.dumps(result.report | delivered | {"scores": asdict(scores)}, indent=1)
        try:
            arguments.report.write_text(report, encoding="utf-8")
        except OSError as problem:
            raise AdaFlowError(
                f"cannot write {arguments.report} ({problem.strerror}); free some space: the video is in {written.path}"
            ) from problem
    print(written.path)


def _note(arguments: argparse.Namespace, sentences: Iterable[str]) -> None:
    """Say them, each once in a command."""
    said: set[str] = vars(arguments).setdefault("said", set())
    for sentence in sentences:
        if sentence not in said:
            print(f"adaflow: note: {sentence}", file=sys.stderr)
            said.add(sentence)


def _say_crop(
    arguments: argparse.Namespace, engine: AdaFlow, plan: Plan, region: Region | None, over: dict[str, Any]
) -> None:
    """What of the picture an edit of the region passes through the model; the edit finds the region in the cache.

    If it may be the wrong part that is said too, before the edit.
    """
    from adaflow_core.editing.forecast import of_crop
    from adaflow_core.picture.region import crop_line

    if region is None:
        return
    mask = engine.region(plan, region, progress=over["progress"], stop=over["stop"])
    seconds = of_crop(plan.forecast, 1.0 if mask.window is None else mask.window.share).total
    print(f"region: {crop_line(mask)} Forecast: {seconds:.0f} s", file=sys.stderr)
    _note(arguments, [mask.doubt] if mask.doubt else [])


def _deliver(arguments: argparse.Namespace, plan: Plan, result: EditResult, bar: Bar, stop: Any) -> Delivered:
    """Write the edit; at the working size where its source is gone or cannot be read again, so that it is not lost."""
    from adaflow_core.picture.full_size import deliver_edit
    from adaflow_core.progress import Monitor

    monitor = Monitor(bar, stop)
    try:
        return deliver_edit(arguments.out, result, plan.video, arguments.deliver, monitor=monitor)
    except AdaFlowError as problem:
        if arguments.deliver == "working":
            raise
        written = deliver_edit(arguments.out, result, plan.video, "working", monitor=monitor)
        print(f"adaflow: note: {problem}; it was delivered at the working size", file=sys.stderr)
        return written


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
    if arguments.video is None and arguments.project:
        raise AdaFlowError(f"there is no project {arguments.project}; check its path, or give the VIDEO of a new one")
    if arguments.video is None:
        raise AdaFlowError("VIDEO is missing; give it, or a --project that holds it")


def _project(arguments: argparse.Namespace, plan: Plan, timeline: Timeline, config: EditConfig) -> Project:
    """The project of this edit; of one that was opened, with what the arguments changed."""
    from adaflow_core.film.project import Project

    opened, keyframes = arguments.opened, tuple(plan.segments.keyframes.tolist())
    asked = plan_config(arguments)
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
        checksum=None if Path(arguments.video).is_dir() else plan.video.file_digest,
    )


def _region(arguments: argparse.Namespace) -> Region | None:
    """The region of the arguments, else of the project."""
    from adaflow_core.picture.region import Region
    from adaflow_core.video import probe
    from adaflow_core.video.images import is_picture, read_picture

    masks, frames, words = arguments.mask, arguments.mask_frame, arguments.region
    given = {name: value for name in ("feather", "crop") if (value := getattr(arguments, name)) is not None}
    if not masks and not words:
        kept = arguments.opened and _kept_region(arguments.opened, arguments.project)
        if frames or (given and not kept):
            raise AdaFlowError("--mask-frame, --feather and --crop belong to a region; add --mask or --region")
        return replace(kept, **given) if kept else None
    if words and masks:
        raise AdaFlowError("--mask and --region both say where to edit; give one of them")
    if words:
        return Region(words=words, **given)
    if len(masks) == 1 and not frames and not is_picture(masks[0]):
        probe(masks[0])
        return Region(masks=masks[0], **given)
    frames = frames or [0]
    if len(frames) != len(masks) or len(set(frames)) != len(frames):
        raise AdaFlowError("each --mask needs the number of its frame; give as many different --mask-frame as --mask")
    for mask in masks:
        read_picture(mask)
    return Region(dict(zip(frames, masks, strict=True)), **given)


def _kept_region(project: Project, path: Path) -> Region | None:
    from adaflow_core.picture.region import Region

    kept = project.rest.get("region")
    return None if kept is None else Region.from_json(kept, path.parent)


def _by_hand(arguments: argparse.Namespace) -> ByHand | None:
    """The keyframes by hand of the arguments, else of the project."""
    from adaflow_core.picture.by_hand import ByHand, check_pictures

    given = arguments.keyframe_image
    if not given:
        return arguments.opened and _kept_by_hand(arguments.opened, arguments.project)
    if len({frame for frame, _ in given}) != len(given):
        raise AdaFlowError("a frame has two --keyframe-image; give one for each frame")
    by_hand = ByHand(dict(given))
    check_pictures(by_hand)
    return by_hand


def _kept_by_hand(project: Project, path: Path) -> ByHand | None:
    from adaflow_core.picture.by_hand import ByHand

    kept = project.rest.get("by_hand")
    return None if kept is None else ByHand.from_json(kept, path.parent)


def _save(project: Project, over: dict[str, Any], path: Path) -> None:
    """Write the project with what is asked for over the picture."""
    kept = {name: over[name] and over[name].as_json(path.parent) for name in ("region", "by_hand")}
    replace(project, rest=project.rest | kept).save(path)


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
    given = [{setting.name: setting.parse(part)} for part in parts]  # as if given by the flag
    edits = [edit_config(argparse.Namespace(**vars(arguments) | values)) for values in given]
    return [(f"{name} {part}", edit) for part, edit in zip(parts, edits, strict=True)]


def _draft(
    arguments: argparse.Namespace,
    engine: AdaFlow,
    plan: Plan,
    timeline: Timeline,
    compared: list[tuple[str, EditConfig]],
    over: dict[str, Any],
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
        drafts.append((label, engine.draft(plan, prompt, config, **over)))
    _note(arguments, (warning for _, draft in drafts for warning in draft.warnings))
    folder = arguments.out.parent
    project = _project(arguments, plan, timeline, edit_config(arguments))
    tried = [{"label": label, **draft.report} for label, draft in drafts]
    for path in (folder / "draft.json", arguments.project):
        if path:
            _save(replace(project, rest=project.rest | {"drafts": tried}), over, path)
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
    elif arguments.keyframe_image and plan_config(arguments).source_prompt:
        return plan_config(arguments).source_prompt
    elif arguments.keyframe_image:
        raise AdaFlowError("a keyframe by hand alone needs --source-prompt, what is in the video; or give --prompt")
    elif arguments.project:
        raise AdaFlowError(f"--prompt is missing, and there is no project {arguments.project} that holds it; give it")
    else:
        raise AdaFlowError("--prompt is missing; give it, or a --project that holds it")
    if isinstance(asked, str):
        check_prompt(asked)
        return asked
    return Timeline(asked) if crossfade is None else Timeline(asked, crossfade)


def _on(asked: str | Timeline, plan: Plan) -> Timeline:
    """What is asked for, in frames of the planned video."""
    from adaflow_core.film.timeline import PromptRange, Timeline

    return (Timeline((PromptRange(0, len(plan.video), asked),)) if isinstance(asked, str) else asked).on(plan.video)


def retake_command(arguments: argparse.Namespace, bar: Bar, stop: Any) -> None:
    from adaflow_core.film.project import open_project
    from adaflow_core.video import parse_range, parse_size
    from adaflow_core.video.write import check_output

    project, chosen = open_project(arguments.project), parse_range(arguments.frames)
    check_output(arguments.out, project.video)
    arguments.model = arguments.model or project.model
    config = replace(project.edit, **edit_flags(arguments))
    engine = load(arguments, bar, stop)
    plan = engine.plan(
        project.video, project.plan, size=parse_size(project.size) if project.size else None,
        frames=parse_range(project.frames) if project.frames else None, progress=bar, stop=stop,
    )  # fmt: skip
    kept = _kept_region(project, arguments.project), _kept_by_hand(project, arguments.project)
    over: dict[str, Any] = {"region": kept[0], "by_hand": kept[1], "progress": bar, "stop": stop}
    before = engine.replay(plan, project.timeline, project.edit, project.takes, **over)
    start, end, _ = chosen.indices(len(plan.video))
    if start >= end:
        raise AdaFlowError(f"--frames {arguments.frames} holds no frame of the film, which has 0:{len(plan.video)}")
    print(f"forecast: {engine.forecast_retake(plan, (start, end), config).total:.0f} s", file=sys.stderr)
    named = arguments.source_prompt
    result = engine.retake(plan, before, (start, end), arguments.prompt, config, source_prompt=named, **over)
    _note(arguments, result.warnings)
    written = _deliver(arguments, plan, result, bar, stop)
    replace(project, takes=tuple(result.report["takes"])).save(arguments.project)
    print(written.path)
