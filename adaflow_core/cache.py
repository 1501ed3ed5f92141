"""Results on disk, by the content and settings that shape them: analyse and invert once, edit many prompts."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaflow_core.types import AdaFlowError

Build = Callable[[Path], dict[str, Any]]

# Changes whenever what is stored under the same settings changes.
FORMAT = 2


def cache_key(**settings: Any) -> str:
    """A short name for the settings: equal settings, equal name."""
    text = json.dumps({"format": FORMAT, **settings}, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """Names a file by its content."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class Cache:
    """Folders `root/kind/key`, each complete or absent, the least recently used removed over the limit."""

    root: Path
    limit_bytes: int = 20 * 2**30

    @classmethod
    def default(cls) -> Cache:
        """`$ADAFLOW_CACHE`, else the user's cache folder."""
        named = os.environ.get("ADAFLOW_CACHE")
        base = os.environ.get("XDG_CACHE_HOME")
        return cls(Path(named) if named else (Path(base) if base else Path.home() / ".cache") / "adaflow")

    def get(self, kind: str, key: str, build: Build) -> tuple[Path, dict[str, Any], bool]:
        """The entry's folder, its metadata, and whether it was there before.

        `build` fills an empty folder and returns the metadata. The folder takes its name only when it is
        complete, so a build that is stopped leaves nothing.
        """
        folder = self.root / kind / key
        described = folder / "meta.json"
        if described.is_file():
            meta = json.loads(described.read_text(encoding="utf-8"))
            os.utime(described)  # for the order of removal
            return folder, meta, True
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
        except OSError as problem:
            raise AdaFlowError(
                f"the cache folder {self.root} cannot be written; set ADAFLOW_CACHE to another ({problem.strerror})"
            ) from problem
        try:
            meta = build(work)
            (work / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
            if folder.exists():  # another process was faster; its result is the same
                shutil.rmtree(work)
            else:
                work.rename(folder)
        except BaseException as problem:
            shutil.rmtree(work, ignore_errors=True)
            if isinstance(problem, OSError):
                raise AdaFlowError(
                    f"the cache folder {self.root} cannot be written; free some space or set ADAFLOW_CACHE "
                    f"to another ({problem.strerror})"
                ) from problem
            raise
        self._evict(keep=folder)
        return folder, meta, False

    def _evict(self, keep: Path) -> None:
        entries = []
        for described in self.root.glob("*/*/meta.json"):
            size = sum(f.stat().st_size for f in described.parent.iterdir() if f.is_file())
            entries.append((described.stat().st_mtime, size, described.parent))
        total = sum(size for _, size, _ in entries)
        for _, size, folder in sorted(entries):
            if total <= self.limit_bytes:
                return
            if folder != keep:
                # Memory maps of a removed file stay readable until they are closed.
                shutil.rmtree(folder, ignore_errors=True)
                total -= size
