"""What a command takes from a project, under what its arguments say, and what it saves there."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaflow_core.cli.arguments import edit_config, plan_config
from adaflow_core.config import PRESETS, EditConfig
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.files.parts import ModelParts, split_value

if TYPE_CHECKING:
    from adaflow_core.film.project import Project
    from adaflow_core.film.timeline import Timeline
    from adaflow_core.picture.by_hand import ByHand
    from adaflow_core.picture.region import Region
    from adaflow_core.types import Plan


def open_given(arguments: argparse.Namespace) -> None:
    """What the project holds, if there is one, in place of the arguments that are not given.

    `arguments.opened` is the project, or None. AdaFlowError where neither names a video.
    """
    from adaflow_core.film.project import open_project
    from adaflow_core.video import parse_size

    arguments.opened = None
    if arguments.project and arguments.project.exists():
        arguments.opened = project = open_project(arguments.project, arguments.video)
        _check_preset(arguments)
        arguments.video = project.video
        take_model(arguments, project)
        if not arguments.size or (project.size and parse_size(arguments.size) == parse_size(project.size)):
            arguments.size = project.size
        arguments.other_frames = _other_frames(arguments, project)
        arguments.frames = arguments.frames if arguments.other_frames else project.frames
    arguments.model = arguments.model or "embedded"
    if arguments.video is None and arguments.project:
        raise AdaFlowError(f"there is no project {arguments.project}; check its path, or give the VIDEO of a new one")
    if arguments.video is None:
        raise AdaFlowError("VIDEO is missing; give it, or a --project that holds it")


def _check_preset(arguments: argparse.Namespace) -> None:
    """AdaFlowError where the preset sets what the project has otherwise; flags and --settings stand above both."""
    alone = argparse.Namespace(**vars(arguments) | {"opened": None})

    def settings(given: argparse.Namespace) -> dict[str, Any]:
        return vars(plan_config(given)) | vars(edit_config(given))

    usual, preset = (vars(plan) | vars(edit) for plan, edit in (PRESETS["default"], PRESETS[arguments.preset]))
    asked, kept = settings(alone), settings(arguments)
    differ = [name for name in preset if preset[name] != usual[name] and asked[name] != kept[name]]
    if differ:
        raise AdaFlowError(
            f"a project has settings of its own, and those of --preset {arguments.preset} are others "
            f"({', '.join(differ)}); change single ones by their flags, not by --preset"
        )


def _other_frames(arguments: argparse.Namespace, project: Project) -> tuple[range, range] | None:
    """The project's frames and those that are asked for instead, by their numbers in the video; None where none are."""
    from adaflow_core.video import parse_range, probe

    if arguments.frames in (None, project.frames):
        return None
    all_frames = range(probe(project.video).frames)
    texts = project.frames, arguments.frames
    kept, asked = (all_frames[parse_range(text) if text else slice(None)] for text in texts)
    return None if asked == kept else (kept, asked)


def check_other_frames(arguments: argparse.Namespace, region: Region | None, by_hand: ByHand | None) -> None:
    """AdaFlowError where other frames than the project's are asked for, and what it holds is of its own frames.

    Ranges, takes, masks and keyframes by hand count from the first of the project's frames.
    """
    project = arguments.opened
    if project is None or arguments.other_frames is None:
        return
    kept, asked = arguments.other_frames
    where = f"of its frames {kept.start}:{kept.stop}, and --frames asks for {asked.start}:{asked.stop}"
    begin = f"{where}; give --prompt too, or begin another project"
    if not (arguments.prompt or arguments.prompts):
        if project.takes:
            raise AdaFlowError(f"the takes of the project {arguments.project} are {begin}")
        if len(project.prompts) != 1 or project.prompts[0] != _whole(project, len(kept)):
            raise AdaFlowError(f"the ranges of the project {arguments.project} are {begin}")
    moved = asked.start != kept.start
    if any(moved or take["frames"][1] > len(asked) for take in project.takes):
        raise AdaFlowError(f"the takes of the project {arguments.project} are {where}; begin another project")
    if moved and region is not None and region.painted and not arguments.mask:
        raise AdaFlowError(f"the masks of the project {arguments.project} are {where}; give them again, with --mask")
    if moved and by_hand is not None and not arguments.keyframe_image:
        raise AdaFlowError(
            f"the keyframes by hand of the project {arguments.project} are {where}; give them again, with "
            "--keyframe-image"
        )


