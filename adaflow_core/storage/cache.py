"""Results on disk, by the content and settings that shape them: analyse and invert once, edit many prompts."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import uuid
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from adaflow_core.errors import AdaFlowError, Stopped

Note = Callable[[str], None]
Build = Callable[[Path], dict[str, Any]]
# Changes whenever what is stored under the same settings changes.
FORMAT = 4
_META, _LOCK = "meta.json", ".lock"
_BUILDING, _LEAVING, _UNFINISHED = ".building-", ".leaving-", ".unfinished-"
_STATE, _PART = ".zip", ".part"
_FRESH = 60.0  # seconds for which an entry that was asked for is safe from removal
_UNCERTAIN = 24 * 3600.0  # seconds after which a folder whose lock says nothing belongs to nobody
_STALE = 7 * 24 * 3600.0  # seconds after which nobody comes back to what was left unfinished


def cache_key(**settings: Any) -> str:
    """A short name for the settings: equal settings, equal name."""
    text = json.dumps({"format": FORMAT, **settings}, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """Names a file by its content; a folder by its files' names, sizes and times."""
    digest = hashlib.blake2b(digest_size=16)
    if path.is_dir():
        states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(path.iterdir())]
        digest.update(json.dumps(states).encode())
        return digest.hexdigest()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class Cache:
    """Folders `root/kind/key`, each complete or absent, the least recently used removed over the limit.

    Processes may share one: an entry takes its name in one step, leaves it in one step, and what was used in the
    last minute is not removed, so that whoever was told of an entry can open it.
    """

    root: Path
    limit_bytes: int = 20 * 2**30
    # What this object has found whole: an entry's state -> True. Checked once, as a preview asks at every slider.
    _whole: dict[tuple[object, ...], bool] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def default(cls) -> Cache:
        """`$ADAFLOW_CACHE`, else the user's cache folder."""
        named = os.environ.get("ADAFLOW_CACHE")
        base = os.environ.get("XDG_CACHE_HOME")
        return cls(Path(named) if named else (Path(base) if base else Path.home() / ".cache") / "adaflow")

    def get(
        self, kind: str, key: str, build: Build, note: Note | None = None, *, resumable: bool = False
    ) -> tuple[Path, dict[str, Any], bool]:
        """The entry's folder, its metadata, and whether it was there before.

        `build` fills an empty folder and returns the metadata. The folder takes its name only when it is
        complete, so a build that is stopped leaves nothing. A damaged entry is built anew, and `note` told of it.
        With `resumable`, what a stopped or killed build left is given to the next one.
        """
        folder = self.root / kind / key
        meta = self._read(folder)
        if meta is None and folder.exists():
            if note is not None:
                note(f"the cache's {kind} of this video were damaged, and were computed anew")
            _remove(folder)
        if meta is not None:
            return folder, meta, True
        try:
            self._sweep()
            folder.parent.mkdir(parents=True, exist_ok=True)
            work = _unfinished(folder) if resumable else Path(tempfile.mkdtemp(prefix=_BUILDING, dir=folder.parent))
        except OSError as problem:
            raise AdaFlowError(
                f"the cache folder {self.root} cannot be written; set ADAFLOW_CACHE to another ({problem.strerror})"
            ) from problem
        try:
            with _locked(work / _LOCK):
                meta = build(work)
                described = {"meta": meta, "files": {file.name: _state(file) for file in _contents(work)}}
                (work / _META).write_text(json.dumps(described), encoding="utf-8")
                meta = self._place(work, folder)
        except BaseException as problem:
            if not (resumable and isinstance(problem, Stopped)):
                shutil.rmtree(work, ignore_errors=True)
            if isinstance(problem, OSError):
                raise AdaFlowError(
                    f"the cache folder {self.root} cannot be written; free some space or set ADAFLOW_CACHE "
                    f"to another ({problem.strerror})"
                ) from problem
            raise
        self._evict(keep=folder)
        return folder, meta, False

    def state(self, kind: str, key: str) -> Path:
        """Where work that is not finished leaves its state, in a file of its own that is replaced as a whole.

        Removed by age as the entries are, and by whoever finishes the work.
        """
        return self.root / kind / f"{key}{_STATE}"

    def _read(self, folder: Path) -> dict[str, Any] | None:
        """The metadata of an entry that is whole, with its time of use renewed; None for any other."""
        described = folder / _META
        try:
            told = json.loads(described.read_text(encoding="utf-8"))
            meta, files = told["meta"], told["files"]
            state = tuple((str(folder / name), *_identity(folder / name)) for name in files)
            if state not in self._whole:
                if any(_state(folder / name) != expected for name, expected in files.items()):
                    return None
                self._whole[state] = True
            os.utime(described)  # for the order of removal
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return meta if isinstance(meta, dict) else None

    def _place(self, work: Path, folder: Path) -> dict[str, Any]:
        """Gives a complete folder its name; where another process was faster, its result is the same."""
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
        """Removes what processes that are gone were building or removing."""
        for folder in (*self.root.glob(f"*/{_BUILDING}*"), *self.root.glob(f"*/{_LEAVING}*")):
            if _abandoned(folder / _LOCK):
                shutil.rmtree(folder, ignore_errors=True)
        for folder in self.root.glob(f"*/{_UNFINISHED}*"):
            with suppress(OSError):
                if time.time() - folder.stat().st_mtime > _STALE and _abandoned(folder / _LOCK):
                    shutil.rmtree(folder, ignore_errors=True)
        for part in self.root.glob(f"*/*{_PART}"):
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > _FRESH:
                    part.unlink()

    def _evict(self, keep: Path) -> None:
        entries = []
        for described in self.root.glob(f"*/[!.]*/{_META}"):
            with suppress(OSError):  # another process removes it
                size = sum(file.stat().st_size for file in described.parent.iterdir())
                entries.append((described.stat().st_mtime, size, described.parent))
        for state in self.root.glob(f"*/*{_STATE}"):
            with suppress(OSError):
                entries.append((state.stat().st_mtime, state.stat().st_size, state))
        total = sum(size for _, size, _ in entries)
        for used, size, folder in sorted(entries):
            if total <= self.limit_bytes or time.time() - used < _FRESH:
                return
            if folder != keep:
                # Memory maps of a removed file stay readable until they are closed.
                _remove(folder)
                total -= size


