"""What the processes of a team share out, exchange and wait for. Every one runs the same program on the same film.

Work on frames is parted by `own`; what each then holds of it goes to the others by `gather`, or lies in files that all
of them map. What is computed once is computed by the leader (`lead`). All processes are of one machine.
"""

from __future__ import annotations

import math
import threading
import uuid
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from adaflow_core.storage.arrays import allocated, no_room, scratch

T = TypeVar("T")
# No process waits in vain: one that ends takes the others with it (`Processes`). A leader may decode an hour's video.
_LONGEST_WAIT = timedelta(days=2)
_leading = threading.local()  # `.depth`: of how many `lead`s this thread is in the middle


@dataclass(frozen=True)
class Team:
    """This process's place among `size` that were started together; alone, nothing here waits or copies."""

    rank: int = 0
    size: int = 1
    folder: Path | None = None  # for files that all of them see
    group: Any = None  # through which they exchange; None: the one that all their GPUs are in
    aside: Any = None  # another one, of processors alone

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def beside(self) -> Team:
        """The same for a thread beside the others' work, whose exchanges must not get between theirs."""
        return replace(self, group=self.aside)

    def own(self, count: int, rows: int = 1) -> slice:
        """This process's part of range(count), in whole passes of `rows` but for the last one.

        Parts are in the order of ranks, the first ones longer by at most a pass.
        """
        each, more = divmod(-(-count // rows), self.size)
        start = self.rank * each + min(self.rank, more)
        return slice(min(count, rows * start), min(count, rows * (start + each + (self.rank < more))))

    def most(self, count: int, rows: int = 1) -> int:
        """How large the largest part of range(count) is, which is the leader's."""
        part = replace(self, rank=0).own(count, rows)
        return part.stop - part.start

    def wait(self) -> None:
        """Until all processes are here: what each has written to files is there for the others."""
        if self.size > 1:
            self._check_all_are_here()
            dist.all_reduce(torch.zeros(1), group=self.group)

    def agree(self, value: T) -> T:
        """The leader's value; what the others give is not looked at. For small things."""
        if self.size == 1:
            return value
        self._check_all_are_here()
        values: list[Any] = [value if self.leads else None]
        dist.broadcast_object_list(values, src=0, group=self.group, device=torch.device("cpu"))
        found: T = values[0]
        return found

    def lead(self, work: Callable[[], T]) -> T:
        """`work` done by the leader, its result or its exception given to all."""
        if self.size == 1:
            return work()
        result: Any = None
        problem: Exception | None = None
        if self.leads:
            _leading.depth = _depth() + 1
            try:
                result = work()
            except Exception as raised:
                problem = raised
            finally:
                _leading.depth -= 1
        result, problem = self.agree((result, problem))
        if problem is not None:
            raise problem
        found: T = result
        return found

    @staticmethod
    def _check_all_are_here() -> None:
        """RuntimeError within `lead`, where the others would be waited for in vain."""
        if _depth():
            raise RuntimeError("what the leader does alone asks for the other processes: let all of them do it")

    def gather(self, own: Tensor, count: int, rows: int = 1) -> Tensor:
        """[own(count, rows), ...] of every process -> [count, ...], on the same device."""
        if self.size == 1:
            return own
        self._check_all_are_here()
        parts = [Team(rank, self.size).own(count, rows) for rank in range(self.size)]
        most = self.most(count, rows)
        sent = torch.cat([own, own.new_zeros(most - len(own), *own.shape[1:])])
        everyones = own.new_empty(self.size * most, *own.shape[1:])
        # As bytes: not every backend knows every type.
        dist.all_gather_into_tensor(everyones.view(torch.uint8), sent.view(torch.uint8), group=self.group)
        if count == len(everyones):
            return everyones
        return torch.cat([everyones[rank * most :][: part.stop - part.start] for rank, part in enumerate(parts)])

    def exchange(self, x: Tensor, places: Tensor, rows: int = 1) -> None:
        """What each process has made of its own part of `x[places]` goes to all, into theirs; `places` [F] int64, as
        x on its device."""
        if self.size > 1:
            x[places] = self.gather(x[places[self.own(len(places), rows)]], len(places), rows)

    def array(self, path: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
        """A new .npy file, as `allocated` makes it, that every process can write to."""
        if self.size == 1:
            return allocated(path, dtype, shape)
        self.lead(lambda: allocated(path, dtype, shape).shape)
        found: np.memmap[Any, Any] = np.load(path, mmap_mode="r+")
        return found

    def scratch(self, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        """An uninitialised array that every process can write to, in a file that goes with the leader's array.

        `Processes` removes the file of one that outlives the call. Raises AdaFlowError where the disk is full.
        """
        if self.folder is None:
            return scratch(dtype, shape)
        file = self.folder / f"{self.agree(uuid.uuid4().hex)}.npy"
        try:
            out = self.array(file, dtype, shape)
        except OSError as problem:
            raise no_room(problem, math.prod(shape) * np.dtype(dtype).itemsize) from problem
        self.wait()  # from here on all have it, and need no file
        if self.leads:
            weakref.finalize(out, remove, file)
        return out


ALONE = Team()


def remove(file: Path) -> None:
    """Memory maps of the file stay readable; Windows, which would not have that, leaves it."""
    with suppress(OSError):
        file.unlink()


def _depth() -> int:
    return getattr(_leading, "depth", 0)


def join(rank: int, size: int, folder: Path) -> Team:
    """Meets the other processes of a team in `folder`, which must be empty and the same for all; waits for them."""
    group = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    meeting = (folder / "meeting").resolve().as_uri()
    dist.init_process_group(group, init_method=meeting, rank=rank, world_size=size, timeout=_LONGEST_WAIT)
    return Team(rank, size, folder, aside=dist.new_group(backend="gloo", timeout=_LONGEST_WAIT))
