"""The cache: built once, complete or absent, oldest removed first."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from adaflow_core.cache import Cache, cache_key
from adaflow_core.types import Stopped


def build(size: int) -> Any:
    def fill(folder: Path) -> dict[str, Any]:
        (folder / "data").write_bytes(bytes(size))
        return {"size": size}

    return fill


def test_an_entry_is_built_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    folder, meta, known = cache.get("frames", "a", build(10))
    assert (meta, known, (folder / "data").stat().st_size) == ({"size": 10}, False, 10)
    assert cache.get("frames", "a", build(99)) == (folder, {"size": 10}, True)


def test_a_stopped_build_leaves_nothing(tmp_path: Path) -> None:
    def stopped(folder: Path) -> dict[str, Any]:
        (folder / "half").write_text("half")
        raise Stopped

    with pytest.raises(Stopped):
        Cache(tmp_path).get("frames", "a", stopped)
    assert list((tmp_path / "frames").iterdir()) == []


def test_the_oldest_entry_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=2500)
    for age, key in ((300, "old"), (200, "new")):
        folder, _, _ = cache.get("frames", key, build(1000))
        os.utime(folder / "meta.json", (1e9 - age, 1e9 - age))
    cache.get("frames", "third", build(1000))
    assert {path.name for path in (tmp_path / "frames").iterdir()} == {"new", "third"}


def test_equal_settings_have_equal_names() -> None:
    assert cache_key(a=1, b=[2]) == cache_key(b=[2], a=1) != cache_key(a=1, b=[3])
