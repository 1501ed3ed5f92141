"""Runs the tasks of a batch, one after another in this process or on Ray's workers."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.progress import Stop

Task = TypeVar("Task")
Result = TypeVar("Result")
PATIENCE = 1.0  # seconds between two looks at the stop signal
_GRACE = 5.0  # seconds that tasks have to end after a stop


class Pool(Protocol):
    """Yields (task, its result or the exception that ended it) as tasks end, and None while it waits."""

    width: int  # how many tasks run at a time

    def __enter__(self) -> Pool: ...

    def __exit__(self, *exc: object) -> None: ...

    def map(
        self, function: Callable[[Task], Result], tasks: Iterable[Task], stop: Stop
    ) -> Iterator[tuple[Task, Result | Exception] | None]: ...


class InTurn:
    """Runs one task after another in this process."""

    width = 1

    def __enter__(self) -> InTurn:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def map(self, function: Callable[[Any], Any], tasks: Iterable[Any], stop: Stop) -> Iterator[tuple[Any, Any] | None]:
        for task in tasks:
            if stop():
                raise Stopped
            yield task, function(task)


class RayPool:
    """Runs tasks on the workers of a Ray cluster, or of a local one that lives as long as the pool.

    A task whose worker dies is tried again, `retries` times. Workers stay alive between tasks, so that the model that a
    process has loaded serves its next task.
    """

    def __init__(self, address: str, *, workers: int | None, gpus: float | None, retries: int) -> None:
        """`address`: "local", "auto", or a cluster's. `gpus`: per task; None: one, if the cluster has any."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as problem:
            raise AdaFlowError("Ray is not installed; run: pip install -r requirements-batch.txt") from problem
        self._ray = ray
        local = address == "local"
        cores = os.cpu_count() or 1
        try:
            with _sigterm_kept():
                ray.init(
                    address="local" if local else address,
                    num_cpus=max(cores, workers or 1) if local else None,
                    include_dashboard=False if local else None,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
        except (ConnectionError, RuntimeError, ValueError) as problem:
            raise AdaFlowError(f"no Ray cluster answers at {address}; start one, or give --ray local") from problem
        resources = ray.cluster_resources()
        there = resources.get("GPU", 0.0)
        self._gpus = gpus if gpus is not None else float(there > 0)
        if local and self._gpus > there:  # a task would wait for ever; a cluster may grow
            ray.shutdown()
            raise AdaFlowError(
                f"--gpus-per-task is {gpus:g}, but this machine has {there:g} GPUs; give fewer, or leave it out"
            )
        # The small summand undoes rounding: a GPU has room for five tasks of 0.2.
        fits = int(there / self._gpus + 1e-9) if self._gpus else int(resources.get("CPU", 1))
        self.width = workers or max(1, fits)
        # Ray gives a task's process as many threads as the task has cores.
        self._cpus = max(1, int(resources.get("CPU", 1)) // self.width) if local else 1
        self._retries = retries

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *exc: object) -> None:
        self._ray.shutdown()

    def map(self, function: Callable[[Any], Any], tasks: Iterable[Any], stop: Stop) -> Iterator[tuple[Any, Any] | None]:
        ray = self._ray

        # Without max_calls=0 a worker with a GPU ends after each task, and every task loads the model.
        @ray.remote(num_cpus=self._cpus, num_gpus=self._gpus, max_retries=self._retries, max_calls=0)
        def work(task: Any) -> Any:  # Ray takes plain functions only, and `function` may be a partial
            return function(task)

        waiting = iter(tasks)
        running: dict[Any, Any] = {}
        try:
            while True:
                while len(running) < self.width and (task := next(waiting, None)) is not None:
                    running[work.remote(task)] = task
                if not running:
                    return
                ended, _ = ray.wait(list(running), timeout=PATIENCE)
                if stop():
                    raise Stopped
                for reference in ended:
                    task = running.pop(reference)
                    try:
                        yield task, ray.get(reference)
                    except ray.exceptions.RayError as problem:  # its worker died once too often
                        yield task, problem
                if not ended:
                    yield None
        finally:
            self._cancel(list(running))

    def _cancel(self, running: list[Any]) -> None:
        """End tasks by an exception, so that they remove their temporary files; after `_GRACE` seconds by force."""
        if not running:
            return
        for reference in running:
            self._ray.cancel(reference)
        _, left = self._ray.wait(running, num_returns=len(running), timeout=_GRACE)
        for reference in left:
            self._ray.cancel(reference, force=True)


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Restore the handler of SIGTERM after the block: `ray.init` installs one that ends the process."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # Python allows it in no other
            signal.signal(signal.SIGTERM, before)
