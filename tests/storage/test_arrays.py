"""Large arrays in files: what takes no memory, and what a full disk does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from adaflow_core.planning.correspondence import correspond
from adaflow_core.planning.keyframes import even_segments
from adaflow_core.progress import Monitor
from adaflow_core.storage import arrays as store
from adaflow_core.storage.arrays import allocated, begin_columns, put_rows, scratch
from adaflow_core.types import Grid
from helpers.made import drifting

ROOT = Path(__file__).resolve().parents[2]
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and /proc are Linux's")


def run(script: str, folder: Path) -> str:
    """What a process of its own prints, whose temporary files lie in `folder`."""
    environment = {"TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@on_linux
def test_a_large_scratch_array_takes_no_memory_and_no_name(tmp_path: Path) -> None:
    script = """
import re
from pathlib import Path
import numpy as np
from adaflow_core.storage.arrays import scratch
def own_kilobytes():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = own_kilobytes()
small = scratch(np.float32, (1000,))
large = scratch(np.float32, (2**28,))  # a gigabyte
large[:2**26] = 1
assert large[0] == 1 and large[-1] == 0 and not isinstance(small, np.memmap)
print(own_kilobytes() - before)
"""
    assert int(run(script, tmp_path)) < 2**14 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "rows", [slice(0, 0), slice(3, 7), slice(None), np.array([0, 4, 5, 9]), np.array([6, 5, 4, 1]), np.array([], int)]
)
@pytest.mark.parametrize("kind", ["in memory", "in a file", "a part of a file", "not in order", "too old a kernel"])
def test_rows_are_put_where_they_belong(
    tmp_path: Path, kind: str, rows: slice | np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "too old a kernel":
        monkeypatch.setattr(store, "_POPULATE_WRITE", 12345)
    row = 3000  # bytes: rows share pages
    whole = np.zeros((14, row), np.uint8) if kind == "in memory" else allocated(tmp_path / "a", np.uint8, (14, row))
    out = {"not in order": whole.reshape(row, 14).T}.get(kind, whole)[2:12] if kind != "in a file" else whole[:10]
    values = np.random.default_rng(0).integers(1, 255, out[rows].shape, np.uint8)
    made_ready, populate = [], store._populate
    monkeypatch.setattr(store, "_populate", lambda part: made_ready.append(len(part)) or populate(part))
    put_rows(out, rows, values)
    assert sum(made_ready) == (len(values) if "file" in kind or "kernel" in kind else 0) or sys.platform != "linux"
    expected = np.zeros((10, row), np.uint8)
    expected[rows] = values
    assert np.array_equal(out, expected) and int((np.asarray(whole) > 0).sum()) == values.size


@on_linux
def test_a_scratch_array_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    script = """
import resource
import numpy as np
from adaflow_core.storage.arrays import scratch
from adaflow_core.errors import AdaFlowError
resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))
try:
    scratch(np.uint8, (10**8,))
except AdaFlowError as problem:
    print(problem)
"""
    told = run(script, tmp_path)
    assert told.startswith("0.1 GB do not fit into") and "set TMPDIR to another folder" in told


@on_linux
def test_arrays_are_refused_where_they_do_not_fit(tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
import numpy as np
from adaflow_core.storage.arrays import allocated
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    allocated(Path(sys.argv[1]) / "a.npy", np.float32, (1000,))
except OSError as problem:
    print(problem.strerror)
"""
    assert run(script, tmp_path) == "File too large"


@on_linux
def test_what_is_finished_of_a_long_film_has_room_on_disk(tmp_path: Path) -> None:
    missing = begin_columns(tmp_path / "latents.npy", np.float16, (1, 50_000, 4), np.arange(20_000, 30_000))
    assert len(missing) == 10_000
    done, latents = ((tmp_path / name).stat() for name in ("done.npy", "latents.npy"))
    assert done.st_blocks * 512 >= done.st_size > 50_000, "all of it: which frames another edit takes is not known"
    assert 80_000 <= latents.st_blocks * 512 < latents.st_size


def test_long_correspondences_lie_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid(4, 3)
    features, segments = drifting(40, grid), even_segments(40, 4, np.array([], np.int64))
    short = correspond(features, segments, [grid], blend=True, device=torch.device("cpu"), monitor=Monitor())
    monkeypatch.setattr(store, "SCRATCH_IN_MEMORY", 100)
    long = correspond(features, segments, [grid], blend=True, device=torch.device("cpu"), monitor=Monitor())
    for name in ("index", "weights"):
        mapped, held = getattr(long, name)[grid], getattr(short, name)[grid]
        assert isinstance(mapped, np.memmap) and not isinstance(held, np.memmap)
        np.testing.assert_array_equal(mapped, held)


def test_scratch_arrays_have_the_shape_that_was_asked_for() -> None:
    assert scratch(np.int16, (3, 2)).shape == (3, 2) and scratch(np.int16, (0, 2)).dtype == np.int16
