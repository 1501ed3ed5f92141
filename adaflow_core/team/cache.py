"""The cache of a team: one process looks and files, all of them build."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from adaflow_core.storage.cache import Build, Cache, Note
from adaflow_core.team.team import ALONE, Team


@dataclass(frozen=True)
class SharedCache(Cache):
    """As `Cache`, for the processes of a team: each asks for the same entries in the same order."""

    team: Team = ALONE

    def get(
        self, kind: str, key: str, build: Build, note: Note | None = None, *, resumable: bool = False,
        together: bool = False,
    ) -> tuple[Path, dict[str, Any], bool]:  # fmt: skip
        def looked_up(made: Build) -> tuple[Path, dict[str, Any], bool]:
            return Cache.get(self, kind, key, made, note, resumable=resumable)

        if not together:
            return self.team.lead(lambda: looked_up(build))

        def shared(folder: Path) -> dict[str, Any]:
            self.team.agree(folder)
            meta = build(folder)
            self.team.wait()
            return meta

        found, nothing = None, cast("Path | None", None)
        if self.team.leads:
            found = looked_up(shared)
            self.team.agree(nothing)  # is to be built, or no longer
        elif (folder := self.team.agree(nothing)) is not None:
            build(folder)
            self.team.wait()
            self.team.agree(nothing)
        return self.team.agree(found)  # type: ignore[return-value]

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
