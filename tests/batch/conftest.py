"""A batch whose results go to a folder of the test, and whose cache all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaflow_core.batch.task import Job
from helpers.batches import Length


@pytest.fixture
def job(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    cache = tmp_path_factory.getbasetemp() / "batch-cache"
    return Job(out=str(tmp_path / "out"), device="cpu", cache=str(cache), scorer=Length())