def _unfinished(folder: Path) -> Path:
    """A folder to build the entry `folder` in: what somebody left of it, or an empty one."""
    mine = folder.with_name(f"{_UNFINISHED}{folder.name}-{uuid.uuid4().hex}")
    for left in folder.parent.glob(f"{_UNFINISHED}{folder.name}-*"):
        if _abandoned(left / _LOCK):
            with suppress(OSError):  # another process was faster
                return left.rename(mine)
    mine.mkdir()
    return mine


def _remove(folder: Path) -> None:
    """Takes an entry's name away in one step, then the rest."""
    if folder.suffix == _STATE:
        folder.unlink(missing_ok=True)
        return
    leaving = folder.with_name(f"{_LEAVING}{uuid.uuid4().hex}")
    with suppress(OSError):  # another process was faster; or Windows, where somebody reads it
        folder.rename(leaving)
        shutil.rmtree(leaving, ignore_errors=True)


def _contents(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.is_file() and file.name != _LOCK]


def _identity(file: Path) -> tuple[int, int, int]:
    """What changes when a file is written to."""
    stat = file.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _state(file: Path) -> list[int]:
    """Bytes and checksum: against damage, not against malice."""
    checksum = 0
    with file.open("rb") as content:
        while block := content.read(2**20):
            checksum = zlib.crc32(block, checksum)
    return [file.stat().st_size, checksum]


def _locked(path: Path) -> AbstractContextManager[object]:
    """Holds the lock `path`, which ends with its process, however that ends."""
    # On Windows a folder with an open file in it cannot be renamed.
    return nullcontext() if sys.platform == "win32" else FileLock(path)


def _abandoned(path: Path) -> bool:
    """Whether nobody holds the lock `path` any more; its folder may be gone."""
    try:
        if sys.platform == "win32" or not path.exists():
            return time.time() - path.parent.stat().st_mtime > _UNCERTAIN
        with FileLock(path, timeout=0):
            return True
    except OSError:  # it is held (filelock.Timeout is one); or the folder went
        return False
