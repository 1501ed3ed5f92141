"""Locks that end with their process, however it ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_UNCERTAIN = 24 * 3600.0  # seconds after which a folder whose lock says nothing belongs to nobody


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Makes the file `path` and holds its lock."""
    if sys.platform == "win32":  # where a folder with an open file in it cannot be renamed
        path.touch()
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def abandoned(path: Path) -> bool:
    """Whether nobody holds the lock `path` any more; its folder may be gone."""
    try:
        if not path.exists() or sys.platform == "win32":
            return time.time() - path.parent.stat().st_mtime > _UNCERTAIN
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # it is held; or the folder went
        return False
    return True
