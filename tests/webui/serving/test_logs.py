"""The server's log."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from adaflow_core.errors import AdaFlowError
from adaflow_core.progress import Report, Stop
from helpers.jobs import finish
from webui.jobs.queue import Jobs
from webui.serving import logs


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logs.set_up(stream)
    yield stream
    logging.getLogger().removeHandler(handler)


def test_the_log_is_json_with_jobs_that_can_be_told_apart_but_not_taken(log: io.StringIO) -> None:
    def fails(report: Report, stop: Stop) -> None:
        logging.getLogger("adaflow_core.engine").info("at %s", "work")
        raise RuntimeError("of the inside,\nin two lines")

    jobs = Jobs()
    job = jobs.submit("edit", fails)
    finish(jobs, job)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["message"] for line in lines] == ["job waits", "at work", "job failed", "job is over"]
    assert {line["job"] for line in lines} == {job[:8]} and job not in log.getvalue()
    assert "in two lines" in lines[2]["exception"] and lines[2]["level"] == "error"
    assert lines[3]["state"] == "failed" and lines[3]["seconds"] >= 0 and lines[0]["kind"] == "edit"
    assert all(line["time"].endswith("+00:00") for line in lines)
    logging.getLogger("httpx").info("not ours")
    logging.getLogger("webui.upkeep").info("no job")
    last = json.loads(log.getvalue().splitlines()[-1])
    assert last["message"] == "no job" and "job" not in last


def test_what_a_visitor_is_told_names_no_folders_but_the_log_does(log: io.StringIO) -> None:
    def fails(report: Report, stop: Stop) -> None:
        raise AdaFlowError("the cache folder /srv/data/cache cannot be written")

    jobs = Jobs()
    problem = finish(jobs, jobs.submit("plan", fails)).problem
    assert problem == "the cache folder cache cannot be written" and "/srv/data/cache" in log.getvalue()
