"""Many edits: every clip of a manifest by every method, each result a file of its own, so that nothing is done twice.

A task is a clip and a method; its prompts share the plan and, through the engine's cache, the inversion. Under `out`:

    rows/CLIP/PROMPT/METHOD.json      what was done: settings, seconds, versions; written after the video
    videos/CLIP/PROMPT/METHOD.mp4     the edit
    scores/CLIP/PROMPT/METHOD.json    what the scorer says of it
    table.jsonl, table.parquet        all rows with their scores, gathered at the end
    problems.json                     what went wrong in the last run

A run that was cut off, however hard, leaves whole files only; the next run does what is missing.
"""

from __future__ import annotations

import io
import json
import platform
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from adaflow_core.batch.files import Storage, absolute
from adaflow_core.batch.manifest import Clip
from adaflow_core.batch.pool import InTurn, Pool, RayPool
from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import AdaFlowError, Stopped, counted
from adaflow_core.model.files.parts import ModelParts, split_value
from adaflow_core.model.hub.client import on_disk
from adaflow_core.picture.full_size import deliver_edit
from adaflow_core.progress import Monitor, Progress, Report, Stop
from adaflow_core.storage.cache import Cache, cache_key
from adaflow_core.version import MADE, __version__
from adaflow_core.video.types import parse_range, parse_size

if TYPE_CHECKING:
    import torch


TABLES = ("table.jsonl", "table.parquet", "problems.json")  # written at the end of every run
CACHE_GB = 100  # where nothing else is asked for: workers have several clips at a time, each for all methods
PACKAGES = ("torch", "diffusers", "transformers", "numpy", "ray")


class Scorer(Protocol):
    """Scores a finished edit from the files alone. It is pickled for the workers."""

    def identity(self) -> dict[str, Any]:
        """What the scores depend on; edits scored under another identity are scored again."""
        ...

    def score(self, clip: Clip, prompt: str, source: Path, edited: Path) -> dict[str, Any]:
        """Scores by name; `prompt` is the prompt's name in the clip."""
        ...


@dataclass(frozen=True)
class Job:
    """What all tasks of a batch share."""

    out: str  # a folder or URL
    model: str = "embedded"
    device: str = "auto"
    dtype: str = "auto"
    attention: str = "auto"
    cache: str | None = None  # a folder of each machine; None: the usual one
    cache_gb: float | None = None  # how large it may grow; None: as ADAFLOW_CACHE_GB of the machine says, or CACHE_GB
    scorer: Scorer | None = None
    deliver: str = "working"  # the size of the videos, as `deliver_edit` takes it

    def absolute(self) -> Job:
        """The same with absolute paths: a Ray worker may have another working directory."""

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
        """Digest of all inputs of the edit; a row with another digest is made anew.

        What a path or URL names, a video or a model, is taken to be what it was: with many clips far away, looking
        at each would take minutes.
        """
        clip = self.clip
        return cache_key(
            video=clip.location, frames=clip.frames, size=clip.size, fps=clip.fps, source=clip.source_prompt,
            prompt=clip.prompts[prompt], plan=asdict(self.plan), edit=asdict(self.edit), model=job.model,
            deliver=job.deliver, dtype=job.dtype, made=MADE,
        )  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of a task."""

    made: int = 0  # edits
    scored: int = 0
    seconds: float = 0.0
    problems: dict[str, str] = field(default_factory=dict)  # key of the edit -> what was wrong
    notes: tuple[str, ...] = ()  # of its plan and its edits, sentences for the user


@dataclass(frozen=True)
class Summary:
    """What a run did. `rows` are all under `out`, those of earlier runs included."""

    made: int
    kept: int  # edits that were there before
    seconds: float
    problems: dict[str, str]
    rows: list[dict[str, Any]]
    digests: dict[str, str]  # key of each edit that was asked for -> its digest

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The rows of what was asked for, with these settings."""
        return [row for row in self.rows if self.digests.get(row["key"]) == row["digest"]]


@lru_cache(maxsize=1)
def _engine(model: str, device: str, dtype: str, attention: str, cache: str | None, limit: float | None) -> AdaFlow:
    """One engine a process: Ray reuses processes, and loading takes longer than some edits."""
    usual = Cache.default(limit, CACHE_GB)
    own = replace(usual, root=Path(cache)) if cache else usual
    return AdaFlow.from_pretrained(model, device=device, dtype=dtype, attention=attention, cache=own)


