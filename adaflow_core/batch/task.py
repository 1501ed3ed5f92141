"""A task of a batch: makes and scores the missing edits of one clip by one method, under all the clip's prompts.

The prompts share the plan and, through the engine's cache, the inversion. A task runs in this process or in one of
Ray's workers; `Job`, `Task` and `Outcome` are pickled between them.
"""

from __future__ import annotations

import platform
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from adaflow_core.batch.files import Storage, absolute
from adaflow_core.batch.manifest import Clip
from adaflow_core.batch.table import is_score_of, is_whole_row
from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.model.files.parts import ModelParts, split_value
from adaflow_core.model.hub.client import on_disk
from adaflow_core.picture.full_size import deliver_edit
from adaflow_core.progress import Monitor, Report, Stop
from adaflow_core.storage.cache import Cache, cache_key
from adaflow_core.version import MADE, __version__
from adaflow_core.video.types import parse_range, parse_size

if TYPE_CHECKING:
    import torch


CACHE_GB = 100  # the default limit: several clips, each used by all methods, should fit at a time
_PACKAGES = ("torch", "diffusers", "transformers", "numpy", "ray")  # their versions are recorded in each row


class Scorer(Protocol):
    """Scores a finished edit from its files alone. It is pickled for the workers."""

    def identity(self) -> dict[str, Any]:
        """Return what the scores depend on; edits that were scored with another identity are scored again."""
        ...

    def score(self, clip: Clip, prompt: str, source: Path, edited: Path) -> dict[str, Any]:
        """Return scores by name; `prompt` is the prompt's name in the clip."""
        ...


@dataclass(frozen=True)
class Job:
    """What all tasks of a batch share."""

    out: str  # a folder or URL
    model: str = "embedded"
    device: str = "auto"
    dtype: str = "auto"
    attention: str = "auto"
    cache: str | None = None  # a folder on each machine; None: the usual one
    cache_gb: float | None = None  # the cache's limit in GiB; None: the machine's ADAFLOW_CACHE_GB, or else CACHE_GB
    scorer: Scorer | None = None
    deliver: str = "working"  # the size of the videos, as `deliver_edit` takes it

    def absolute(self) -> Job:
        """Return the job with absolute paths: a Ray worker may have another working directory."""

        def found(name: str) -> str:
            file = split_value(name)[0]
            return absolute(file) + name[len(file) :] if file and on_disk(file) else name

        parts = ModelParts.parse(self.model)
        there = ModelParts(
            parts.model if parts.model == "embedded" else found(parts.model),
            tuple(map(found, parts.loras)),
            found(parts.vae),
            tuple(map(found, parts.embeddings)),
        )
        return replace(self, out=absolute(self.out), model=str(there), cache=self.cache and absolute(self.cache))


@dataclass(frozen=True)
class Task:
    """One clip by one method, under all its prompts."""

    clip: Clip
    method: str
    plan: PlanConfig
    edit: EditConfig

    @property
    def name(self) -> tuple[str, str]:
        return self.clip.id, self.method

    def key(self, prompt: str) -> str:
        return f"{self.clip.id}/{prompt}/{self.method}"

    def digest(self, prompt: str, job: Job) -> str:
        """Digest all inputs of the edit; an edit whose row has another digest is made again.

        Videos and models are identified by their path or URL alone, and a change of their content is not noticed:
        reading many remote clips would take minutes.
        """
        clip = self.clip
        return cache_key(
            video=clip.location, frames=clip.frames, size=clip.size, fps=clip.fps, source=clip.source_prompt,
            prompt=clip.prompts[prompt], plan=asdict(self.plan), edit=asdict(self.edit), model=job.model,
            deliver=job.deliver, dtype=job.dtype, made=MADE,
        )  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """The outcome of a task."""

    made: int = 0  # edits
    scored: int = 0
    seconds: float = 0.0
    problems: dict[str, str] = field(default_factory=dict)  # key of the edit -> what was wrong
    notes: tuple[str, ...] = ()  # sentences for the user, on the plan and the edits


@lru_cache(maxsize=1)
def _engine(model: str, device: str, dtype: str, attention: str, cache: str | None, limit: float | None) -> AdaFlow:
    """Return the engine, one per process: Ray reuses processes, and loading takes longer than some edits."""
    usual = Cache.default(limit, CACHE_GB)
    own = replace(usual, root=Path(cache)) if cache else usual
    return AdaFlow.from_pretrained(model, device=device, dtype=dtype, attention=attention, cache=own)


