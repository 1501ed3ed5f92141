"""Delivery at the source's size: the source is read again frame by frame, and what the edit changed is laid over it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adaflow_core.config import DELIVERIES
from adaflow_core.errors import AdaFlowError
from adaflow_core.picture.enlarge import lay_over
from adaflow_core.planning.analysis import check_edit_of
from adaflow_core.progress import Monitor
from adaflow_core.storage.digests import quick_digest
from adaflow_core.types import EditResult
from adaflow_core.video.client import Decoder
from adaflow_core.video.decode import probe
from adaflow_core.video.types import Video
from adaflow_core.video.write import write_video

_WORKERS = 4  # frames made at a time, at most: each takes memory of its own


@dataclass(frozen=True)
class Delivered:
    """A written edit."""

    path: Path
    size: tuple[int, int]  # (width, height)
    deliver: str  # size of what was written: "source" or "working"; "working" also if the source is no larger
    notes: tuple[str, ...] = ()  # sentences for the user, e.g. that the sound was lost


def deliver_edit(
    path: str | Path,
    result: EditResult,
    video: Video,
    deliver: str = "source",
    *,
    metadata: Mapping[str, str] | None = None,
    monitor: Monitor | None = None,
) -> Delivered:
    """Write `result`, an edit of `video`, as `EditResult.save` does; if `deliver` is "source", at its file's size.

    Where the edit changed nothing, and outside its region, the file's own pixels are written. Frames that came without
    a file, or from a file no larger than they are, are written as they are. Raises AdaFlowError if the file is gone or
    has changed, and if `result` is an edit of another video.
    """
    check_edit_of(video, result)
    if deliver not in DELIVERIES:
        raise AdaFlowError(f"deliver is {deliver!r}; it must be one of {', '.join(DELIVERIES)}")
    size, monitor = source_size(video) if deliver == "source" else None, monitor or Monitor()
    before = len(monitor.notes)
    if size is None:
        return Delivered(result.save(path, metadata, monitor), video.size, "working", tuple(monitor.notes[before:]))
    written = write_video(
        path,
        FullSize(video, result.frames, size, monitor, result.bounds),
        result.fps,
        audio_from=result.source,
        start=result.start,
        times=result.times,
        transfer=result.transfer,
        metadata=metadata,
        monitor=monitor,
    )
    result.forget_state()
    return Delivered(written, size, "source", tuple(monitor.notes[before:]))


def source_size(video: Video) -> tuple[int, int] | None:
    """Return (width, height) of the video's file if it has more pixels, else None; AdaFlowError if gone or changed."""
    if video.source is None:
        return None
    if lost := why_lost(video):
        raise AdaFlowError(f"{lost}; put it back, or deliver at the working size")
    info = probe(video.source)
    return (info.width, info.height) if info.width * info.height > video.size[0] * video.size[1] else None


def why_lost(video: Video) -> str:
    """Return a sentence on why the video's frames can't be read from its file again; "" if they can, or it has none."""
    if video.source is None:
        return ""
    if not video.source.exists():
        return f"{video.source} is gone"
    try:
        if video.file_digest and quick_digest(video.source) != video.file_digest:
            return f"{video.source} is not what it was when the edit was planned"
    except OSError as problem:
        return f"{video.source} cannot be read ({problem.strerror})"
    return ""


@dataclass(frozen=True)
class FullSize:
    """The frames of an edit at the source's size, made as they are iterated over."""

    video: Video
    edited: np.ndarray  # [T, H, W, 3] uint8, at the working size
    size: tuple[int, int]  # (width, height) of the source
    monitor: Monitor
    bounds: np.ndarray | None = None  # as in `EditResult`

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.video), self.size[1], self.size[0], 3

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield T frames [H, W, 3] uint8; AdaFlowError if the file has fewer."""
        assert self.video.source is not None
        workers, made = min(_WORKERS, os.cpu_count() or 1), 0
        waiting: deque[Future[np.ndarray]] = deque()
        with Decoder(self.video.source, self.monitor) as decoder, ThreadPoolExecutor(workers) as pool:
            begin = self.video.start
            for *_, source in decoder.frames(self.size, begin, self.video.number(len(self.video) - 1) + 1 - begin):
                bounds = None if self.bounds is None else self.bounds[made]
                waiting.append(pool.submit(lay_over, source, self.video.frames[made], self.edited[made], bounds))
                made += 1
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            if made < len(self.video):
                raise AdaFlowError(
                    f"{self.video.source} ends after {made} of {len(self.video)} frames; deliver at the working size"
                )
            while waiting:
                yield waiting.popleft().result()