def perform(task: Task, job: Job, *, progress: Report | None = None, stop: Stop | None = None) -> Outcome:
    """Make what is missing of a task. Problems are returned, not raised: the batch goes on with its other clips."""
    storage, began = Storage(job.out), time.perf_counter()
    made, scored, problems, notes = 0, 0, dict[str, str](), list[str]()
    with tempfile.TemporaryDirectory(prefix="adaflow-batch-") as name:
        # A folder for each: a source may be called as an edit is.
        sources, edits, delivered = (Path(name) / part for part in ("sources", "edits", "delivered"))
        for folder in (sources, edits, delivered):
            folder.mkdir()
        unscored = list(task.clip.prompts)
        try:
            found = {prompt: _progress_of(task, prompt, job, storage.find_json) for prompt in unscored}
            missing = [prompt for prompt in found if not found[prompt][0]]
            unscored = [prompt for prompt in found if not found[prompt][1]]
            source = storage.fetch(task.clip.location, sources) if unscored else Path()
            editor = _ClipEditor(task, job, source, progress, stop) if missing else None
            notes += editor.plan.notes if editor is not None else ()
        except Stopped:
            raise
        except Exception as problem:  # a clip that cannot be read must not end the others
            return Outcome(problems={task.key(prompt): _describe(problem) for prompt in unscored})
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
            except Exception as problem:  # whatever it is, the other edits do not depend on it
                problems[task.key(prompt)] = _describe(problem)
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
        """Write the video, then its row: where there is a row, the video is complete. Returns its notes."""
        task, engine, plan, storage = self.task, self.engine, self.plan, Storage(self.job.out)
        clip, key, began = task.clip, task.key(prompt), time.perf_counter()
        result = engine.edit(plan, clip.prompts[prompt], task.edit, progress=self.progress, stop=self.stop)
        edited = time.perf_counter()
        judged = engine.score(plan, result, progress=self.progress, stop=self.stop)
        monitor = Monitor(self.progress, self.stop)
        kept = replace(result, state=None)  # what it goes on from stays until its row is there
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
            "plan_seconds": self.plan_seconds,  # once for all prompts of the task
            "edit_seconds": edited - began,
            "fingerprint": engine.backbone.fingerprint,
            "device": _device(engine.backbone.device),
            "versions": versions(),
        }
        storage.write_json(f"rows/{key}.json", row)
        result.forget_state()
        return tuple(dict.fromkeys((*result.warnings, *delivered.notes, *judged.warnings)))


def _progress_of(task: Task, prompt: str, job: Job, find: Callable[[str], dict[str, Any] | None]) -> tuple[bool, bool]:
    """Whether an edit was made with these settings, and scored by this scorer.

    `find` gives the object in a JSON file under `job.out`, or None.
    """
    key = task.key(prompt)
    row = find(f"rows/{key}.json")
    if row is None or not _is_whole(row) or row["digest"] != task.digest(prompt, job):
        return False, False
    if job.scorer is None:
        return True, True
    score = find(f"scores/{key}.json")
    return True, score is not None and _is_of(score, row) and score.get("with") == job.scorer.identity()


def _is_whole(row: dict[str, Any]) -> bool:
    """Whether it is a row that an edit wrote."""
    return "digest" in row and isinstance(row.get("scores"), dict)


