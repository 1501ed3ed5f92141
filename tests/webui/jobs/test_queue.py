"""The job queue: order, stopping, failures, limits."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from adaflow_core.errors import AdaFlowError
from adaflow_core.progress import Progress, Report, Stop
from helpers.jobs import finish, until, wait_for, work_until_stopped
from webui.jobs.queue import Jobs


def test_jobs_run_one_at_a_time_in_order_urgent_ones_first() -> None:
    jobs, order, running, most = Jobs(), [], 0, 0
    lock, release = threading.Lock(), threading.Event()

    def work(name: str) -> Any:
        def run(report: Report, stop: Stop) -> str:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.01)
            with lock:
                running -= 1
                order.append(name)
            return name

        return run

    first = jobs.submit("edit", wait_for(release))
    until(lambda: jobs.snapshot(first).state == "running")
    ids = [jobs.submit("edit", work("a")), jobs.submit("edit", work("b"))]
    ids.append(jobs.submit("plan", work("urgent"), urgent=True))
    assert [jobs.snapshot(i).ahead for i in ids] == [2, 3, 1]
    release.set()
    assert [finish(jobs, i).result for i in ids] == ["a", "b", "urgent"]
    assert order == ["urgent", "a", "b"] and most == 1


def test_what_waits_for_a_model_is_told() -> None:
    jobs, release = Jobs(), threading.Event()
    first, second = jobs.submit("load", wait_for(release)), jobs.submit("plan", lambda report, stop: None)
    until(lambda: jobs.snapshot(first).state == "running")
    waiting = jobs.snapshot(second)
    assert waiting is not None and waiting.loads and waiting.ahead == 1
    release.set()
    done = finish(jobs, second)
    assert done is not None and not done.loads


def test_a_running_job_stops_at_its_next_look() -> None:
    jobs = Jobs()
    job = jobs.submit("edit", wait_for(threading.Event()))
    until(lambda: jobs.snapshot(job).state == "running")
    assert jobs.stop(job)
    snapshot = finish(jobs, job)
    assert snapshot is not None and snapshot.state == "stopped" and snapshot.result is None
    assert not jobs.stop(job), "it is over"


def test_a_waiting_job_stops_without_having_run() -> None:
    jobs, release, ran = Jobs(), threading.Event(), []
    first = jobs.submit("edit", wait_for(release))
    second = jobs.submit("edit", lambda report, stop: ran.append(1))
    assert jobs.stop(second)
    assert jobs.snapshot(second).state == "stopped"
    release.set()
    finish(jobs, first)
    assert ran == []


def test_progress_and_the_last_preview_are_kept() -> None:
    jobs, release = Jobs(), threading.Event()

    def work(report: Report, stop: Stop) -> None:
        report(Progress("invert", 1, 2, 3.0, np.zeros((1, 2, 2, 3), np.uint8)))
        report(Progress("invert", 1, 4, 3.0))
        release.wait(60)

    job = jobs.submit("edit", work, forecast=[{"invert": 8.0, "edit": 20.0}])
    until(lambda: (s := jobs.snapshot(job)) and s.progress and s.progress.total == 4)
    snapshot = jobs.snapshot(job)
    release.set()
    assert snapshot is not None and snapshot.preview is not None
    assert snapshot.remaining == 3.0 * 3 + 20.0, "this stage at its pace, the next as forecast"
    assert 0 < snapshot.share < 1


def test_where_nothing_is_forecast_no_time_left_is_claimed() -> None:
    jobs, release = Jobs(), threading.Event()

    def work(report: Report, stop: Stop) -> None:
        report(Progress("match", 2, 4, 3.0))  # what comes after is not forecast
        release.wait(60)

    job = jobs.submit("plan", work)
    until(lambda: (s := jobs.snapshot(job)) and s.progress)
    snapshot = jobs.snapshot(job)
    release.set()
    assert snapshot is not None and snapshot.remaining is None


def test_a_failure_says_what_the_user_can_mend_and_nothing_of_the_inside() -> None:
    jobs = Jobs()

    def mendable(report: Report, stop: Stop) -> None:
        raise AdaFlowError("choose another file")

    def internal(report: Report, stop: Stop) -> None:
        raise RuntimeError("secret of the inside")

    first, second = jobs.submit("plan", mendable), jobs.submit("plan", internal)
    mendable_job, internal_job = finish(jobs, first, 5), finish(jobs, second)
    assert mendable_job.state == "failed" and mendable_job.problem == "choose another file"
    assert internal_job.state == "failed" and "secret" not in internal_job.problem
    assert finish(jobs, jobs.submit("plan", lambda report, stop: 1)).result == 1


def test_old_results_are_discarded() -> None:
    gone: list[int] = []
    jobs = Jobs(keep=2, discard=gone.append)
    ids = [jobs.submit("edit", lambda report, stop, n=n: n + 1) for n in range(4)]
    finish(jobs, ids[-1])
    until(lambda: gone == [1, 2])
    assert jobs.snapshot(ids[0]) is None and jobs.snapshot(ids[3]).result == 4


def test_a_finished_edit_outlives_other_jobs() -> None:
    gone: list[str] = []
    jobs, release = Jobs(keep=2, keep_of={"edit": 3}, discard=gone.append), threading.Event()
    first = jobs.submit("edit", wait_for(release))
    until(lambda: jobs.snapshot(first).state == "running")
    mine = jobs.submit("edit", lambda report, stop: "mine")  # waits while others preview
    plans = [jobs.submit("plan", lambda report, stop, n=n: f"plan {n}", urgent=True) for n in range(4)]
    for _ in range(5):
        jobs.stop(jobs.submit("edit", wait_for(release)))
    release.set()
    finish(jobs, plans[-1])
    assert finish(jobs, mine).result == "mine"
    finish(jobs, jobs.submit("load", lambda report, stop: None))
    assert gone == ["plan 0", "plan 1"]
    assert [jobs.snapshot(job).result for job in (first, mine)] == ["released", "mine"]


def test_jobs_are_forgotten_in_the_order_of_their_ends() -> None:
    gone: list[str] = []
    jobs, release = Jobs(keep=1, discard=gone.append), threading.Event()
    running = jobs.submit("load", wait_for(release))
    until(lambda: jobs.snapshot(running).state == "running")
    late = jobs.submit("edit", lambda report, stop: "ended last")
    early = jobs.submit("edit", lambda report, stop: "ended first", urgent=True)
    release.set()
    assert finish(jobs, late).result == "ended last"
    until(lambda: gone == ["ended first"])
    assert jobs.snapshot(early) is None


def test_results_that_take_too_much_are_forgotten_the_oldest_first() -> None:
    gone: list[int] = []
    jobs = Jobs(keep_bytes=10, bytes_of=lambda result: result if isinstance(result, int) else 0, discard=gone.append)
    release = threading.Event()

    def made(size: int) -> str:
        job = jobs.submit("edit", lambda report, stop: size)
        finish(jobs, job)
        return job

    first, second = made(4), made(5)
    plan = made(0)
    assert gone == [] and jobs.held_bytes() == 9
    third = made(3)
    until(lambda: gone == [4])
    assert jobs.held_bytes() == 8 and jobs.snapshot(first) is None and jobs.snapshot(second) is not None
    running = jobs.submit("edit", wait_for(release))
    until(lambda: jobs.snapshot(running).state == "running")
    waiting = jobs.submit("edit", lambda report, stop: 11)
    release.set()
    assert finish(jobs, waiting).result == 11, "the last one stays whatever it takes"
    until(lambda: gone == [4, 5, 3])
    assert jobs.snapshot(third) is None and jobs.snapshot(plan) is not None and jobs.held_bytes() == 11


def test_ids_cannot_be_guessed() -> None:
    jobs = Jobs(waiting=50)
    ids = {jobs.submit("edit", lambda report, stop: None) for _ in range(50)}
    assert len(ids) == 50 and min(map(len, ids)) >= 20


def test_a_full_queue_says_so() -> None:
    jobs = Jobs(waiting=2)
    ids = [jobs.submit("edit", work_until_stopped)]
    while jobs.snapshot(ids[0]).state != "running":
        time.sleep(0.005)
    ids += [jobs.submit("edit", work_until_stopped) for _ in range(2)]
    with pytest.raises(AdaFlowError, match="queue is full, 2 jobs wait already; try again"):
        jobs.submit("plan", work_until_stopped, urgent=True)
    jobs.stop(ids[1])
    ids.append(jobs.submit("edit", work_until_stopped))  # there is a place again
    for job in ids:
        jobs.stop(job)


def test_one_visitor_cannot_fill_the_queue_and_still_previews() -> None:
    jobs, mine = Jobs(waiting=24), {"session mine": 2.0, "address of all": 4.0}
    edits = [jobs.submit("edit", work_until_stopped, visitor=mine) for _ in range(2)]
    with pytest.raises(AdaFlowError, match="2 of your jobs wait or run already; wait until one has ended, or stop one"):
        jobs.submit("edit", work_until_stopped, visitor=mine)
    edits.append(jobs.submit("plan", work_until_stopped, urgent=True, visitor=mine))
    edits.append(jobs.submit("edit", work_until_stopped, visitor={"session another": 2.0, "address of all": 4.0}))
    jobs.stop(edits[1])
    edits.append(jobs.submit("edit", work_until_stopped, visitor=mine))  # there is a place again
    other_tab = {"session third": 2.0, "address of all": 3.0}
    with pytest.raises(AdaFlowError, match="3 of your jobs"):  # a new session for each is no way around it
        jobs.submit("edit", work_until_stopped, visitor=other_tab)
    edits.append(jobs.submit("edit", work_until_stopped))  # the server's own
    for job in edits:
        jobs.stop(job)


def test_a_job_that_takes_too_long_ends_with_a_sentence() -> None:
    jobs = Jobs(seconds=0.1)
    over = finish(jobs, jobs.submit("edit", work_until_stopped))
    assert over.state == "failed" and "longer than a job here may" in over.problem
    assert finish(jobs, jobs.submit("edit", lambda report, stop: 1)).state == "done"
