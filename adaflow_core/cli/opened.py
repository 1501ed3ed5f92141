"""What a command takes from a project where its arguments say nothing, and what it saves there."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaflow_core.cli.arguments import check_preset, plan_config
from adaflow_core.config import EditConfig
from adaflow_core.errors import AdaFlowError, counted
from adaflow_core.model.files.parts import ModelParts, is_path, split_value
from adaflow_core.model.hub.client import on_disk

if TYPE_CHECKING:
    from adaflow_core.film.project import Project
    from adaflow_core.film.timeline import Timeline
    from adaflow_core.picture.by_hand import ByHand
    from adaflow_core.picture.region import Region
    from adaflow_core.types import Plan


@dataclass(frozen=True)
class Opened:
    """A project that an edit continues."""

    project: Project
    path: Path
    # Its frames and those that --frames asks for instead, by their numbers in the video; None: no others are asked for.
    other_frames: tuple[range, range] | None


def open_given(arguments: argparse.Namespace) -> Opened | None:
    """Open the project, if there is one, and set the arguments that are not given to its values.

    Raises AdaFlowError if neither names a video.
    """
    from adaflow_core.film.project import open_project
    from adaflow_core.video import parse_size

    opened = None
    if arguments.project and os.path.exists(arguments.project):
        project = open_project(arguments.project, arguments.video)
        opened = Opened(project, arguments.project, _other_frames(arguments, project))
        arguments.video = project.video
        arguments.fps = arguments.fps or project.fps
        take_model(arguments, project)
        if not arguments.size or (project.size and parse_size(arguments.size) == parse_size(project.size)):
            arguments.size = project.size
        arguments.frames = arguments.frames if opened.other_frames else project.frames
    check_preset(arguments, opened.project if opened else None)
    arguments.model = arguments.model or "embedded"
    if arguments.video is None and arguments.project:
        raise AdaFlowError(f"there is no project {arguments.project}; check its path, or give the VIDEO of a new one")
    if arguments.video is None:
        raise AdaFlowError("VIDEO is missing; give it, or a --project that holds it")
    return opened


def _other_frames(arguments: argparse.Namespace, project: Project) -> tuple[range, range] | None:
    """Return the project's frames and those that --frames asks for instead; None if it asks for no others."""
    from adaflow_core.video import parse_range, probe

    if arguments.frames in (None, project.frames):
        return None
    all_frames = range(probe(project.video).frames)
    texts = project.frames, arguments.frames
    kept, asked = (all_frames[parse_range(text) if text else slice(None)] for text in texts)
    return None if asked == kept else (kept, asked)


def check_other_frames(
    arguments: argparse.Namespace, opened: Opened | None, region: Region | None, by_hand: ByHand | None
) -> None:
    """Raise AdaFlowError if --frames asks for other frames than the project's and its content does not fit these.

    Ranges, takes, masks and keyframes by hand are numbered from the first of the project's frames.
    """
    if opened is None or opened.other_frames is None:
        return
    project, (kept, asked) = opened.project, opened.other_frames
    where = f"of its frames {kept.start}:{kept.stop}, and --frames asks for {asked.start}:{asked.stop}"
    begin = f"{where}; give --prompt too, or begin another project"
    if not (arguments.prompt or arguments.prompts):
        if project.takes:
            raise AdaFlowError(f"the takes of the project {opened.path} are {begin}")
        if len(project.prompts) != 1 or project.prompts[0] != _whole(project, len(kept)):
            raise AdaFlowError(f"the ranges of the project {opened.path} are {begin}")
    moved = asked.start != kept.start
    if any(moved or take["frames"][1] > len(asked) for take in project.takes):
        raise AdaFlowError(f"the takes of the project {opened.path} are {where}; begin another project")
    if moved and region is not None and region.painted and not arguments.mask:
        raise AdaFlowError(f"the masks of the project {opened.path} are {where}; give them again, with --mask")
    if moved and by_hand is not None and not arguments.keyframe_image:
        raise AdaFlowError(
            f"the keyframes by hand of the project {opened.path} are {where}; give them again, with --keyframe-image"
        )


def _whole(project: Project, frames: int) -> dict[str, Any]:
    """Return the row that the project's first prompt would have as one prompt for all its frames."""
    return {"frames": [0, frames], "prompt": project.prompts[0]["prompt"]}


def take_model(arguments: argparse.Namespace, project: Project) -> None:
    """Take the project's model if --model names none; a file that is named again, with another weight, counts once."""
    if arguments.model:
        return
    parts = ModelParts.parse(project.model)
    arguments.model = parts.model
    arguments.lora = _laid_over(parts.loras, arguments.lora)
    arguments.vae = arguments.vae or parts.vae
    arguments.embedding = _laid_over(parts.embeddings, arguments.embedding)


