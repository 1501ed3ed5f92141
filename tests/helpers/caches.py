"""What tests of the cache build in it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaflow_core.errors import Stopped
from adaflow_core.storage.arrays import begin_columns, end_columns, open_columns

needs_locks = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks; there a day has to pass")


def build(size: int) -> Any:
    def fill(folder: Path) -> dict[str, Any]:
        (folder / "data").write_bytes(bytes(size))
        return {"size": size}

    return fill


def inverting(columns: list[int], problem: BaseException | None = None) -> Any:
    """A build of five columns, of which it makes `columns` and then fails."""

    def fill(folder: Path) -> dict[str, Any]:
        missing = begin_columns(folder / "data.npy", np.float32, (2, 5, 3), np.arange(5))
        array, done = open_columns(folder / "data.npy")
        for column in columns:
            array[:, column] = column
            done[column] = True
        if problem is not None:
            raise problem
        end_columns(folder / "data.npy")
        return {"missing": missing.tolist()}

    return fill


def stopped_half_way(folder: Path) -> dict[str, Any]:
    (folder / "half").write_bytes(bytes(4096))
    raise Stopped
