"""Limits on what a visitor may ask for, and on how long a visitor's files are kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from adaflow_core.errors import AdaFlowError
from adaflow_core.video.decode import probe
from adaflow_core.video.types import VideoInfo

LARGEST_SIDE = 768  # pixels of the shorter side: the largest working size offered, and allowed on a public page


@dataclass(frozen=True)
class Limits:
    """The defaults are those of a page for oneself. The page names the limits of an upload beside its upload field."""

    megabytes: int = 200
    seconds: float = 120.0
    side: int = 4096  # pixels
    waiting: int = 32  # jobs in the queue
    own: float = math.inf  # unfinished edits of one tab, and separately its other unfinished jobs
    job_seconds: float = math.inf  # running time of one job
    keep_seconds: float = 86400.0  # uploads, plans and results, since they were made or last used
    keep_bytes: int = 50 * 2**30  # uploads and results of all visitors together; results take up to half of it

    def __str__(self) -> str:
        return f"up to {self.seconds:g} s, {self.megabytes} MB and {self.side} pixels a side"

    @property
    def kept(self) -> str:
        """How long files are kept, such as "60 min"."""
        minutes, hours = self.keep_seconds / 60, self.keep_seconds / 3600
        if minutes < 120:
            return f"{minutes:.3g} min"
        return f"{hours:.3g} h" if hours < 240 else f"{hours // 24:.0f} days"

    def check(self, path: str) -> VideoInfo:
        """What the video's header says; AdaFlowError if the video is over a limit or cannot be read."""
        info = probe(path)
        if info.seconds > self.seconds:
            raise AdaFlowError(
                f"the video lasts {info.seconds:.0f} s; this page takes up to {self.seconds:g} s: cut it first"
            )
        if max(info.width, info.height) > self.side:
            raise AdaFlowError(
                f"the video has {info.width}x{info.height} pixels; this page takes up to {self.side} a side: "
                "scale it down first"
            )
        return info


# For strangers: many visitors share one machine.
PUBLIC = Limits(
    megabytes=100, seconds=30.0, waiting=24, own=4, job_seconds=600.0, keep_seconds=3600.0, keep_bytes=10 * 2**30
)


def limits_of(public: bool, **changes: float | None) -> Limits:
    """The limits of a page for strangers (`public`) or for oneself, with `changes`; None keeps the default."""
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    return replace(PUBLIC if public else Limits(), **given)
