"""The cache: results on disk, keyed by the content and settings they depend on, so that later edits reuse them."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from adaflow_core.errors import AdaFlowError
from adaflow_core.storage.arrays import allocated, any_finished
from adaflow_core.storage.digests import size_and_crc

Note = Callable[[str], None]
Build = Callable[[Path], dict[str, Any]]
# To be raised whenever the results that are stored for the same settings change.
FORMAT = 6
_META, _LOCK = "meta.json", ".lock"
_ENOUGH = ".enough"  # marks an unfinished build of which every part that was asked for is finished
_BUILDING, _LEAVING, _UNFINISHED = ".building-", ".leaving-", ".unfinished-"
_STATE, _PART = ".zip", ".part"
_FRESH = 60.0  # seconds after its last use during which an entry is not removed
_GOING_ON = 24 * 3600.0  # seconds after its last change during which unfinished work is not removed
_UNCERTAIN = 24 * 3600.0  # seconds after which a folder without a usable lock counts as abandoned
_STALE = 7 * 24 * 3600.0  # seconds after which an unfinished build is removed
_NO_PLACE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EFBIG}


def cache_key(**settings: Any) -> str:
    """Return a digest of the settings and `FORMAT`."""
    text = json.dumps({"format": FORMAT, **settings}, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Cache:
    """Entries in folders `root/kind/key`, each complete or absent; above the limit the least recently used are removed.

    Processes may share a cache: entries appear and disappear by a rename, and none is removed within a minute of its
    last use, so that a process can open the entry it was given. Entries that a running job uses stay until it ends,
    whatever their size. Unfinished work stays for a day: otherwise a film that is larger than the limit would lose all
    its work whenever it is stopped. An incomplete entry whose requested part is finished (see `part`) is removed like
    a complete one.
    """

    root: Path
    limit_bytes: int = 20 * 2**30
    # `_state` of entries whose checksums were right. They are checked once: a preview asks at every move of a slider.
    _verified: set[tuple[object, ...]] = field(default_factory=set, compare=False, repr=False)
    # For each running job, the kind and key of every entry that it has asked for.
    _jobs: list[set[tuple[str, str]]] = field(default_factory=list, compare=False, repr=False)

    @classmethod
    def default(cls, limit_gb: float | None = None, usual_gb: float = 20) -> Cache:
        """Return the cache in `$ADAFLOW_CACHE`, or else in the user's cache folder.

        The limit is `limit_gb` GiB, or else `$ADAFLOW_CACHE_GB`, or else `usual_gb`.
        """
        usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adaflow"
        root, limit_gb = Path(os.environ.get("ADAFLOW_CACHE") or usual), limit_gb or _limit_asked_for() or usual_gb
        return cls(root, int(limit_gb * 2**30))

    @property
    def beside(self) -> Cache:
        """The same cache for a second thread of this process."""
        return self

    def own(self, count: int) -> slice:
        """Return the part of range(count) that this process computes in a build that a team of processes shares."""
        return slice(0, count)

    def array(self, path: Path, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        """Create a .npy file for a build that a team of processes shares, in the way of `allocated`."""
        return allocated(path, dtype, shape)

    @contextmanager
    def at_work(self, *arrays: np.ndarray) -> Iterator[None]:
        """Run a job within the block: the entries that it asks for, and those that `arrays` map, stay until its end."""
        files = (getattr(array, "filename", None) for array in arrays)
        job = {_name(Path(file).parent) for file in files if isinstance(file, (str, Path))}
        self._jobs.append(job)
        try:
            yield
        finally:
            self._jobs[:] = [other for other in self._jobs if other is not job]  # not ==: another job may use the same

    def _use(self, kind: str, key: str) -> None:
        for job in self._jobs:
            job.add((kind, key))

    def get(
        self, kind: str, key: str, build: Build, note: Note | None = None, *, resumable: bool = False,
        together: bool = False,
    ) -> tuple[Path, dict[str, Any], bool]:  # fmt: skip
        """Return an entry's folder, its metadata, and whether it existed before; builds it if it is missing.

        `build` fills an empty folder and returns the metadata. The folder gets its name when it is complete, so that a
        stopped build leaves no entry. A damaged entry is built again and reported to `note`. With `resumable`, `build`
        may get the folder of a build that ended early, with its finished work. `together`: in a team every process runs
        `build`; otherwise only its leader does. Raises AdaFlowError if the cache cannot be written.
        """
        folder = self.root / kind / key
        self._use(kind, key)
        meta = self._read(folder)
        if meta is not None:
            return folder, meta, True
        if folder.exists():
            if (meta := self._read(folder)) is not None:  # another thread or process has just placed it
                return folder, meta, True
            if note is not None:
                note(f"the cache's {kind} of this video were damaged, and were computed anew")
            _remove(folder)
        with self._building(folder, resumable) as work:
            meta = build(work)
            made = [file for file in work.iterdir() if file.is_file() and file.name not in (_LOCK, _META)]
            files = {file.name: size_and_crc(file) for file in made}
            (work / _META).write_text(json.dumps({"meta": meta, "files": files}), encoding="utf-8")
            meta = self._place(work, folder)
            self._verified.add(_state(folder, files))  # the checksums are from just now
        self._evict(folder, note)
        return folder, meta, False

    @contextmanager
    def part(self, kind: str, key: str) -> Iterator[Path]:
        """Yield an entry's folder or, if the entry is not complete, a folder in which a part of it can be built.

        The next call, or `get` with `resumable`, continues in that folder.
        """
        folder = self.root / kind / key
        self._use(kind, key)
        if self._read(folder) is not None:
            yield folder
            return
        with self._building(folder, resumable=True) as work:
            yield work
            os.utime(work)  # entries are removed in the order of their times
            with suppress(OSError):  # on a full disk; the folder then counts as unfinished work, and stays for a day
                (work / _ENOUGH).touch()
        self._evict(work)

    @contextmanager
    def _building(self, folder: Path, resumable: bool) -> Iterator[Path]:
        """Yield a locked folder in which the entry `folder` is built.

        After any exception the folder is removed, unless the build is `resumable` and has finished work in it; after an
        input/output error of the disk (EIO) it is always removed.
        """
        try:
            self._sweep()
            folder.parent.mkdir(parents=True, exist_ok=True)
            work = _unfinished(folder) if resumable else _new(folder.with_name(f"{_BUILDING}{uuid.uuid4().hex}"))
        except OSError as problem:
            raise AdaFlowError(
                f"the cache folder {self.root} cannot be written; set ADAFLOW_CACHE to another ({problem.strerror})"
            ) from problem
        try:
            with _locked(work / _LOCK):
                yield work
        except BaseException as problem:
            lost = isinstance(problem, OSError) and problem.errno == errno.EIO  # written data may be missing
            if lost or not (resumable and any_finished(work)):
                shutil.rmtree(work, ignore_errors=True)
            if isinstance(problem, OSError):
                raise self._failed(folder.parent.name, problem) from problem
            raise

    def _failed(self, kind: str, problem: OSError) -> AdaFlowError:
        """Return the error for a build that `problem` ended; a build may also read other files or start processes."""
        said = problem.strerror or str(problem) or type(problem).__name__
        file = None if problem.filename is None else str(problem.filename)
        here = file is None or Path(os.path.abspath(file)).is_relative_to(os.path.abspath(self.root))
        if problem.errno in _NO_PLACE and here:
            return AdaFlowError(
                f"the cache folder {self.root} cannot be written; free some space or set ADAFLOW_CACHE to another "
                f"({said})"
            )
        where = "" if file is None else f": {file}"
        return AdaFlowError(
            f"the cache's {kind} of this video could not be computed ({said}{where}); put that right and run it again"
        )

    def find(self, kind: str, key: str) -> dict[str, Any] | None:
        """Return the metadata of an entry, or None if it is missing or damaged."""
        return self._read(self.root / kind / key)

    def holds(self, kind: str, key: str) -> bool:
        """Return whether an entry exists. Its files are not read, so it may be damaged."""
        return (self.root / kind / key / _META).is_file()

    def renew(self, kind: str, key: str, meta: dict[str, Any]) -> None:
        """Replace the metadata of an entry; if the entry is gone or the disk is full, nothing happens."""
        description = self.root / kind / key / _META
        part = description.with_name(f"{uuid.uuid4().hex}{_PART}")
        with suppress(OSError):
            content = json.loads(description.read_text(encoding="utf-8"))
            part.write_text(json.dumps(content | {"meta": meta}), encoding="utf-8")
            part.replace(description)

    def forget(self, kind: str, key: str) -> None:
        """Remove an entry; it is computed anew when it is next asked for."""
        _remove(self.root / kind / key)

    def state(self, kind: str, key: str) -> Path:
        """Return the path of the file in which unfinished work keeps its state.

        The caller must replace the file as a whole. It is removed by age, like entries.
        """
        self._use(kind, key)
        return self.root / kind / f"{key}{_STATE}"

    def forget_older_than(self, oldest: float, spare: Callable[[Path], bool]) -> int:
        """Remove entries, states and unfinished builds last used before `oldest`, in seconds since the epoch.

        Returns how many were removed. What ended processes left behind is removed too, but not counted. A path for
        which `spare` returns True stays: the folder of an entry or build, or the file of a state. So does anything that
        is being built.
        """
        self._sweep()
        old = [kept.path for kept in self._kept() if kept.used < oldest and not spare(kept.path)]
        for path in old:
            _remove(path)
        return len(old)

    def _read(self, folder: Path) -> dict[str, Any] | None:
        """Return the metadata of a complete, undamaged entry and renew its time of use; None for any other.

        Raises AdaFlowError for an entry that this user may not read: it may be intact, so it is not built again.
        """
        description = folder / _META
        try:
            content = json.loads(description.read_text(encoding="utf-8"))
            meta, files = content["meta"], content["files"]
            state = _state(folder, files)
            if state not in self._verified:
                if any(size_and_crc(folder / name) != expected for name, expected in files.items()):
                    return None
                self._verified.add(state)
        except PermissionError as problem:
            raise AdaFlowError(
                f"the cache's {folder.parent.name} of this video are another user's and cannot be read "
                f"({problem.filename or folder}); have them made readable, or set ADAFLOW_CACHE to another folder"
            ) from problem
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        with suppress(OSError):  # for another user's file
            os.utime(description)  # entries are removed in the order of their times
        return meta if isinstance(meta, dict) else None

    def _place(self, work: Path, folder: Path) -> dict[str, Any]:
        """Rename a complete folder to the entry's name; if another process was faster, its equal entry is kept."""
        try:
            work.rename(folder)
        except OSError:
            if self._read(folder) is None:
                raise
            shutil.rmtree(work, ignore_errors=True)
        (folder / _LOCK).unlink(missing_ok=True)
        meta: dict[str, Any] = json.loads((folder / _META).read_text(encoding="utf-8"))["meta"]
        return meta

    def _sweep(self) -> None:
        """Remove folders and files that processes left which ended while they built or removed them."""
        for folder in (*self.root.glob(f"*/{_BUILDING}*"), *self.root.glob(f"*/{_LEAVING}*")):
            if _abandoned(folder):
                shutil.rmtree(folder, ignore_errors=True)
        for folder in self.root.glob(f"*/{_UNFINISHED}*"):
            with suppress(OSError):
                if time.time() - folder.stat().st_mtime > _STALE and _abandoned(folder):
                    shutil.rmtree(folder, ignore_errors=True)
        for part in self.root.glob(f"*/*{_PART}"):
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > _FRESH:
                    part.unlink()

    def _kept(self) -> Iterator[_Kept]:
        """Yield everything in the cache, except for what is being built or removed."""
        for path in self.root.glob("*/*"):
            with suppress(OSError):  # another process removes it, or it is not an entry
                kept = _kept_at(path)
                if kept is not None:
                    yield kept

    def _evict(self, asked: Path, note: Note | None = None) -> None:
        """Remove the least recently used until the rest is within the limit, unfinished work last; `asked` stays."""
        found = sorted(self._kept(), key=lambda kept: (kept.is_work, kept.used))
        total, now = sum(kept.size for kept in found), time.time()
        needed = set[tuple[str, str]]().union(*self._jobs)
        for kept in found:
            if total <= self.limit_bytes:
                return
            if kept.path != asked and kept.name not in needed and kept.may_go(now):
                # Memory maps of a removed file stay readable until they are closed.
                _remove(kept.path)
                total -= kept.size
        if note is not None and sum(kept.size for kept in found if kept.name in needed) > self.limit_bytes:
            note(
                f"this film needs more room in the cache than its limit of {self.limit_bytes / 2**30:.3g} GiB, and has "
                "it until another is edited; raise the limit with --cache-gb or ADAFLOW_CACHE_GB"
            )