def perform(task: Task, job: Job, *, progress: Report | None = None, stop: Stop | None = None) -> Outcome:
    """Make and score the missing edits of a task.

    Problems are returned, not raised, so that the batch goes on with other clips; only `Stopped` is raised.
    """
    storage, began = Storage(job.out), time.perf_counter()
    made, scored, problems, notes = 0, 0, dict[str, str](), list[str]()
    with tempfile.TemporaryDirectory(prefix="adaflow-batch-") as name:
        # Separate folders: a source may have the same name as an edit.
        sources, edits, delivered = (Path(name) / part for part in ("sources", "edits", "delivered"))
        for folder in (sources, edits, delivered):
            folder.mkdir()
        unscored = list(task.clip.prompts)
        try:
            found = {prompt: made_and_scored(task, prompt, job, storage.find_json) for prompt in unscored}
            missing = [prompt for prompt in found if not found[prompt][0]]
            unscored = [prompt for prompt in found if not found[prompt][1]]
            source = storage.fetch(task.clip.location, sources) if unscored else Path()
            editor = _ClipEditor(task, job, source, progress, stop) if missing else None
            notes += editor.plan.notes if editor is not None else ()
        except Stopped:
            raise
        except Exception as problem:  # a clip that cannot be read must not end the batch
            return Outcome(problems={task.key(prompt): describe(problem) for prompt in unscored})
        for prompt in unscored:
            try:
                if editor is not None and prompt in missing:
                    notes += (f"{task.key(prompt)}: {note}" for note in editor.edit(prompt, delivered))
                    made += 1
                if job.scorer is not None:
                    edited = storage.fetch(f"videos/{task.key(prompt)}.mp4", edits)
                    made_with = {"with": job.scorer.identity(), "edit": task.digest(prompt, job)}
                    scores = made_with | job.scorer.score(task.clip, prompt, source, edited)
                    storage.write_json(f"scores/{task.key(prompt)}.json", scores)
                    scored += 1
            except Stopped:
                raise
            except Exception as problem:  # of any kind: the other edits do not depend on it
                problems[task.key(prompt)] = describe(problem)
    return Outcome(made, scored, time.perf_counter() - began, problems, tuple(notes))


class _ClipEditor:
    """Plans a clip once and edits it under one prompt after another."""

    def __init__(self, task: Task, job: Job, source: Path, progress: Report | None, stop: Stop | None) -> None:
        self.task, self.job, self.progress, self.stop = task, job, progress, stop
        clip, began = task.clip, time.perf_counter()
        rate = {} if clip.fps is None else {"fps": clip.fps}
        if rate and source.is_file():
            raise AdaFlowError(f"fps is for a folder of pictures, and {clip.video} has its own rate; leave it out")
        self.engine = _engine(job.model, job.device, job.dtype, job.attention, job.cache, job.cache_gb)
        loaded = time.perf_counter()
        self.plan = self.engine.plan(
            source,
            task.plan,
            edit=task.edit,
            size=parse_size(clip.size) if clip.size else None,
            frames=parse_range(clip.frames) if clip.frames else None,
            **rate,
            progress=progress,
            stop=stop,
        )
        self.load_seconds, self.plan_seconds = loaded - began, time.perf_counter() - loaded

    def edit(self, prompt: str, folder: Path) -> tuple[str, ...]:
        """Write the video and then its row, so that a row means a complete video. Returns notes for the user."""
        task, engine, plan, storage = self.task, self.engine, self.plan, Storage(self.job.out)
        clip, key, began = task.clip, task.key(prompt), time.perf_counter()
        result = engine.edit(plan, clip.prompts[prompt], task.edit, progress=self.progress, stop=self.stop)
        edited = time.perf_counter()
        judged = engine.score(plan, result, progress=self.progress, stop=self.stop)
        monitor = Monitor(self.progress, self.stop)
        kept = replace(result, state=None)  # delivering must not remove the checkpoint before the row is written
        delivered = deliver_edit(folder / "edit.mp4", kept, plan.video, self.job.deliver, monitor=monitor)
        storage.put(delivered.path, f"videos/{key}.mp4")
        row = {
            "key": key,
            "clip": clip.id,
            "prompt_name": prompt,
            "method": task.method,
            "source_prompt": clip.source_prompt,
            "video": f"videos/{key}.mp4",
            "digest": task.digest(prompt, self.job),
            "deliver": delivered.deliver,
            "delivered_size": delivered.size,
            **result.report,
            "notes": [*plan.notes, *delivered.notes],
            "scores": asdict(judged),
            "load_seconds": self.load_seconds,
            "plan_seconds": self.plan_seconds,  # planned once for all prompts of the task
            "edit_seconds": edited - began,
            "fingerprint": engine.backbone.fingerprint,
            "device": _device(engine.backbone.device),
            "versions": _versions(),
        }
        storage.write_json(f"rows/{key}.json", row)
        result.forget_state()
        return tuple(dict.fromkeys((*result.warnings, *delivered.notes, *judged.warnings)))


def made_and_scored(
    task: Task, prompt: str, job: Job, find: Callable[[str], dict[str, Any] | None]
) -> tuple[bool, bool]:
    """Return whether an edit was made with these settings, and whether it was scored by this job's scorer.

    `find` returns the object in a JSON file under `job.out`, or None. Without a scorer, a made edit counts as scored.
    """
    key = task.key(prompt)
    row = find(f"rows/{key}.json")
    if row is None or not is_whole_row(row) or row["digest"] != task.digest(prompt, job):
        return False, False
    if job.scorer is None:
        return True, True
    score = find(f"scores/{key}.json")
    return True, score is not None and is_score_of(score, row) and score.get("with") == job.scorer.identity()


def describe(problem: Exception) -> str:
    if isinstance(problem, AdaFlowError):
        return str(problem)
    return "".join(traceback.format_exception(problem)).strip()


def _device(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def _versions() -> dict[str, str]:
    """Return the versions of this program, of Python and of the packages that results depend on."""
    found = {"adaflow": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
