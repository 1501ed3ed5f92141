"""Passes values from one process to another as pickles in a folder; a memory map is passed as its file's name.

A generator, such as one of frames, is run to its end first; the other process gets an iterator over its values.
"""

from __future__ import annotations

import copyreg
import mmap
import pickle
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import GeneratorType
from typing import Any

import numpy as np


class _Pickler(pickle.Pickler):
    """Pickles a memory map as its file's name; one without a named file is first saved in the pickle's folder."""

    def __init__(self, path: Path, file: Any) -> None:
        super().__init__(file)
        self.folder = path.parent
        more: dict[type, Any] = {np.memmap: self._reduce_map, GeneratorType: _reduce_generator}
        self.dispatch_table = copyreg.dispatch_table | more

    def _reduce_map(self, array: Any) -> tuple[Any, ...]:  # Any: numpy's types lack attributes of np.memmap
        named = isinstance(array.filename, (str, Path)) and Path(array.filename).is_file()
        if named and isinstance(array.base, mmap.mmap):
            order = "C" if array.flags.c_contiguous else "F"
            return np.memmap, (str(array.filename), array.dtype, "r", array.offset, array.shape, order)
        path = self.folder / f"{secrets.token_hex(8)}.npy"
        np.save(path, array)
        return np.load, (str(path), "r")


def _reduce_generator(generator: Iterator[Any]) -> tuple[Any, ...]:
    return iter, (list(generator),)


def pack(value: object, path: Path) -> None:
    """Write `value` for another process; the file appears when it is complete."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        _Pickler(path, file).dump(value)
    part.rename(path)


def unpack(path: Path) -> object:
    """Read what `pack` wrote. Unpickling is safe here: only this program's processes know the folder."""
    with path.open("rb") as file:
        return pickle.load(file)