@dataclass(frozen=True)
class _Kept:
    """An entry, an unfinished build that no process works on, or the file of a state."""

    path: Path
    name: tuple[str, str]  # kind and key
    used: float  # seconds since the epoch
    size: int  # bytes on disk
    is_work: bool  # unfinished work that its job can continue

    def may_go(self, now: float) -> bool:
        return now - self.used >= (_GOING_ON if self.is_work else _FRESH)


def _kept_at(path: Path) -> _Kept | None:
    """Describe what is at `path` in a kind's folder; None if it is being built or removed, OSError if no entry."""
    name = _name(path)
    if path.suffix == _STATE:
        stat = path.stat()
        return _Kept(path, name, stat.st_mtime, stat.st_size, is_work=True)
    if path.name.startswith(_UNFINISHED):
        if not _abandoned(path):
            return None
        is_work = any_finished(path) and not (path / _ENOUGH).exists()
        return _Kept(path, name, path.stat().st_mtime, sum(map(_room, path.iterdir())), is_work)
    if path.name.startswith("."):
        return None
    used = (path / _META).stat().st_mtime
    return _Kept(path, name, used, sum(file.stat().st_size for file in path.iterdir()), is_work=False)


def _name(path: Path) -> tuple[str, str]:
    """Return the kind and key of an entry, an unfinished build or the file of a state."""
    key = path.name.removesuffix(_STATE)
    if key.startswith(_UNFINISHED):
        key = key.removeprefix(_UNFINISHED).rpartition("-")[0]
    return path.parent.name, key


