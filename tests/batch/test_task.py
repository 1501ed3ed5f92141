"""A task of a batch: which edits are the same, and how large its cache grows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adaflow_core.batch import run, task
from adaflow_core.batch.run import tasks_of
from adaflow_core.batch.task import Job
from adaflow_core.cli.arguments import parser
from adaflow_core.cli.bar import Bar
from adaflow_core.cli.batches import run_batch
from adaflow_core.engine import AdaFlow
from helpers.batches import METHODS, clip


def test_another_video_precision_or_way_of_editing_is_another_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    job, one = Job(out="out"), next(tasks_of([clip("one", video="a.mp4", folder="/here")], METHODS, 1))
    digest = one.digest("style", job)
    assert digest != replace(one, clip=replace(one.clip, folder="/there")).digest("style", job)
    assert digest != replace(one, clip=replace(one.clip, fps=12)).digest("style", job)
    assert digest != one.digest("style", replace(job, dtype="float32"))
    monkeypatch.setattr(task, "MADE", task.MADE + 1)  # as after an upgrade
    assert digest != one.digest("style", job)


def test_the_cache_grows_as_the_machine_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Job] = []
    monkeypatch.setattr(AdaFlow, "from_pretrained", lambda *_, **given: given["cache"])
    monkeypatch.setattr(run, "run", lambda job, *_, **__: jobs.append(job))
    for more in ([], ["--cache-gb=3"]):
        arguments = parser().parse_args(["batch", "none.jsonl", f"--cache={tmp_path}", *more])
        run_batch(arguments, [], {}, None, Bar(), lambda: False)

    def limits() -> list[float]:
        given = [(job.model, job.device, job.dtype, job.attention, job.cache, job.cache_gb) for job in jobs]
        caches = [task._engine.__wrapped__(*each) for each in given]
        assert {cache.root for cache in caches} == {tmp_path}
        return [cache.limit_bytes / 2**30 for cache in caches]

    monkeypatch.delenv("ADAFLOW_CACHE_GB", raising=False)
    assert limits() == [100, 3]
    monkeypatch.setenv("ADAFLOW_CACHE_GB", "10")
    assert limits() == [10, 3]
