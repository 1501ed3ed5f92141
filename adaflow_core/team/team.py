"""How the processes of a team divide work, exchange results and wait for each other; all run the same program.

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
# A process that ends takes the others with it (`Processes`), so a long wait is never for one that is gone; the leader
# may decode an hour's video meanwhile.
_LONGEST_WAIT = timedelta(days=2)
_leading = threading.local()  # `.depth`: how many nested `lead` calls this thread is in


@dataclass(frozen=True)
class Team:
    """This process's rank in a team of `size` processes; in a team of one, nothing here waits or copies."""

    rank: int = 0
    size: int = 1
    folder: Path | None = None  # shared by all processes, for files
    group: Any = None  # the process group for exchanges; None: the default one, which has the GPUs
    aside: Any = None  # a second process group, for CPU tensors only

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @property
    def beside(self) -> Team:
        """The same team with a group of its own for a second thread: the exchanges of two threads must not mix."""
        return replace(self, group=self.aside)

    def own(self, count: int, rows: int = 1) -> slice:
        """Return this process's part of range(count), in whole passes of `rows` except for the last pass.

        Parts follow the order of ranks; the first ones may be longer by one pass.
        """
        each, more = divmod(-(-count // rows), self.size)
        start = self.rank * each + min(self.rank, more)
        return slice(min(count, rows * start), min(count, rows * (start + each + (self.rank < more))))

    def most(self, count: int, rows: int = 1) -> int:
        """Return the length of the largest part of range(count), which is the leader's."""
        part = replace(self, rank=0).own(count, rows)
        return part.stop - part.start

    def wait(self) -> None:
        """Wait for all processes to get here; afterwards each sees what the others wrote to files before."""
        if self.size > 1:
            self._check_all_are_here()
            dist.all_reduce(torch.zeros(1), group=self.group)

    def agree(self, value: T) -> T:
        """Return the leader's `value` in every process; the others' is ignored. It is pickled, so keep it small."""
        if self.size == 1:
            return value
        self._check_all_are_here()
        values: list[Any] = [value if self.leads else None]
        dist.broadcast_object_list(values, src=0, group=self.group, device=torch.device("cpu"))
        found: T = values[0]
        return found

    def lead(self, work: Callable[[], T]) -> T:
        """Run `work` in the leader alone; every process returns its result, or raises its exception."""
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
        """Raise RuntimeError within `lead`, where the others take no part and an exchange would never end."""
        if _depth():
            raise RuntimeError("what the leader does alone asks for the other processes: let all of them do it")

    def gather(self, own: Tensor, count: int, rows: int = 1) -> Tensor:
        """Concatenate every process's [own(count, rows), ...] to [count, ...], on the device of `own`."""
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
        """Give every process the others' parts of `x[places]`, in place; each has computed `own(F, rows)` of them.

        `places`: [F] int64, on the device of `x`.
        """
        if self.size > 1:
            x[places] = self.gather(x[places[self.own(len(places), rows)]], len(places), rows)

    def array(self, path: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
        """Make a .npy file of uninitialised values, as `allocated` does, and map it for writing in every process."""
        if self.size == 1:
            return allocated(path, dtype, shape)
        self.lead(lambda: allocated(path, dtype, shape).shape)
        found: np.memmap[Any, Any] = np.load(path, mmap_mode="r+")
        return found

    def scratch(self, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        """Return an uninitialised array that every process can write to.

        Its file is removed with the leader's array, or by `Processes` after the call. Raises AdaFlowError if the disk
        is full.
        """
        if self.folder is None:
            return scratch(dtype, shape)
        file = self.folder / f"{self.agree(uuid.uuid4().hex)}.npy"
        try:
            out = self.array(file, dtype, shape)
        except OSError as problem:
            raise no_room(problem, math.prod(shape) * np.dtype(dtype).itemsize) from problem
        self.wait()  # all have mapped the file now, so its name is needed no more
        if self.leads:
            weakref.finalize(out, remove, file)
        return out


ALONE = Team()


def remove(file: Path) -> None:
    """Remove a file whose memory maps may be in use: they stay readable. On Windows such a file stays."""
    with suppress(OSError):
        file.unlink()


def _depth() -> int:
    return getattr(_leading, "depth", 0)


def join(rank: int, size: int, folder: Path) -> Team:
    """Wait for the other processes and return this one's `Team`; `folder` must be empty, and the same for all."""
    group = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    meeting = (folder / "meeting").resolve().as_uri()
    dist.init_process_group(group, init_method=meeting, rank=rank, world_size=size, timeout=_LONGEST_WAIT)
    return Team(rank, size, folder, aside=dist.new_group(backend="gloo", timeout=_LONGEST_WAIT))
