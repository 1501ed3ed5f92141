"""Checks, before the work, that a command writes each result to its own file and to none that it reads."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from adaflow_core.cli.opened import model_of
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.files.parts import ModelParts, split_value
from adaflow_core.model.hub.files import INDEX, PARTS, PROFILE

if TYPE_CHECKING:
    from adaflow_core.picture.by_hand import ByHand
    from adaflow_core.picture.region import Region

Input = tuple[str, Path]  # what it is, such as "the mask", and its file or folder


def inputs_of(video: Path, region: Region | None, by_hand: ByHand | None) -> Iterator[Input]:
    """Yield the files that an edit reads pictures from."""
    yield "the source", video
    for mask in () if region is None else (region.masks, *region.painted.values()):
        if isinstance(mask, Path):
            yield "the mask", mask
    for picture in () if by_hand is None else by_hand.pictures.values():
        if isinstance(picture, Path):
            yield "the keyframe by hand", picture


def inputs_beside(arguments: argparse.Namespace) -> Iterator[Input]:
    """Yield the other files that a command reads: prompts, settings and the model's.

    A project may also be given as --settings: it is read before it is written.
    """
    given = vars(arguments)
    if prompts := given.get("prompts"):
        yield "the prompts", prompts
    settings, project = given.get("settings"), given.get("project")
    if settings and not (project and is_same_file(settings, project)):
        yield "the file of --settings", settings
    yield from (("a file of the model", path) for path in _files_of(model_of(arguments)))


def _files_of(model: ModelParts) -> Iterator[Path]:
    """Yield the files on this machine that a model is read from; of a folder those of diffusers' format."""
    names = (model.model, *model.loras, model.vae, *model.embeddings)
    for path in (Path(os.path.expanduser(split_value(name)[0])) for name in names if name):
        if not os.path.isdir(path):
            yield from (path, path.parent / PROFILE)
            continue
        yield from (path / name for name in (INDEX, PROFILE, "config.json"))
        for folder in (path / part for part in PARTS):
            yield from folder.iterdir() if os.path.isdir(folder) and os.access(folder, os.R_OK) else ()


def check_apart(outputs: Mapping[str, Path | None], inputs: Iterable[Input]) -> None:
    """Raise AdaFlowError if two outputs are one file, or an output is an input, or a new picture in a folder of inputs.

    `outputs`: paths by their flags; None is no output.
    """
    from adaflow_core.storage.pictures import has_the_name_of_a_picture

    written = [(flag, path) for flag, path in outputs.items() if path is not None]
    for (flag, path), (other, second) in combinations(written, 2):
        if is_same_file(path, second):
            raise AdaFlowError(f"{flag} and {other} would both be written to {path}; give each a file of its own")
    for what, read in inputs:
        for flag, path in written:
            if is_same_file(path, read):
                raise AdaFlowError(f"{flag} {path} is {what} itself; choose another name")
            if os.path.isdir(read) and has_the_name_of_a_picture(path) and is_same_file(path.parent, read):
                raise AdaFlowError(f"{flag} {path} would be one of the pictures of {what}; choose another folder")


def is_same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, which need not exist yet."""
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)  # through any links
    return os.path.realpath(one) == os.path.realpath(other)
