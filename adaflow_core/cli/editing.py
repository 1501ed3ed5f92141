"""`edit` with its drafts, ranges and projects, and `retake`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from adaflow_core.cli.arguments import edit_config, edit_flags, plan_config
from adaflow_core.cli.bar import Bar
from adaflow_core.cli.opened import (
    Opened,
    check_draft,
    check_model,
    check_other_frames,
    is_as_it_was,
    model_of,
    open_given,
    other_keyframes,
    project_of,
    save,
    take_model,
    with_others,
)
from adaflow_core.cli.outputs import check_apart, inputs_beside, inputs_of, is_same_file
from adaflow_core.cli.planning import check_prompt, load, make_plan
from adaflow_core.config import EditConfig, settings_of
from adaflow_core.errors import AdaFlowError

if TYPE_CHECKING:
    from pathlib import Path

    from adaflow_core.engine import AdaFlow
    from adaflow_core.film.project import Project
    from adaflow_core.film.timeline import PromptRange, Timeline
    from adaflow_core.picture.by_hand import ByHand
    from adaflow_core.picture.full_size import Delivered
    from adaflow_core.picture.region import Region
    from adaflow_core.types import EditResult, Plan


def edit_command(arguments: argparse.Namespace, bar: Bar, stop: Any) -> None:
    from adaflow_core.film.timeline import crossfade_notes, range_notes

    opened = open_given(arguments)
    project = opened.project if opened else None
    by_hand = _by_hand(arguments, opened)
    config = edit_config(arguments, project)
    region = _region(arguments, opened)
    check_other_frames(arguments, opened, region, by_hand)
    asked = _asked(arguments, opened)
    over: dict[str, Any] = {"region": region, "by_hand": by_hand, "progress": bar, "stop": stop}
    compared = _compared(arguments, project, config)
    _check_files(arguments, region, by_hand)
    engine, plan = make_plan(arguments, plan_config(arguments, project), config, bar, stop)
    if project and is_as_it_was(arguments, project):
        _note(arguments, other_keyframes(project, plan))
    _say_crop(arguments, engine, plan, region, over)
    _note(arguments, range_notes(arguments.prompt or (), len(plan.video)))
    timeline = _on(asked, _crossfade(arguments, project), plan)
    if arguments.draft:
        _draft(arguments, project, engine, plan, timeline, compared, over)
        return
    if not any(plan.config.source_prompt or each.source_prompt for each in timeline.ranges):
        print("adaflow: note: nothing says what is in the video; with --source-prompt the edit keeps more of it",
              file=sys.stderr)  # fmt: skip
    takes, prompt = project.takes if project else (), timeline.one_prompt(plan.video)
    if prompt is None:
        _note(arguments, crossfade_notes(timeline, plan.segments.cuts, len(plan.video)))
        seconds = engine.forecast_timeline(plan, timeline, config).total
        print(f"forecast: {seconds:.0f} s for {len(timeline.ranges)} ranges", file=sys.stderr)
    if prompt is None or takes or arguments.project:  # whose frames are kept for retakes
        result = engine.replay(plan, timeline, config, takes, **over)
    else:
        result = engine.edit(plan, prompt, config, **over)
    _note(arguments, result.warnings)
    written, as_asked = _deliver(arguments, plan, result, bar, stop)
    if arguments.project:
        _keep(arguments, project, project_of(arguments, project, plan, timeline, config), over)
    if arguments.report:
        scores = engine.score(plan, result, region=region, progress=bar, stop=stop)
        _note(arguments, scores.warnings)
        delivered = {"deliver": written.deliver, "delivered_size": written.size}
        report = json.dumps(result.report | delivered | {"scores": asdict(scores)}, indent=1)
        try:
            arguments.report.write_text(report, encoding="utf-8")
        except OSError as problem:
            raise AdaFlowError(
                f"cannot write {arguments.report} ({problem.strerror}); free some space: the video is in {written.path}"
            ) from problem
    if as_asked:  # else the same command delivers it once its source is back
        result.forget_state()
    print(written.path)


def _check_files(arguments: argparse.Namespace, region: Region | None, by_hand: ByHand | None) -> None:
    """Raise AdaFlowError if the video cannot be read, or an output cannot be written or would overwrite an input."""
    from adaflow_core.video import probe
    from adaflow_core.video.write import check_folder, check_output

    probe(arguments.video)
    outputs = {"--out": arguments.out, "--report": arguments.report, "--project": arguments.project}
    drafted: dict[str, Path] = {}
    if arguments.draft:
        drafted = {name: arguments.out.parent / name for name in ("draft.png", "draft.json")}
        if arguments.project and is_same_file(arguments.project, drafted["draft.json"]):
            del drafted["draft.json"]  # the draft writes its project there anyway
    check_apart(outputs | drafted, (*inputs_of(arguments.video, region, by_hand), *inputs_beside(arguments)))
    if arguments.draft and arguments.report:
        raise AdaFlowError("--report is of an edit, and a draft has none; leave it out with --draft")
    if "draft.json" in drafted:
        check_draft(drafted["draft.json"], arguments.video)
    check_output(arguments.out, arguments.video)
    for path in (arguments.report, arguments.project):
        if path:
            check_folder(path)


def _keep(arguments: argparse.Namespace, opened: Project | None, project: Project, over: dict[str, Any]) -> None:
    """Write the project of an edit; takes that others added to it since it was `opened` stay in it."""
    project, notes = with_others(project, arguments.project, opened)
    save(project, over, arguments.project)
    _note(arguments, notes)


def _note(arguments: argparse.Namespace, sentences: Iterable[str]) -> None:
    """Print the notes, each once in a command."""
    said: set[str] = vars(arguments).setdefault("said", set())
    for sentence in sentences:
        if sentence not in said:
            print(f"adaflow: note: {sentence}", file=sys.stderr)
            said.add(sentence)


def _say_crop(
    arguments: argparse.Namespace, engine: AdaFlow, plan: Plan, region: Region | None, over: dict[str, Any]
) -> None:
    """Print which part of the picture the edit of a region passes through the model, and any doubt about the region.

    The edit then finds the region in the cache.
    """
    from adaflow_core.editing.forecasting.forecast import of_crop
    from adaflow_core.picture.region import crop_line

    if region is None:
        return
    mask = engine.region(plan, region, progress=over["progress"], stop=over["stop"])
    seconds = of_crop(plan.forecast, 1.0 if mask.window is None else mask.window.share).total
    print(f"region: {crop_line(mask)} Forecast: {seconds:.0f} s", file=sys.stderr)
    _note(arguments, [mask.doubt] if mask.doubt else [])


def _deliver(
    arguments: argparse.Namespace, plan: Plan, result: EditResult, bar: Bar, stop: Any
) -> tuple[Delivered, bool]:
    """Write the edit and return whether it is at the size asked for.

    If the source is gone or cannot be read again, it is written at the working size, so that it is not lost. The state
    from which the edit can go on is kept, as its report is not written yet.
    """
    from adaflow_core.picture.full_size import deliver_edit
    from adaflow_core.progress import Monitor

    monitor, result, as_asked = Monitor(bar, stop), replace(result, state=None), True
    try:
        written = deliver_edit(arguments.out, result, plan.video, arguments.deliver, monitor=monitor)
    except AdaFlowError as problem:
        if arguments.deliver == "working":
            raise
        written, as_asked = deliver_edit(arguments.out, result, plan.video, "working", monitor=monitor), False
        _note(arguments, [f"{problem}; it was delivered at the working size"])
    _note(arguments, written.notes)
    return written, as_asked


def _region(arguments: argparse.Namespace, opened: Opened | None) -> Region | None:
    """Return the region of the arguments, else of the project."""
    from adaflow_core.engine.projects import region_of
    from adaflow_core.picture.region import Region
    from adaflow_core.video import probe
    from adaflow_core.video.images import is_picture, read_picture

    masks, frames, words = arguments.mask, arguments.mask_frame, arguments.region
    given = {name: value for name in ("feather", "crop") if (value := getattr(arguments, name)) is not None}
    if not masks and not words:
        kept = region_of(opened.project) if opened else None
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


def _by_hand(arguments: argparse.Namespace, opened: Opened | None) -> ByHand | None:
    """Return the keyframes by hand of the arguments, else of the project."""
    from adaflow_core.engine.projects import by_hand_of
    from adaflow_core.picture.by_hand import ByHand, check_pictures

    given = arguments.keyframe_image
    if not given:
        return by_hand_of(opened.project) if opened else None
    if len({frame for frame, _ in given}) != len(given):
        raise AdaFlowError("a frame has two --keyframe-image; give one for each frame")
    by_hand = ByHand(dict(given))
    check_pictures(by_hand)
    return by_hand


def _compared(
    arguments: argparse.Namespace, project: Project | None, config: EditConfig
) -> list[tuple[str, EditConfig]]:
    """Return the labels and settings of the edits that a draft shows side by side."""
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
    given = [{setting.name: setting.parse(part)} for part in parts]  # parsed as by their flag
    edits = [edit_config(argparse.Namespace(**vars(arguments) | values), project) for values in given]
    return [(f"{name} {part}", edit) for part, edit in zip(parts, edits, strict=True)]


def _draft(
    arguments: argparse.Namespace,
    opened: Project | None,
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
    tried = [{"label": label, **draft.report} for label, draft in drafts]
    project = project_of(arguments, opened, plan, timeline, edit_config(arguments, opened))
    project = replace(project, rest=project.rest | {"drafts": tried})
    if not (arguments.project and is_same_file(arguments.project, folder / "draft.json")):
        save(project, over, folder / "draft.json")
    if arguments.project:
        _keep(arguments, opened, project, over)
    print(save_picture(contact_sheet(plan, drafts), folder / "draft.png"))


def _asked(arguments: argparse.Namespace, opened: Opened | None) -> str | tuple[PromptRange, ...]:
    """Return one prompt for the whole video, or several ranges' prompts: of the arguments, else of the project."""
    from adaflow_core.film.timeline import PromptRange, Timeline, parse_prompts, read_prompts

    project = opened.project if opened else None
    asked: str | tuple[PromptRange, ...]
    if arguments.prompts:
        asked = read_prompts(arguments.prompts)
    elif arguments.prompt:
        asked = parse_prompts(arguments.prompt)
    elif opened and opened.other_frames:
        asked = opened.project.prompts[0]["prompt"]  # one for all its frames, as `check_other_frames` made sure
    elif opened:
        asked = opened.project.timeline.ranges
    elif arguments.keyframe_image and (source_prompt := plan_config(arguments, project).source_prompt):
        return source_prompt
    elif arguments.keyframe_image:
        raise AdaFlowError("a keyframe by hand alone needs --source-prompt, what is in the video; or give --prompt")
    elif arguments.project:
        raise AdaFlowError(f"--prompt is missing, and there is no project {arguments.project} that holds it; give it")
    else:
        raise AdaFlowError("--prompt is missing; give it, or a --project that holds it")
    if isinstance(asked, str):
        check_prompt(asked)
    # Before anything long begins: AdaFlowError for ranges that overlap, or no crossfade.
    Timeline((PromptRange(0, 1, asked),) if isinstance(asked, str) else asked, _crossfade(arguments, project))
    return asked


