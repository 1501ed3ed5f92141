"""Work beside other work: it is waited for, its fault is told, and it ends when the other fails."""

from __future__ import annotations

import threading

import pytest

from adaflow_core.errors import Stopped
from adaflow_core.progress import Monitor, beside


def running() -> bool:
    return any(thread.name.startswith("beside") for thread in threading.enumerate())


def test_all_of_it_is_done_after_the_block() -> None:
    done: list[str] = []
    with beside(Monitor(), lambda _: done.append("first"), lambda _: done.append("second")):
        pass
    assert done == ["first", "second"] and not running()


def test_what_it_notes_is_told() -> None:
    monitor = Monitor()
    with beside(monitor, lambda own: own.note("made anew"), lambda own: own.note("and this")):
        monitor.note("made anew")
    assert monitor.notes == ["made anew", "and this"]


def test_its_fault_is_told() -> None:
    def fail(_: Monitor) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), beside(Monitor(), fail):
        pass


class Endless:
    """Work that ends only when it is stopped."""

    def __init__(self) -> None:
        self.began, self.stopped = threading.Event(), False

    def __call__(self, monitor: Monitor) -> None:
        self.began.set()
        try:
            while True:
                monitor.check()
        except Stopped:
            self.stopped = True
            raise


def test_what_fails_in_the_block_ends_it() -> None:
    work = Endless()
    with pytest.raises(ValueError, match="block"), beside(Monitor(), work):
        work.began.wait()
        raise ValueError("block")
    assert work.stopped and not running()


def test_waiting_for_it_can_be_stopped() -> None:
    work, stop = Endless(), threading.Event()
    with pytest.raises(Stopped), beside(Monitor(stop=stop.is_set), work):
        work.began.wait()
        stop.set()
    assert work.stopped and not running()