def _laid_over(kept: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return the kept names ("FILE=WEIGHT"), each replaced by a given name of the same file, and then the new names."""

    def again(name: str, among: Sequence[str]) -> str | None:
        same = [other for other in among if _is_one_file(split_value(name)[0], split_value(other)[0])]
        return same[-1] if same else None

    return [again(name, given) or name for name in kept] + [name for name in given if again(name, kept) is None]


def _is_one_file(one: str, other: str) -> bool:
    """Whether two names of a model's parts mean one file; a file that is gone is compared by its file name."""
    here, there = on_disk(one), on_disk(other)
    if here and there:
        return here.samefile(there)
    gone = one if here is None else other
    return one == other or (bool(here or there) and is_path(gone) and Path(one).name == Path(other).name)


def _is_the_model(kept: ModelParts, given: ModelParts) -> bool:
    """Whether two names of a model mean the same files."""
    files = [split_value(name)[0] for name in (kept.model, *kept.loras, kept.vae, *kept.embeddings)]
    return given.renamed(lambda name: next((file for file in files if _is_one_file(file, name)), name)) == kept


def model_of(arguments: argparse.Namespace) -> ModelParts:
    """Return the model that the arguments name, with its LoRAs, VAE and embeddings."""
    return ModelParts.parse(arguments.model).with_more(arguments.lora, arguments.vae, arguments.embedding)


def check_model(arguments: argparse.Namespace, project: Project) -> None:
    """Raise AdaFlowError for another model than the project's: a retake would first edit the whole film with it."""
    if not _is_the_model(ModelParts.parse(project.model), asked := model_of(arguments)):
        raise AdaFlowError(
            f"the film of {arguments.project} is of the model {project.model}, not of {asked}; leave --model and what "
            f"adds to it out, or first make the film with it: edit --project {arguments.project}"
        )


def other_keyframes(project: Project, plan: Plan) -> list[str]:
    """Return a note if the plan has other keyframes here than on the machine that saved the project."""
    if project.keyframes in ((), tuple(plan.segments.keyframes.tolist())):
        return []
    return ["this machine finds other keyframes than the project has; the film may differ"]


def is_as_it_was(arguments: argparse.Namespace, project: Project) -> bool:
    """Whether size, frames, model and plan settings are those of the project."""
    if (arguments.size, arguments.frames) != (project.size, project.frames):
        return False
    same = _is_the_model(ModelParts.parse(project.model), model_of(arguments))
    return bool(same and project.plan == plan_config(arguments, project))


def project_of(
    arguments: argparse.Namespace, opened: Project | None, plan: Plan, timeline: Timeline, config: EditConfig
) -> Project:
    """Return the project of this edit: the opened one with what the arguments change, or a new one."""
    from adaflow_core.film.project import Project

    return Project(
        video=arguments.video,
        plan=plan_config(arguments, opened),
        edit=config,
        prompts=tuple(timeline.as_json()),
        model=str(model_of(arguments)),
        size=arguments.size,
        frames=arguments.frames,
        keyframes=tuple(plan.segments.keyframes.tolist()),
        takes=() if opened is None else opened.takes,
        crossfade=timeline.crossfade,
        fps=arguments.fps,
        rest={} if opened is None else opened.rest,
        checksum=None if Path(arguments.video).is_dir() else plan.video.file_digest,
    )


def save(project: Project, over: dict[str, Any], path: Path) -> None:
    """Write the project with its region and keyframes by hand."""
    from adaflow_core.engine.projects import with_over

    with_over(project, over["region"], over["by_hand"], path.parent).save(path)


def check_draft(path: Path, video: Path) -> None:
    """Raise AdaFlowError if a draft of `video` would replace something other than a draft of it."""
    from adaflow_core.film.project import open_project

    if not os.path.exists(path):
        return
    try:
        kept = open_project(path, video)
    except AdaFlowError as problem:
        raise AdaFlowError(
            f"{path} is no draft of {video}, and a draft would replace it; choose another folder for --out"
        ) from problem
    if kept.takes:
        raise AdaFlowError(
            f"{path} holds {counted(len(kept.takes), 'take')}, which a draft would replace; choose another folder for "
            f"--out, or add --project {path}"
        )


def with_others(project: Project, path: Path, opened: Project | None) -> tuple[Project, list[str]]:
    """Return the project with the takes that other commands added to its file since it was opened, and a note.

    Raises AdaFlowError if they changed anything else in it.
    """
    from adaflow_core.film.project import takes_added

    added = takes_added(path, opened)
    if opened is None or not added:
        return project, []
    old, more = len(opened.takes), counted(len(added), "take")
    note = f"another command added {more} to {path} meanwhile, which is kept there, and is not in this video"
    return replace(project, takes=(*project.takes[:old], *added, *project.takes[old:])), [note]