def _is_of(score: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether a score is of the edit that the row is of, and not of one before it with other settings."""
    return bool(score.get("edit") == row["digest"])


def _describe(problem: Exception) -> str:
    if isinstance(problem, AdaFlowError):
        return str(problem)
    return "".join(traceback.format_exception(problem)).strip()


def _device(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Of this program, of Python and of what the results depend on."""
    found = {"adaflow": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def tasks_of(clips: Sequence[Clip], methods: dict[str, tuple[PlanConfig, EditConfig]], width: int) -> Iterator[Task]:
    """Every clip by every method, `width` clips at a time: their first method, their second, and so on.

    So no two workers invert the same clip at once, and the second method finds the inversion in the cache of a
    machine before it has to make room for others.
    """
    for start in range(0, len(clips), width):
        for method, (plan, edit) in methods.items():
            for clip in clips[start : start + width]:
                yield Task(clip, method, replace(plan, source_prompt=clip.source_prompt), edit)


def run(
    job: Job,
    clips: Sequence[Clip],
    methods: dict[str, tuple[PlanConfig, EditConfig]],
    *,
    ray: str | None = None,
    workers: int | None = None,
    gpus: float | None = None,
    retries: int = 2,
    progress: Report | None = None,
    say: Callable[[str], None] = print,
    stop: Stop = lambda: False,
) -> Summary:
    """Edit what is missing, then gather the tables.

    `ray`: None runs in this process, "local" on a Ray of this machine, else the address of a cluster. `workers`: tasks
    at a time; `gpus`: of each; `retries`: further tries of a task whose worker died. `progress` gets the number of
    finished edits with Ray, and the stages of each edit without.
    """
    began, job = time.perf_counter(), job.absolute()
    storage = Storage(job.out)
    files = _made_before(storage, say)
    tasks = list(tasks_of(clips, methods, 1))
    done = {t.name: [all(_progress_of(t, prompt, job, files.get)) for prompt in t.clip.prompts] for t in tasks}
    total, kept = sum(map(len, done.values())), sum(map(sum, done.values()))
    unfinished = {name for name, prompts in done.items() if not all(prompts)}
    say(f"{counted(total, 'edit')} in {counted(len(tasks), 'task')}; {kept} there already")
    here, work = ray is None or not unfinished, partial(perform, job=job)
    pool: Pool = InTurn() if here else RayPool(str(ray), workers=workers, gpus=gpus, retries=retries)
    if here:
        work = partial(work, progress=progress, stop=stop)
    made, ended, through = 0, 0, kept
    problems: dict[str, str] = {}
    try:
        with pool as running:
            waiting = (task for task in tasks_of(clips, methods, running.width) if task.name in unfinished)
            for event in running.map(work, waiting, stop):
                if event is None:
                    if progress is not None:
                        progress(Progress("edits", through, total, time.perf_counter() - began, skipped=kept))
                    continue
                task, outcome = event
                ended, through = ended + 1, through + done[task.name].count(False)
                if isinstance(outcome, Exception):
                    outcome = _broken_off(task, job, outcome)
                made += outcome.made
                problems |= outcome.problems
                say(_line(task, outcome, ended, len(unfinished)))
    finally:
        storage.write_json("problems.json", problems)
        rows = gather(storage)
    digests = {task.key(prompt): task.digest(prompt, job) for task in tasks for prompt in task.clip.prompts}
    return Summary(made, kept, time.perf_counter() - began, problems, rows, digests)


def _made_before(storage: Storage, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """The rows and scores that are there, by their files. What is damaged is said, and counts as missing."""
    damaged = list[str]()
    rows, scores = (storage.read_all(folder, ".json", damaged.append) for folder in ("rows", "scores"))
    for name in (*damaged, *(name for name, row in rows.items() if not _is_whole(row))):
        say(f"{name} is damaged, and counts as missing")
    return rows | scores


def _broken_off(task: Task, job: Job, problem: Exception) -> Outcome:
    """Of a task whose worker died: what it had finished before has not failed."""
    find = Storage(job.out).find_json
    left = [prompt for prompt in task.clip.prompts if not all(_progress_of(task, prompt, job, find))]
    return Outcome(problems={task.key(prompt): _describe(problem) for prompt in left})


def _line(task: Task, outcome: Outcome, ended: int, total: int) -> str:
    text = (
        f"{ended}/{total} {task.clip.id} by {task.method}: {counted(outcome.made, 'edit')} in {outcome.seconds:.0f} s"
    )
    text += "".join(f"\n  note: {note}" for note in outcome.notes)
    for key, problem in outcome.problems.items():
        text += f"\n  {key} failed: {problem.splitlines()[-1]}"
    return text


def gather(storage: Storage) -> list[dict[str, Any]]:
    """All rows with their scores, into table.jsonl and, where pyarrow is installed, table.parquet."""
    scores = storage.read_all("scores", ".json")
    rows = []
    for name, row in storage.read_all("rows", ".json").items():
        if not _is_whole(row):
            continue
        found = scores.get(name.replace("rows/", "scores/", 1), {})
        found = dict(found) if _is_of(found, row) else {}
        row["scored_with"] = found.pop("with", None)
        row["scores"] |= {name: value for name, value in found.items() if name != "edit"}
        rows.append(row)
    if rows:
        storage.write("table.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
        table = _parquet(rows)
        if table is not None:
            storage.write("table.parquet", table)
    return rows


def _parquet(rows: list[dict[str, Any]]) -> bytes | None:
    """One column for each plain value, `scores.NAME` for each score; what has parts of its own as JSON text."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return None
    flat = []
    for row in rows:
        values = {name: value for name, value in row.items() if name != "scores"}
        values |= {f"scores.{name}": value for name, value in row["scores"].items()}
        flat.append({n: json.dumps(v) if isinstance(v, (dict, list)) else v for n, v in values.items()})
    names = list(dict.fromkeys(name for row in flat for name in row))
    columns = {name: [row.get(name) for row in flat] for name in names}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()