def _limit_asked_for() -> float | None:
    """Return the limit in GiB from the environment, or None."""
    text = os.environ.get("ADAFLOW_CACHE_GB")
    if not text:
        return None
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise AdaFlowError(f"ADAFLOW_CACHE_GB is {text!r}; give a number of GiB above 0, or leave it unset")
    return limit


def _unfinished(folder: Path) -> Path:
    """Return a folder for building the entry `folder`: an abandoned build of it with finished work, or an empty one."""
    work = folder.with_name(f"{_UNFINISHED}{folder.name}-{uuid.uuid4().hex}")
    for earlier in folder.parent.glob(f"{_UNFINISHED}{folder.name}-*"):
        if _abandoned(earlier) and any_finished(earlier):
            with suppress(OSError):  # another process was faster
                os.utime(earlier)  # until it is locked, only its recent time keeps it from being removed
                work = earlier.rename(work)
                (work / _ENOUGH).unlink(missing_ok=True)  # after the rename: if that fails, the build is still complete
                return work
    return _new(work)


def _new(folder: Path) -> Path:
    """Create the folder and return it. Not by tempfile, whose folders other users of the cache cannot read."""
    folder.mkdir()
    return folder


def _remove(path: Path) -> None:
    """Remove a file or folder; a folder is renamed first, so that no process sees it half removed."""
    if path.is_file():
        path.unlink(missing_ok=True)
        return
    leaving = path.with_name(f"{_LEAVING}{uuid.uuid4().hex}")
    with suppress(OSError):  # another process was faster, or on Windows a process still reads it
        path.rename(leaving)
        shutil.rmtree(leaving, ignore_errors=True)


