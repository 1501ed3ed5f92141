"""Large arrays in files: what takes no memory, and what a full disk does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from adaflow_core import store
from adaflow_core.correspondence import correspond
from adaflow_core.keyframes import even_segments
from adaflow_core.store import scratch
from adaflow_core.types import Grid, Monitor
from made import drifting

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and /proc are Linux's")


def test_a_large_scratch_array_takes_no_memory_and_no_name(tmp_path: Path) -> None:
    script = """
import numpy as np
from adaflow_core.memory import resident_bytes
from adaflow_core.store import scratch
before = resident_bytes()
small = scratch(np.float32, (1000,))
large = scratch(np.float32, (2**28,))  # a gigabyte
large[:2**26] = 1
assert large[0] == 1 and large[-1] == 0 and not isinstance(small, np.memmap)
print(resident_bytes() - before)
"""
    environment = {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2**24 and not list(tmp_path.iterdir())


def test_a_scratch_array_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    script = """
import resource
import numpy as np
from adaflow_core.store import scratch
from adaflow_core.types import AdaFlowError
resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))
try:
    scratch(np.uint8, (10**8,))
except AdaFlowError as problem:
    print(problem)
"""
    environment = {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("0.1 GB do not fit into") and "set TMPDIR to another folder" in done.stdout


def test_arrays_are_refused_where_they_do_not_fit(tmp_path: Path) -> None:
    script = """
import resource, sys
from pathlib import Path
import numpy as np
from adaflow_core.store import allocated
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    allocated(Path(sys.argv[1]), np.float32, (1000,))
except OSError as problem:
    print(problem.strerror)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.npy")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "File too large"


def test_long_correspondences_lie_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid(4, 3)
    features, segments = drifting(40, grid), even_segments(40, 4, np.array([], np.int64))
    short = correspond(features, segments, [grid], blend=True, device=torch.device("cpu"), monitor=Monitor())
    monkeypatch.setattr(store, "SCRATCH_IN_MEMORY", 100)
    long = correspond(features, segments, [grid], blend=True, device=torch.device("cpu"), monitor=Monitor())
    for name in ("index", "weights"):
        assert isinstance(getattr(long, name)[grid], np.memmap) and not isinstance(
            getattr(short, name)[grid], np.memmap
        )
        np.testing.assert_array_equal(getattr(long, name)[grid], getattr(short, name)[grid])


def test_scratch_arrays_have_the_shape_that_was_asked_for() -> None:
    assert scratch(np.int16, (3, 2)).shape == (3, 2) and scratch(np.int16, (0, 2)).dtype == np.int16
