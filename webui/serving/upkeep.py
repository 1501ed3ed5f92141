"""Deletion of old files: results, plans, uploads, and what a video left in the cache."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from adaflow_core.storage.cache import Cache
from webui.studio import Studio

logger = logging.getLogger(__name__)

_CALIBRATION = "calibration"  # a kind of cache entry that measures this machine; it holds nothing of a video
_INTERVAL = 30.0  # seconds between two rounds


class Upkeep:
    """Deletes old files in the background.

    uploads: the folder of Gradio's uploads. Files that are in it from the start belong to the page and stay; files of
    results are deleted with their edits. cache: the analysis cache to clean as well, if any: entries, and unfinished
    work by the time of its last step.
    """

    def __init__(self, studio: Studio, uploads: Path, cache: Cache | None = None) -> None:
        self.studio, self.uploads, self.cache = studio, uploads, cache
        self._own = set(uploads.rglob("*"))
        self._stop = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="adaflow-upkeep", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def clean(self) -> int:
        """Delete everything that has expired, and the least recently used uploads over the size limit; return how many.

        Finished edits count towards the limit; those over their own share are forgotten when the next edit is made.
        """
        limits = self.studio.limits
        deleted = self.studio.forget_older_than(limits.keep_seconds)
        oldest = time.time() - limits.keep_seconds
        in_use, used = self.studio.jobs.files_in_use(), self.studio.kept.files_used()
        return deleted + self._clean_uploads(oldest, in_use, used) + self._clean_cache(oldest, in_use | used.keys())

    def _clean_uploads(self, oldest: float, in_use: set[Path], used: Mapping[Path, float]) -> int:
        files = []
        for file in self._files():
            if file.is_file() and file not in self._own:
                stat = file.stat()
                # By change time: a copy has the modification time of its original.
                files.append((max(stat.st_ctime, used.get(file, 0.0)), stat.st_size, file))
        total, deleted = sum(size for _, size, _ in files) + self.studio.jobs.held_bytes(), 0
        for last, size, file in sorted(files):
            too_old, too_many = last < oldest, total > self.studio.limits.keep_bytes
            if file not in in_use and (too_old or too_many):
                file.unlink(missing_ok=True)
                _remove_empty(file.parent, self.uploads)
                total, deleted = total - size, deleted + 1
        return deleted

    def _files(self) -> Iterator[Path]:
        """The files in the folder of uploads, without results, which another thread may delete meanwhile."""
        for folder, folders, names in os.walk(self.uploads):
            if Path(folder) == self.studio.folder:
                folders.clear()
            else:
                yield from (Path(folder, name) for name in names)

    def _clean_cache(self, oldest: float, in_use: set[Path]) -> int:
        if self.cache is None:
            return 0
        needed = {file.parent for file in in_use}
        return self.cache.forget_older_than(oldest, lambda path: path.parent.name == _CALIBRATION or path in needed)

    def _run(self) -> None:
        while not self._stop.wait(min(_INTERVAL, self.studio.limits.keep_seconds / 4)):
            try:
                if deleted := self.clean():
                    _trim_memory()
                    logger.info("deleted old files", extra={"deleted": deleted})
            except OSError:  # another process deleted a file first; the next round continues
                logger.warning("a round of deletions failed", exc_info=True)


def _trim_memory() -> None:
    """Return freed memory to the system: glibc keeps what lies between blocks in use, here over 100 MiB."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _remove_empty(folder: Path, root: Path) -> None:
    while folder != root and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