def _whole(project: Project, frames: int) -> dict[str, Any]:
    """The row of the project's first prompt, were it one for all its frames."""
    return {"frames": [0, frames], "prompt": project.prompts[0]["prompt"]}


def take_model(arguments: argparse.Namespace, project: Project) -> None:
    """The project's model where --model names none; a file that is named again, as with another weight, counts once."""
    if arguments.model:
        return
    parts = ModelParts.parse(project.model)
    arguments.model = parts.model
    arguments.lora = _laid_over(parts.loras, arguments.lora)
    arguments.vae = arguments.vae or parts.vae
    arguments.embedding = _laid_over(parts.embeddings, arguments.embedding)


def _laid_over(kept: Sequence[str], given: Sequence[str]) -> list[str]:
    """Names such as "FILE=WEIGHT": the kept ones, as they are given where they are, and then those that are new."""
    files = {split_value(name)[0] for name in kept}
    again = {split_value(name)[0]: name for name in given}
    new = [name for name in given if split_value(name)[0] not in files]
    return [again.get(split_value(name)[0], name) for name in kept] + new


def model_of(arguments: argparse.Namespace) -> ModelParts:
    """All that the engine's model is made of."""
    return ModelParts.parse(arguments.model).with_more(arguments.lora, arguments.vae, arguments.embedding)


def check_model(arguments: argparse.Namespace, project: Project) -> None:
    """AdaFlowError for another model than the project's: a retake would make the whole film anew with it first."""
    if (asked := model_of(arguments)) != ModelParts.parse(project.model):
        raise AdaFlowError(
            f"the film of {arguments.project} is of the model {project.model}, not of {asked}; leave --model and what "
            f"adds to it out, or first make the film with it: edit --project {arguments.project}"
        )


def kept_region(project: Project, path: Path) -> Region | None:
    from adaflow_core.picture.region import Region

    kept = project.rest.get("region")
    return None if kept is None else Region.from_json(kept, path.parent)


def kept_by_hand(project: Project, path: Path) -> ByHand | None:
    from adaflow_core.picture.by_hand import ByHand

    kept = project.rest.get("by_hand")
    return None if kept is None else ByHand.from_json(kept, path.parent)


def other_keyframes(project: Project, plan: Plan) -> list[str]:
    """A note where the project's own plan, made here, has other keyframes than it had where the project was saved."""
    if project.keyframes in ((), tuple(plan.segments.keyframes.tolist())):
        return []
    return ["this machine finds other keyframes than the project has; the film may differ"]


def is_as_it_was(arguments: argparse.Namespace) -> bool:
    """Whether what is planned is what the project was planned with."""
    project = arguments.opened
    if project is None or (arguments.size, arguments.frames) != (project.size, project.frames):
        return False
    return bool(project.plan == plan_config(arguments) and ModelParts.parse(project.model) == model_of(arguments))


def project_of(arguments: argparse.Namespace, plan: Plan, timeline: Timeline, config: EditConfig) -> Project:
    """The project of this edit; of one that was opened, with what the arguments changed."""
    from adaflow_core.film.project import Project

    opened = arguments.opened
    return Project(
        video=arguments.video,
        plan=plan_config(arguments),
        edit=config,
        prompts=tuple(timeline.as_json()),
        model=str(model_of(arguments)),
        size=arguments.size,
        frames=arguments.frames,
        keyframes=tuple(plan.segments.keyframes.tolist()),
        takes=() if opened is None else opened.takes,
        rest=({} if opened is None else opened.rest) | {"crossfade": timeline.crossfade},
        checksum=None if Path(arguments.video).is_dir() else plan.video.file_digest,
    )


def save(project: Project, over: dict[str, Any], path: Path) -> None:
    """Write the project with what is asked for over the picture."""
    kept = {name: over[name] and over[name].as_json(path.parent) for name in ("region", "by_hand")}
    replace(project, rest=project.rest | kept).save(path)
