"""Large arrays in files, for which a full disk raises an error.

Writing to a memory map while the disk is full kills the process (SIGBUS). So frames are appended one by one with normal
writes, and disk space for arrays that are filled out of order is allocated first.
"""

from __future__ import annotations

import math
import mmap
import os
import shutil
import sys
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from adaflow_core.errors import AdaFlowError

_DONE = "done.npy"
SCRATCH_IN_MEMORY = 2**26  # bytes of a scratch array up to which it needs no file
_POPULATE_WRITE = 23  # madvise(2), Linux 5.14: make pages ready to be written to


def allocated(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """Create a .npy file as a writable memory map with its disk space allocated; OSError if the disk is full."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with path.open("r+b") as file:
        _allocate(file, path.stat().st_size)
    return array


def begin_columns(path: Path, dtype: Any, shape: tuple[int, ...], columns: np.ndarray) -> np.ndarray:
    """Return those of `columns` [N] that are unfinished in the array [S, T, ...] at `path`, and allocate their space.

    The array is created if it does not exist. While any columns are unfinished, a file beside it marks the finished
    ones. Raises OSError if the disk is full.
    """
    if not path.is_file():
        allocated(path.with_name(_DONE), bool, shape[1:2])
        np.lib.format.open_memmap(path, "w+", dtype, shape)
    array, done = open_columns(path)
    missing: np.ndarray = columns[~done[columns]]
    if len(missing):
        reserve(path, array, missing)
    return missing


def open_columns(path: Path) -> tuple[np.memmap[Any, Any], np.ndarray]:
    """Open the array at `path` and its marks of finished columns [T] bool; both are writable until `end_columns`."""
    done = path.with_name(_DONE)
    if done.is_file():
        return np.load(path, mmap_mode="r+"), np.load(done, mmap_mode="r+")
    array = np.load(path, mmap_mode="r")
    return array, np.ones(array.shape[1], bool)


def end_columns(path: Path) -> None:
    """Remove the file that marks finished columns, if all are finished."""
    if open_columns(path)[1].all():
        path.with_name(_DONE).unlink(missing_ok=True)


def any_finished(folder: Path) -> bool:
    """Return whether a folder holds any finished and readable work: columns of its array, or other files."""
    files, done = [file for file in folder.glob("[!.]*") if file.name != _DONE], folder / _DONE
    try:
        for array in (file for file in files if file.suffix == ".npy"):
            np.load(array, mmap_mode="r")
        return bool(files) and (not done.is_file() or bool(np.load(done).any()))
    except (OSError, ValueError, EOFError):  # cut off, as by a full disk
        return False


def reserve(path: Path, array: np.memmap[Any, Any], columns: np.ndarray) -> None:
    """Allocate disk space for `array[:, columns]` in the .npy file that `array` maps; `columns` [N] ascending."""
    runs = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    with path.open("r+b") as file:
        for row in range(len(array)):
            for run in runs:
                begin = array.offset + row * array.strides[0] + int(run[0]) * array.strides[1]
                _allocate(file, len(run) * array.strides[1], begin)


def _allocate(file: IO[bytes], size: int, begin: int = 0) -> None:
    """Allocate disk space for `size` bytes from `begin` on, if the system has a call for it (Windows needs none)."""
    if hasattr(os, "posix_fallocate") and size:
        os.posix_fallocate(file.fileno(), begin, size)


def scratch(dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return an uninitialised array; a large one is in an unnamed temporary file that is deleted with it.

    So the system can write out arrays that grow with a video's length. Raises AdaFlowError if the disk is full.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size <= SCRATCH_IN_MEMORY:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:  # the map keeps it
        try:
            _allocate(file, size)
        except OSError as problem:
            raise no_room(problem, size) from problem
        return np.memmap(file, dtype, mode="w+", shape=shape)


def copied(array: np.ndarray) -> np.ndarray:
    """Return a copy in a `scratch` array."""
    copy = scratch(array.dtype, array.shape)
    copy[:] = array
    return copy


def put_rows(out: np.ndarray, rows: slice | np.ndarray, values: np.ndarray) -> None:
    """Assign `out[rows] = values`; `rows`: a slice, or indices [F].

    Pages of a memory map are prepared first, a whole range at a time: on Linux this takes as little as a third of the
    time of preparing each page when it is first written to. The values of one call should fit into memory.
    """
    if isinstance(out, np.memmap) and sys.platform == "linux" and out.flags.c_contiguous and out.size:
        numbers = np.sort(np.arange(len(out))[rows])
        for run in np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1):
            if len(run):
                _populate(out[run[0] : run[-1] + 1])
    out[rows] = values


def _populate(part: np.ndarray) -> None:
    pages = getattr(part, "_mmap", None)
    if pages is None:  # a copy
        return
    begin = part.ctypes.data - np.frombuffer(pages, np.uint8).ctypes.data
    start = begin - begin % mmap.PAGESIZE
    with suppress(OSError):  # an older kernel
        pages.madvise(_POPULATE_WRITE, start, begin + part.nbytes - start)


def no_room(problem: OSError, size: int | None = None) -> AdaFlowError:
    """Return the error for a temporary file that does not fit on the disk; `size`: its bytes, if known."""
    what = "a temporary file does" if size is None else f"{size / 1e9:.1f} GB do"
    return AdaFlowError(
        f"{what} not fit into {tempfile.gettempdir()}; free some space or set TMPDIR to another folder, and run it "
        f"again: what was finished is kept ({problem.strerror})"
    )


class Frames:
    """Appends at most `most` uint8 frames of one shape, in memory or to the .npy file `out`, which `finish` creates."""

    def __init__(self, out: Path | None, shape: tuple[int, ...], most: int) -> None:
        self.length = 0
        self._out, self._shape, self._most = out, shape, most
        size = most * math.prod(shape)
        if out is None:
            try:
                self._frames = np.empty((most, *shape), np.uint8)
            except MemoryError as error:
                raise AdaFlowError(f"{most} frames do not fit into memory; choose a shorter range") from error
            return
        free = shutil.disk_usage(out.parent).free
        if size > free:
            raise AdaFlowError(
                f"{most} frames need {math.ceil(size / 1e6)} MB and the cache's disk has {free // 10**6} MB free; "
                "choose a shorter range or a smaller size, free space, or set ADAFLOW_CACHE to another disk"
            )
        self._part = out.with_name(f".{out.stem}.{uuid.uuid4().hex}.npy")

    def __enter__(self) -> Frames:
        if self._out is not None:
            self._file = self._part.open("wb")
            self._header()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._out is not None:
            self._file.close()
            self._part.unlink(missing_ok=True)

    def append(self, frame: np.ndarray) -> None:
        if self._out is None:
            self._frames[self.length] = frame
        else:
            self._file.write(frame.data)
        self.length += 1

    def finish(self) -> np.ndarray:
        """Return the frames [T, *shape], as a read-only memory map if there is a file."""
        if self._out is None:
            return self._frames[: self.length]
        begin = self._file.tell() - self.length * math.prod(self._shape)
        self._file.seek(0)
        self._header()
        assert self._file.tell() == begin, "numpy's header changed its length"
        self._file.close()
        os.replace(self._part, self._out)
        return np.load(self._out, mmap_mode="r")

    def _header(self) -> None:
        # numpy leaves room in its headers for the first axis to be rewritten in place.
        shape = (self.length or self._most, *self._shape)
        np.lib.format.write_array_header_1_0(self._file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def taken(array: np.ndarray, frames: slice | np.ndarray, axis: int = 0) -> np.ndarray:
    """Return `array[frames]` along `axis`: a view for a slice (axis 0 only), a `scratch` copy for indices [F].

    Indices must be within the array: others are clipped without an error.
    """
    if isinstance(frames, slice):
        return array[frames]
    shape = (*array.shape[:axis], len(frames), *array.shape[axis + 1 :])
    # Not mode="raise", which holds the whole result in memory before it writes to `out`.
    return np.take(array, frames, axis=axis, out=scratch(array.dtype, shape), mode="clip")
