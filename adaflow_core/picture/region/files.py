"""Pictures that belong to an edit, in reports and projects: named by file and checksum, and found again.

A picture without a file is stored in the project itself, as a PNG in base64, so that the project can be opened alone.
"""

from __future__ import annotations

import operator
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adaflow_core.errors import AdaFlowError
from adaflow_core.storage.digests import content_digest, relative_path


def by_frame(pictures: Any, what: str) -> dict[int, Any]:
    """Return pictures by their frame numbers, in order; strings become paths.

    `what` names a picture in errors, such as "the mask". Raises AdaFlowError unless `pictures` maps frame numbers.
    """
    if not isinstance(pictures, Mapping):
        raise AdaFlowError(f"{what} is given without its frame; give a dict, as in {{12: picture}}, counted from 0")
    found = {}
    for frame, picture in pictures.items():
        try:
            number = operator.index(frame)
        except TypeError as problem:
            raise AdaFlowError(f"{what} is for frame {frame!r}; give its number, counted from 0") from problem
        found[number] = as_path(picture, f"{what} of frame {number}")
    return dict(sorted(found.items()))


def as_path(picture: Any, what: str) -> Any:
    """Return a string as a path, all else as it is; AdaFlowError for an empty string."""
    if isinstance(picture, str):
        if not picture.strip():  # as a path it would be the current folder
            raise AdaFlowError(f"{what} is an empty path; name its file")
        return Path(picture)
    return picture


def named(picture: np.ndarray | Path, folder: Path | None, what: str) -> dict[str, Any]:
    """Return a picture as plain data: its file, relative to `folder` if given, and a checksum of its content.

    An array [H, W] bool or [H, W, 3] uint8 has no file; with the `folder` of a project, the data holds the picture
    itself. `what` names the picture in errors, such as "the mask". Raises AdaFlowError for a file that is not there,
    and with a `folder` for an array of several pictures, which a project cannot hold.
    """
    if isinstance(picture, Path):
        if not picture.exists():
            raise AdaFlowError(f"there is no {picture}; check the path of {what}")
        path = picture.as_posix() if folder is None else relative_path(picture, folder)
        return {"file": path, "checksum": content_digest(picture)}
    row = {"file": None, "checksum": _checksum(picture)}
    if folder is None:
        return row
    if picture.shape[2:] != (() if picture.dtype == bool else (3,)):
        raise AdaFlowError(
            f"{what}s of all frames are too large for a project; write them as a video or a folder of pictures, and "
            "give that"
        )
    return row | {"png": _encoded(picture)}


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Raise AdaFlowError if the data of `what`, such as "the region", in a report or project is incomplete or wrong."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as problem:
        said = f"{type(problem).__name__}: {problem}"
        raise AdaFlowError(
            f"{what} of the project lacks a part, or has a wrong one; take a whole one ({said:.80})"
        ) from problem


def found(row: Mapping[str, Any], folder: Path, what: str) -> Path | np.ndarray:
    """Return the file or array that `named` described, in a report or project in `folder`.

    Raises AdaFlowError if it is missing or its content has changed.
    """
    if row.get("png") is not None:
        return decoded(row, what)
    if row["file"] is None:
        raise AdaFlowError(f"{what} was given without a file; give it again")
    name = Path(row["file"])
    path = next((place for place in (folder / name, folder / name.name) if place.exists()), None)
    if path is None:
        raise AdaFlowError(f"{what} {name.name} of the project is not there; lay it into {folder}")
    if content_digest(path) != row["checksum"]:
        raise AdaFlowError(f"{what} {path} is not the one of this edit; give that one, or begin another project file")
    return path


def decoded(row: Mapping[str, Any], what: str, size: tuple[int, int] | None = None) -> np.ndarray:
    """Return the picture that a project's data holds, [H, W] bool or [H, W, 3] uint8.

    `size`: the (width, height) it must have, checked before its pixels are unpacked. Raises AdaFlowError for another
    size, and if the picture cannot be read or was changed.
    """
    try:
        with Image.open(BytesIO(b64decode(row["png"], validate=True)), formats=("PNG",)) as file:
            if size is not None and file.size != size:
                raise AdaFlowError(
                    f"{what} of the project is {file.width}x{file.height} pixels and the video is edited at "
                    f"{size[0]}x{size[1]}; take the working size of the project"
                )
            # Not straight from mode "1": its bytes are 255 where numpy's are 1.
            picture = np.asarray(file.convert("L")) > 0 if file.mode == "1" else np.array(file.convert("RGB"))
    except (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError) as problem:
        raise AdaFlowError(f"{what} in the project cannot be read; take a whole project ({problem})") from problem
    if _checksum(picture) != row["checksum"]:
        raise AdaFlowError(f"{what} in the project was changed; take the project as it was written")
    return picture


def _encoded(picture: np.ndarray) -> str:
    content = BytesIO()
    Image.fromarray(picture).save(content, "PNG", optimize=True)
    return b64encode(content.getvalue()).decode("ascii")


def _checksum(picture: np.ndarray) -> str:
    content = f"{picture.shape}".encode() + np.ascontiguousarray(picture).tobytes()
    return blake2b(content, digest_size=16).hexdigest()


def on_command_line(picture: np.ndarray | Path, name: str) -> str:
    """Return the file of a picture, or for an array `name`, as if it were saved there."""
    return str(picture) if isinstance(picture, Path) else name
