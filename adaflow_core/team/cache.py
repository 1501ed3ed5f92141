"""The cache of a team: the leader looks up and files entries, and all processes may build one together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from adaflow_core.storage.cache import Build, Cache, Note
from adaflow_core.team.team import ALONE, Team

Found = tuple[Path, dict[str, Any], bool]  # what `Cache.get` returns


@dataclass(frozen=True)
class SharedCache(Cache):
    """As `Cache`, for the processes of a team: each asks for the same entries in the same order."""

    team: Team = ALONE

    def get(
        self, kind: str, key: str, build: Build, note: Note | None = None, *, resumable: bool = False,
        together: bool = False,
    ) -> Found:  # fmt: skip
        """Look up or build an entry; with `together` every process runs `build`, else the leader alone.

        What the processes exchange for an entry that they build together:

            | leader                       | others                  |                              |
            |------------------------------|-------------------------|------------------------------|
            | sends the folder of a build  | receive it              | only if the entry is missing |
            | builds in it                 | build in it             | only if the entry is missing |
            | waits                        | wait                    | only if the entry is missing |
            | sends what `get` returns     | receive it              |                              |
        """
        look_up = partial(Cache.get, self, kind, key, note=note, resumable=resumable)
        if not together:
            return self.team.lead(lambda: look_up(build))
        return self._lead_build(look_up, build) if self.team.leads else self._follow_build(build)

    def _lead_build(self, look_up: Callable[[Build], Found], build: Build) -> Found:
        def build_with_others(folder: Path) -> dict[str, Any]:
            self.team.agree(folder)
            meta = build(folder)
            self.team.wait()
            return meta

        return self.team.agree(look_up(build_with_others))

    def _follow_build(self, build: Build) -> Found:
        received = self._receive()
        if isinstance(received, Path):
            build(received)
            self.team.wait()
            received = self._receive()
        assert not isinstance(received, Path)
        return received

    def _receive(self) -> Path | Found:
        """Return what the leader sends: the folder to build in, or the entry."""
        return self.team.agree(cast("Path | Found", None))

    @contextmanager
    def part(self, kind: str, key: str) -> Iterator[Path]:
        if not self.team.leads:
            yield self.team.agree(Path())
            self.team.wait()
            return
        with super().part(kind, key) as folder:
            yield self.team.agree(folder)
            self.team.wait()

    def find(self, kind: str, key: str) -> dict[str, Any] | None:
        return self.team.lead(lambda: Cache.find(self, kind, key))

    def renew(self, kind: str, key: str, meta: dict[str, Any]) -> None:
        if self.team.leads:
            super().renew(kind, key, meta)

    def forget(self, kind: str, key: str) -> None:
        if self.team.leads:
            super().forget(kind, key)

    @property
    def beside(self) -> SharedCache:
        return replace(self, team=self.team.beside)

    def own(self, count: int) -> slice:
        return self.team.own(count)

    def array(self, path: Path, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        return self.team.array(path, dtype, shape)
