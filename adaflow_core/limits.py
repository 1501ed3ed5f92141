"""Limits that a process puts on itself before it opens a file that is not trusted."""

from __future__ import annotations

import contextlib
import os
import sys

MEMORY_BYTES = 4 * 2**30  # of addresses; 8K 10-bit HEVC was seen to take 1.4 GiB of them with eight threads
THREADS = 8  # each holds frames of its own


def limit_process(may_write: bool) -> None:
    """Bounds memory, files and core dumps where the platform can; elsewhere only the parent's clock bounds."""
    if sys.platform == "win32":
        return
    import resource

    wanted = {resource.RLIMIT_AS: MEMORY_BYTES, resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: 64}
    if not may_write:
        wanted[resource.RLIMIT_FSIZE] = 0  # pipes are no files in this respect
    for kind, most in wanted.items():
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS knows RLIMIT_AS and refuses it
            resource.setrlimit(kind, (most, most))


def threads() -> int:
    return min(THREADS, os.cpu_count() or 1)
