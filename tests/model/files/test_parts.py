"""The names of a model's files, as a user gives them."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaflow_core.model.files.parts import split_value


@pytest.mark.parametrize("value", ["", "0.8"])
def test_a_name_may_hold_the_sign_before_its_value(value: str, tmp_path: Path) -> None:
    path = tmp_path / "run=3" / "pixel=art.safetensors"
    path.parent.mkdir()
    path.touch()
    assert split_value(f"{path}={value}" if value else str(path)) == (str(path), value)
    assert split_value(str(path.parent)) == (str(path.parent), "")


def test_a_name_that_is_nowhere_ends_at_the_last_sign() -> None:
    assert split_value("someone/pixel=0.8") == ("someone/pixel", "0.8") and split_value("pixel") == ("pixel", "")
