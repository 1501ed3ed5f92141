"""Folders that last as long as the program: for uploads, results, and what strangers' videos leave in a cache.

A program that is killed cannot delete its own folder; the next one that starts does. A lock in the folder, which the
system releases with the process, shows whether its program still runs.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

_PREFIX, _LOCK = "adaflow-", ".page.lock"
_FRESH = 60.0  # seconds in which a lock that was just made may not be held yet


@contextmanager
def own_folder(parent: Path) -> Iterator[Path]:
    """Make a folder in `parent` and delete it at the end; folders of killed programs are deleted first.

    Anything else in `parent` stays. Raises OSError if no folder can be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        with FileLock(folder / _LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path) -> None:
    for lock in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError):  # it is held (filelock.Timeout is one), or belongs to another user
            if lock.parent.is_symlink() or time.time() - lock.stat().st_mtime < _FRESH:
                continue
            with FileLock(lock, timeout=0):
                pass
            shutil.rmtree(lock.parent, ignore_errors=True)
