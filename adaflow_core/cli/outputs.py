"""What a command writes, looked at before its work: each in a file of its own, and none over a file that it reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from adaflow_core.errors import AdaFlowError

if TYPE_CHECKING:
    from adaflow_core.picture.by_hand import ByHand
    from adaflow_core.picture.region import Region

Input = tuple[str, Path]  # what it is, such as "the mask", and its file or folder


def inputs_of(video: Path, region: Region | None, by_hand: ByHand | None) -> Iterator[Input]:
    """The files that an edit reads pictures from."""
    yield "the source", video
    for mask in () if region is None else (region.masks, *region.painted.values()):
        if isinstance(mask, Path):
            yield "the mask", mask
    for picture in () if by_hand is None else by_hand.pictures.values():
        if isinstance(picture, Path):
            yield "the keyframe by hand", picture


def check_apart(outputs: Mapping[str, Path | None], inputs: Iterable[Input]) -> None:
    """AdaFlowError where two outputs are one file, or one is an input; `outputs`: by their flags, None for no output.

    A picture in a folder of pictures would be one of these.
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
    """Whether two paths lead to one file, which need not be there yet."""
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)  # by whichever links
    return os.path.realpath(one) == os.path.realpath(other)