def _state(folder: Path, names: Iterable[str]) -> tuple[object, ...]:
    """Return a value that changes whenever one of the folder's files `names` does."""
    stats = [(folder / name).stat() for name in names]
    return (str(folder), *((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats))


def _room(file: Path) -> int:
    """Return a file's bytes on disk, which are fewer than its size if it is a partly filled array."""
    stat = file.stat()
    return stat.st_blocks * 512 if hasattr(stat, "st_blocks") else stat.st_size


def _locked(path: Path) -> AbstractContextManager[object]:
    """Return a context that holds the lock `path`; if the process dies, the system releases it."""
    # On Windows a folder with an open file in it cannot be renamed.
    return nullcontext() if sys.platform == "win32" else FileLock(path)


def _abandoned(folder: Path) -> bool:
    """Return whether no process works on `folder`.

    If another process removes the folder meanwhile, FileLock creates it again, and an empty folder may stay.
    """
    lock = folder / _LOCK
    try:
        if sys.platform == "win32" or not lock.exists():
            return (folder / _ENOUGH).exists() or time.time() - folder.stat().st_mtime > _UNCERTAIN
        with FileLock(lock, timeout=0):
            return True
    except OSError:  # the lock is held (filelock.Timeout is an OSError), or the folder is gone
        return False