def _crossfade(arguments: argparse.Namespace, project: Project | None) -> int:
    """Return the crossfade of the arguments, else of the project, in frames."""
    from adaflow_core.film.timeline import CROSSFADE

    kept = CROSSFADE if project is None else project.crossfade
    return int(kept if arguments.crossfade is None else arguments.crossfade)


def _on(asked: str | tuple[PromptRange, ...], crossfade: int, plan: Plan) -> Timeline:
    """Return the timeline of what is asked for, in frames of the planned video."""
    from adaflow_core.film.timeline import PromptRange, Timeline

    ranges = (PromptRange(0, len(plan.video), asked),) if isinstance(asked, str) else asked
    return Timeline(ranges, crossfade).on(plan.video)


def retake_command(arguments: argparse.Namespace, bar: Bar, stop: Any) -> None:
    from adaflow_core.engine.projects import by_hand_of, film_of, plan_of, region_of
    from adaflow_core.film.project import open_project
    from adaflow_core.video import parse_range
    from adaflow_core.video.write import check_folder, check_output

    project, chosen = open_project(arguments.project), parse_range(arguments.frames)
    if arguments.prompt is not None:
        check_prompt(arguments.prompt)
    take_model(arguments, project)
    check_model(arguments, project)
    region, by_hand = region_of(project), by_hand_of(project)
    outputs = {"--out": arguments.out, "the project": arguments.project}
    check_apart(outputs, (*inputs_of(project.video, region, by_hand), *inputs_beside(arguments)))
    check_output(arguments.out, project.video)
    check_folder(arguments.project)
    config = replace(project.edit, **edit_flags(arguments))
    engine = load(arguments, bar, stop)
    plan = plan_of(engine, project, progress=bar, stop=stop)
    start, end, _ = chosen.indices(len(plan.video))
    if start >= end:
        raise AdaFlowError(f"--frames {arguments.frames} holds no frame of the film, which has 0:{len(plan.video)}")
    _note(arguments, other_keyframes(project, plan))
    before = film_of(engine, project, plan, progress=bar, stop=stop)
    print(f"forecast: {engine.forecast_retake(plan, (start, end), config).total:.0f} s", file=sys.stderr)
    named = arguments.source_prompt
    result = engine.retake(
        plan, before, (start, end), arguments.prompt, config, source_prompt=named, region=region, by_hand=by_hand,
        progress=bar, stop=stop,
    )  # fmt: skip
    _note(arguments, result.warnings)
    written, _ = _deliver(arguments, plan, result, bar, stop)
    # With the model as it was given: its files may have moved since the project was saved.
    retaken = replace(project, model=str(model_of(arguments)), takes=(*project.takes, result.report["takes"][-1]))
    project, notes = with_others(retaken, arguments.project, project)
    project.save(arguments.project)
    _note(arguments, notes)
    print(written.path)
