"""Runs a batch: edits every clip of a manifest by every method, one file per result, so that nothing is done twice.

A task is a clip and a method. Under `out`:

    rows/CLIP/PROMPT/METHOD.json      what was done: settings, seconds, versions; written after the video
    videos/CLIP/PROMPT/METHOD.mp4     the edit
    scores/CLIP/PROMPT/METHOD.json    the scorer's scores of the edit
    table.jsonl, table.parquet        all rows with their scores, gathered at the end
    problems.json                     what went wrong in the last run

A run that is cut off, even by a crash, leaves only whole files; the next run makes those that are missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from adaflow_core.batch.files import Storage
from adaflow_core.batch.manifest import Clip
from adaflow_core.batch.pool import InTurn, Pool, RayPool
from adaflow_core.batch.table import gather, is_whole_row
from adaflow_core.batch.task import Job, Outcome, Task, describe, made_and_scored, perform
from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.errors import counted
from adaflow_core.progress import Progress, Report, Stop


@dataclass(frozen=True)
class Summary:
    """What a run did; `rows` are all rows under `out`, including those of earlier runs."""

    made: int
    kept: int  # edits that were there before
    seconds: float
    problems: dict[str, str]
    rows: list[dict[str, Any]]
    digests: dict[str, str]  # key of each edit that was asked for -> its digest

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The rows of the edits that this run was asked for, if they were made with its settings."""
        return [row for row in self.rows if self.digests.get(row["key"]) == row["digest"]]


def tasks_of(clips: Sequence[Clip], methods: dict[str, tuple[PlanConfig, EditConfig]], width: int) -> Iterator[Task]:
    """Yield every clip by every method, `width` clips at a time: their first method, their second, and so on.

    So no two workers invert the same clip at once, and the second method finds the inversion in the machine's cache
    before it is removed for other clips.
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
    """Make the edits that are missing, then gather the tables.

    `ray`: None runs in this process, "local" on a Ray cluster started on this machine, anything else is the address of
    a cluster. `workers`: tasks at a time; `gpus`: per task; `retries`: further tries of a task whose worker died. With
    Ray `progress` gets the number of finished edits, without it the stages of each edit.
    """
    began, job = time.perf_counter(), job.absolute()
    storage = Storage(job.out)
    files = _made_before(storage, say)
    storage.write_json("problems.json", {})  # where nothing can be written, it is said before the work and not after it
    tasks = list(tasks_of(clips, methods, 1))
    done = {t.name: [all(made_and_scored(t, prompt, job, files.get)) for prompt in t.clip.prompts] for t in tasks}
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
    """Return the existing rows and scores by file name; damaged ones are reported and left out, or count as missing."""
    damaged = list[str]()
    rows, scores = (storage.read_all(folder, ".json", damaged.append) for folder in ("rows", "scores"))
    for name in (*damaged, *(name for name, row in rows.items() if not is_whole_row(row))):
        say(f"{name} is damaged, and counts as missing")
    return rows | scores


def _broken_off(task: Task, job: Job, problem: Exception) -> Outcome:
    """Return the outcome of a task whose worker died: only the edits that it had not finished have failed."""
    find = Storage(job.out).find_json
    left = [prompt for prompt in task.clip.prompts if not all(made_and_scored(task, prompt, job, find))]
    return Outcome(problems={task.key(prompt): describe(problem) for prompt in left})


def _line(task: Task, outcome: Outcome, ended: int, total: int) -> str:
    text = (
        f"{ended}/{total} {task.clip.id} by {task.method}: {counted(outcome.made, 'edit')} in {outcome.seconds:.0f} s"
    )
    text += "".join(f"\n  note: {note}" for note in outcome.notes)
    for key, problem in outcome.problems.items():
        text += f"\n  {key} failed: {problem.splitlines()[-1]}"
    return text
