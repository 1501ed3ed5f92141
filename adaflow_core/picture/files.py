"""Pictures that belong to an edit, in reports and projects: named with their checksums, and found again."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from adaflow_core.errors import AdaFlowError
from adaflow_core.storage.cache import checksum, relative


def named(picture: np.ndarray | Path, folder: Path | None, what: str) -> dict[str, Any]:
    """`what`, such as "the mask", as plain data: its file, as it lies from `folder`, and a checksum of its content."""
    if isinstance(picture, Path):
        if not picture.exists():
            raise AdaFlowError(f"there is no {picture}; check the path of {what}")
        path = picture.as_posix() if folder is None else relative(picture, folder)
        return {"file": path, "checksum": checksum(picture)}
    content = f"{picture.shape}".encode() + np.ascontiguousarray(picture).tobytes()
    return {"file": None, "checksum": blake2b(content, digest_size=16).hexdigest()}


def found(row: Mapping[str, Any], folder: Path, what: str) -> Path:
    """The file of `named` data of a report or project in `folder`, its content unchanged."""
    if row["file"] is None:
        raise AdaFlowError(f"{what} was given without a file; give it again")
    name = Path(row["file"])
    path = next((place for place in (folder / name, folder / name.name) if place.exists()), None)
    if path is None:
        raise AdaFlowError(f"{what} {name.name} of the project is not there; lay it into {folder}")
    if checksum(path) != row["checksum"]:
        raise AdaFlowError(f"{what} {path} is not the one of this edit; give that one, or begin another project file")
    return path


def on_command_line(picture: np.ndarray | Path, name: str) -> str:
    """Its file; what is in no file is called `name`, as if it lay beside."""
    return str(picture) if isinstance(picture, Path) else name
