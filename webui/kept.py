"""What the server keeps for visitors, by secret ids: plans, videos, painted regions and keyframes edited by hand."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from adaflow_core.config import PlanConfig
from adaflow_core.picture.region import FEATHER
from adaflow_core.types import Forecast, Plan, Segments
from adaflow_core.video.types import Video
from webui.jobs.tasks import Request

T = TypeVar("T")
# Bytes in memory for all visitors together; the least recently used goes first. A long film's plan takes up to 150 MB.
_KEEP_PLANS, _KEEP_OVERS, _KEEP_OTHERS = 2 * 2**30, 2**29, 2**24


@dataclass(frozen=True)
class StoredPlan:
    id: str
    request: Request
    plan: Plan
    outdated: bool = False  # its forecast is to be measured again, so the same request is planned again
    edited: bool = False  # it has a finished edit, so a retake may need it

    def answers(self, request: Request) -> bool:
        """Whether the plan can be used for `request` as it is."""
        return self.request == request and not self.outdated


@dataclass(frozen=True)
class PlanOutline:
    """The part of a plan that a finished edit keeps: what forecasts need, and the id to find the plan itself."""

    id: str
    video: Video
    model: str
    config: PlanConfig
    segments: Segments
    forecast: Forecast

    @classmethod
    def of(cls, stored: StoredPlan) -> PlanOutline:
        plan = stored.plan
        return cls(stored.id, plan.video, plan.model, plan.config, plan.segments, plan.forecast)


@dataclass(frozen=True)
class Search:
    """The search for a region in all frames of a plan."""

    job: str = ""  # id of the job that searches, or that has found it; "" if there was no search
    # The source prompt and the model by which a region given by words was found; None for a painted one.
    found_in: tuple[str, str] | None = None
    # The region to return to if this search finds nothing; None as soon as it has found something.
    before: RegionState | None = None


@dataclass(frozen=True)
class RegionState:
    """The region to edit, given by painted masks or else by words; without both it is the whole picture."""

    masks: dict[int, np.ndarray] = field(default_factory=dict)  # frame: [H, W] bool, as it was painted
    words: str = ""  # words of the source prompt
    feather: int = FEATHER
    crop: str = "auto"  # one of `adaflow_core.config.CROPS`
    search: Search = field(default_factory=Search)

    @property
    def settled(self) -> RegionState:
        """The same region after its search succeeded: the region before it is dropped."""
        return replace(self, search=replace(self.search, before=None))


@dataclass(frozen=True)
class Opened:
    """The region and keyframes by hand of an opened project, as JSON; read once a plan has the project's frames."""

    region: dict[str, Any] | None
    by_hand: list[dict[str, Any]] | None
    range: str | None = None  # the project's frame range, as it was written


