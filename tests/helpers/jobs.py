"""Work for the job queue of the page."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from adaflow_core.errors import Stopped
from adaflow_core.progress import Report, Stop
from webui.jobs.queue import Jobs, Snapshot, Work


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until `condition` is true; fails after `seconds`, which a busy machine does not need."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.005)


def finish(jobs: Jobs, job_id: str, seconds: float = 60.0) -> Snapshot:
    """Wait until the job has finished, and return its last snapshot."""
    until(lambda: jobs.snapshot(job_id).finished, seconds)  # type: ignore[union-attr]
    snapshot = jobs.snapshot(job_id)
    assert snapshot is not None
    return snapshot


def wait_for(release: threading.Event) -> Work:
    """Work that runs until it is released or stopped."""

    def work(report: Report, stop: Stop) -> str:
        while not release.wait(0.005):
            if stop():
                raise Stopped
        return "released"

    return work


def work_until_stopped(report: Report, stop: Stop) -> None:
    while not stop():
        time.sleep(0.005)
    raise Stopped
