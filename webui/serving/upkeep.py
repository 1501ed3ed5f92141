"""What is deleted when its time is over: results, plans, uploads, and what a video left in the cache."""

from __future__ import annotations

import ctypes
import logging
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

from adaflow_core.cache import Cache
from webui.studio import Studio

logger = logging.getLogger(__name__)

_OURS = "calibration"  # of this machine, not of anybody's video
_ROUND = 30.0  # seconds between two rounds


class Upkeep:
    """Rounds over the folders of a page; `uploads` is where Gradio keeps uploads and copies of results.

    What is there at the start is the page's own, and stays.
    """

    def __init__(self, studio: Studio, uploads: Path, cache: Cache | None = None) -> None:
        self.studio, self.uploads, self.cache = studio, uploads, cache
        self._own = set(uploads.rglob("*"))
        self._over = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="adaflow-upkeep", daemon=True).start()

    def stop(self) -> None:
        self._over.set()

    def round(self) -> int:
        """Delete what is older than its time, and of the uploads the oldest over the limit; returns how many."""
        limits = self.studio.limits
        gone = self.studio.forget_before(limits.keep_seconds)
        oldest, needed = time.time() - limits.keep_seconds, self.studio.jobs.held()
        # By the time of change, not of modification: a copy keeps that of what it was copied from.
        files = [(file.stat(), file) for file in self.uploads.rglob("*") if file.is_file() and file not in self._own]
        total = sum(stat.st_size for stat, _ in files)
        for stat, file in sorted(files, key=lambda pair: pair[0].st_ctime):
            if file not in needed and (stat.st_ctime < oldest or total > limits.keep_bytes):
                file.unlink(missing_ok=True)
                _remove_empty(file.parent, self.uploads)
                total, gone = total - stat.st_size, gone + 1
        for described in self.cache.root.glob("*/*/meta.json") if self.cache else ():
            # Its time is that of its last use. Whoever has an entry open keeps what is mapped of it.
            entry = described.parent
            in_use = any(path.parent == entry for path in needed)
            if entry.parent.name != _OURS and not in_use and described.stat().st_mtime < oldest:
                shutil.rmtree(entry, ignore_errors=True)
                gone += 1
        return gone

    def _run(self) -> None:
        while not self._over.wait(min(_ROUND, self.studio.limits.keep_seconds / 4)):
            try:
                if gone := self.round():
                    _give_back()
                    logger.info("deleted what was over its time", extra={"deleted": gone})
            except OSError:  # a file that another took away meanwhile: the next round sees the rest
                logger.warning("a round of deletions was cut short", exc_info=True)


def _give_back() -> None:
    """Freed memory, to the system: glibc keeps what lies between what is still in use, here over a hundred MiB."""
    with suppress(OSError, AttributeError):  # another system's library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _remove_empty(folder: Path, root: Path) -> None:
    while folder != root and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