@dataclass(frozen=True)
class AsideState:
    """Masks and keyframes by hand that belong to other frames than the plan's; used again when those frames return."""

    region: RegionState | None = None  # only a painted one; a region given by words stays on the page
    pictures: dict[int, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class OverState:
    """The region that a visitor chose, and the keyframes that a visitor edited by hand and uploaded.

    Words apply to any frames. Masks and pictures belong to certain frames only, and are moved to `aside` while the
    plan has others.
    """

    file: str = ""  # checksum of the video's file
    video: str = ""  # digest of its frames at the working size
    region: RegionState = field(default_factory=RegionState)
    pictures: dict[int, np.ndarray] = field(default_factory=dict)  # keyframe: [H, W, 3] uint8, by hand
    opened: Opened | None = None  # from a project, until a plan has its frames
    shown: bool = True  # whether the page shows it
    aside: dict[str, AsideState] = field(default_factory=dict)  # digest of other frames: what belongs to them
    id: str = ""  # the id by which a reloaded page finds it; "" if it was never kept
    __hash__ = object.__hash__  # Gradio hashes states that have listeners, and dicts have no hash

    @property
    def is_empty(self) -> bool:
        """Whether the tab has nothing at all, not even a video or the id of an earlier state."""
        return self == OverState()


@dataclass
class _Held(Generic[T]):
    """A kept value, its last use and its size."""

    value: T
    used: float  # time of its last use, on the monotonic clock
    held: int  # bytes of memory


class _Shelf(OrderedDict[str, _Held[T]]):
    """Values by secret ids, least recently used first, up to `most` bytes together.

    The value used last is kept even if it alone takes more.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def put(self, key: str, value: T) -> None:
        self[key] = _Held(value, time.monotonic(), _in_memory(value) + len(key))
        self.move_to_end(key)
        held = sum(kept.held for kept in self.values())
        while held > self.most and len(self) > 1:
            held -= self.popitem(last=False)[1].held

    def find(self, key: str) -> T | None:
        """What is kept under `key`, now marked as used."""
        kept = self.get(key)
        if kept is None:
            return None
        kept.used = time.monotonic()
        self.move_to_end(key)
        return kept.value


class Kept:
    """What is kept for all visitors together; a browser knows the secret ids of what is its own."""

    def __init__(self) -> None:
        # Guarded by _lock.
        self._plans: _Shelf[StoredPlan] = _Shelf(_KEEP_PLANS)
        self._overs: _Shelf[OverState] = _Shelf(_KEEP_OVERS)
        self._videos: _Shelf[str] = _Shelf(_KEEP_OTHERS)
        self._crops: _Shelf[float] = _Shelf(_KEEP_OTHERS)
        self._lock = threading.Lock()

    def store_plan(self, request: Request, plan: Plan, plan_id: str | None = None) -> str:
        """Keep a plan, and return its id: `plan_id`, or by default a new one."""
        before = self.find_plan(plan_id)
        edited = before is not None and before.edited
        stored = StoredPlan(plan_id or secrets.token_urlsafe(16), request, plan, edited=edited)
        return self._keep(self._plans, stored, stored.id)

    def keep_edited(self, stored: StoredPlan) -> None:
        """Keep the plan of a finished edit for retakes, even if another plan replaces it on the page."""
        stored = self.find_plan(stored.id) or stored
        self._keep(self._plans, replace(stored, edited=True), stored.id)

    def expect_anew(self, plan_id: str) -> None:
        """Mark the forecast of a plan as outdated; the rest of the plan stays valid."""
        with self._lock:
            if kept := self._plans.get(plan_id):
                kept.value = replace(kept.value, outdated=True)

    def find_plan(self, plan_id: str | None) -> StoredPlan | None:
        """The stored plan with this id; None if it does not exist or has been dropped."""
        return self._find(self._plans, plan_id)

    def forget_plan(self, plan_id: str) -> None:
        """Drop a plan that another one has replaced, unless it was edited; queued edits hold their own reference."""
        with self._lock:
            if (kept := self._plans.get(plan_id)) and not kept.value.edited:
                del self._plans[plan_id]

    def keep_video(self, path: str) -> str:
        """Remember a visitor's video, and return a secret id; finding the video by it marks the file as used."""
        with self._lock:
            known = next((key for key, kept in self._videos.items() if kept.value == path), "")
        return self._keep(self._videos, path, known)

    def keep_over(self, over: OverState) -> OverState:
        """Remember a visitor's region and keyframes by hand, and return them with their secret id, new or unchanged."""
        over = replace(over, id=over.id or secrets.token_urlsafe(16))
        self._keep(self._overs, over, over.id)
        return over

    def _keep(self, shelf: _Shelf[T], value: T, key: str = "") -> str:
        key = key or secrets.token_urlsafe(16)
        with self._lock:
            shelf.put(key, value)
        return key

    def _find(self, shelf: _Shelf[T], key: str | None) -> T | None:
        with self._lock:
            return shelf.find(key or "")

    def find_over(self, key: str | None) -> OverState | None:
        """The region and keyframes by hand with this id; None if they do not exist or have been dropped."""
        return self._find(self._overs, key)

    def find_video(self, key: str | None) -> str | None:
        """The path of the video with this id; None if it is not known or its file has been deleted."""
        path = self._find(self._videos, key)
        return path if path and Path(path).is_file() else None

    def keep_crop(self, key: str, share: float) -> None:
        """Remember the share of the frame that is edited for a region."""
        self._keep(self._crops, share, key)

    def find_crop(self, key: str) -> float | None:
        return self._find(self._crops, key)

    def files_used(self) -> dict[Path, float]:
        """Map each file that kept values need to the time of its last use, in seconds since the epoch.

        The files are uploads and the memory-mapped arrays of plans.
        """
        with self._lock:
            kept = [(kept.used, [Path(kept.value)]) for kept in self._videos.values()]
            for plan in self._plans.values():
                request, made = plan.value.request, plan.value.plan
                kept.append((plan.used, files_of(request.video, made.video.frames, made.features.tokens)))
        now, used = time.time() - time.monotonic(), dict[Path, float]()
        for when, files in kept:
            used |= {file: max(now + when, used.get(file, 0.0)) for file in files}
        return used

    def forget_older_than(self, seconds: float) -> int:
        """Drop what was last used more than `seconds` ago, and return how many values."""
        oldest, dropped = time.monotonic() - seconds, 0
        shelves: tuple[_Shelf[Any], ...] = (self._plans, self._overs, self._videos, self._crops)
        with self._lock:
            for shelf in shelves:
                old = [key for key, kept in shelf.items() if kept.used < oldest]
                dropped += len(old)
                for key in old:
                    del shelf[key]
        return dropped


def files_of(video: str, *arrays: np.ndarray) -> list[Path]:
    """The files that a job will read: the upload `video`, and the files of those `arrays` that are memory maps."""
    names: list[Any] = [getattr(array, "filename", None) for array in arrays]
    return [Path(video), *(Path(os.fspath(name)) for name in names if name)]


def _in_memory(value: object) -> int:
    """Bytes of the arrays and strings in `value`, without memory maps."""
    if isinstance(value, np.ndarray):
        return 0 if isinstance(value, np.memmap) else value.nbytes
    if isinstance(value, str):
        return len(value)
    if is_dataclass(value):
        return sum(_in_memory(getattr(value, each.name)) for each in fields(value))
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return sum(map(_in_memory, parts))
