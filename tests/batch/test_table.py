"""The tables of a batch: every row with its scores, also as Parquet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adaflow_core.batch.files import Storage
from adaflow_core.batch.run import run
from adaflow_core.batch.table import gather
from adaflow_core.batch.task import Job
from helpers.batches import METHODS, clip, needs_model


@needs_model
def test_the_table_is_parquet_where_pyarrow_is(job: Job) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (requirements-batch.txt)")
    run(job, [clip("one")], {"adaflow": METHODS["adaflow"]}, say=lambda _: None)
    table = parquet.read_table(Path(job.out) / "table.parquet")
    assert table.num_rows == 2 and set(table["method"].to_pylist()) == {"adaflow"}
    assert json.loads(table["settings"][0].as_py())["edit"]["steps"] == 1
    assert min(table["scores.bytes"].to_pylist()) > 0


def test_without_rows_there_is_no_table(tmp_path: Path) -> None:
    assert gather(Storage(str(tmp_path))) == [] and list(tmp_path.iterdir()) == []
