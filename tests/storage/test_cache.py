"""The cache: built once, complete or absent, named by what it is of, damage seen."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.model.backbone import Backbone
from adaflow_core.storage.cache import Cache, cache_key
from helpers.caches import build, stopped_half_way
from helpers.films import make


def test_an_entry_is_built_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    folder, meta, known = cache.get("frames", "a", build(10))
    assert (meta, known, (folder / "data").stat().st_size) == ({"size": 10}, False, 10)
    assert cache.get("frames", "a", build(99)) == (folder, {"size": 10}, True)
    assert {file.name for file in folder.iterdir()} == {"data", "meta.json"}


def test_a_stopped_build_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        Cache(tmp_path).get("frames", "a", stopped_half_way)
    assert list((tmp_path / "frames").iterdir()) == []


def test_what_is_not_the_caches_fault_is_told_as_it_is(tmp_path: Path) -> None:
    masks, root = tmp_path / "masks" / "1.png", tmp_path / "cache"

    def fails(problem: OSError) -> str:
        def build(folder: Path) -> dict[str, Any]:
            raise problem

        with pytest.raises(AdaFlowError) as told:
            Cache(root).get("place", "a", build)
        return str(told.value)

    own = "the cache's place of this video could not be computed ({}); put that right and run it again"
    assert fails(OSError(errno.ENOENT, "No such file", str(masks))) == own.format(f"No such file: {masks}")
    assert fails(PermissionError(errno.EACCES, "Permission denied", str(masks))) == own.format(
        f"Permission denied: {masks}"
    )
    assert fails(OSError(errno.EMFILE, "Too many open files")) == own.format("Too many open files")
    assert fails(TimeoutError()) == own.format("TimeoutError")
    for problem in (OSError(errno.EFBIG, "File too large"), OSError(errno.EACCES, "Denied", str(root / "place/a"))):
        assert fails(problem).startswith(f"the cache folder {root} cannot be written; free some space")


def test_the_limit_of_the_usual_cache_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADAFLOW_CACHE_GB", raising=False)
    assert Cache.default().limit_bytes == 20 * 2**30
    monkeypatch.setenv("ADAFLOW_CACHE_GB", "0.5")
    assert Cache.default().limit_bytes == 2**29 and Cache.default(3).limit_bytes == 3 * 2**30
    for wrong in ("much", "0", "inf", "nan"):
        monkeypatch.setenv("ADAFLOW_CACHE_GB", wrong)
        with pytest.raises(AdaFlowError, match=f"ADAFLOW_CACHE_GB is '{wrong}'; give a number"):
            Cache.default()


def test_equal_settings_have_equal_names() -> None:
    assert cache_key(a=1, b=[2]) == cache_key(b=[2], a=1) != cache_key(a=1, b=[3])


# --- damage -----------------------------------------------------------------------------------------


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": lambda folder: os.truncate(folder / "data", 4),
    "longer": lambda folder: (folder / "data").write_bytes(bytes(11)),
    "one bit": lambda folder: flip(folder / "data"),
    "a file gone": lambda folder: (folder / "data").unlink(),
    "no description": lambda folder: (folder / "meta.json").unlink(),
    "bad JSON": lambda folder: (folder / "meta.json").write_text("{"),
    "other JSON": lambda folder: (folder / "meta.json").write_text("[1]"),
    "an older format": lambda folder: (folder / "meta.json").write_text('{"size": 10}'),
    "no text": lambda folder: (folder / "meta.json").write_bytes(b"\xff\xfe\0"),
    "an empty description": lambda folder: (folder / "meta.json").write_text(""),
}


@pytest.mark.parametrize("content", [b"bbbbaaaacc", b"aaaabbbbcd", b"aaaabbxbcc"])
def test_damage_is_seen_in_any_block_of_a_file(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adaflow_core.storage.digests._BLOCK", 4)

    def fill(folder: Path) -> dict[str, int]:
        (folder / "data").write_bytes(b"aaaabbbbcc")
        return {}

    folder, _, _ = Cache(tmp_path).get("frames", "a", fill)
    assert Cache(tmp_path).get("frames", "a", fill)[2]
    (folder / "data").write_bytes(content)
    assert not Cache(tmp_path).get("frames", "a", fill)[2]


@pytest.mark.parametrize("same_process", [True, False])
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_entry_is_built_anew_with_a_word(kind: str, same_process: bool, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    folder, _, _ = cache.get("frames", "a", build(10))
    DAMAGE[kind](folder)
    told: list[str] = []
    again = cache if same_process else Cache(tmp_path)
    assert again.get("frames", "a", build(10), told.append) == (folder, {"size": 10}, False)
    assert len(told) == 1 and "damaged" in told[0]
    assert again.get("frames", "a", build(10), told.append)[2] and len(told) == 1
    assert (folder / "data").read_bytes() == bytes(10)
    assert [path.name for path in folder.parent.iterdir()] == ["a"]


def test_an_edit_over_a_damaged_cache_is_the_same(tiny_backbone: Callable[[str], Backbone], tmp_path: Path) -> None:
    clip = make(tmp_path / "a.mp4", 4, size=(64, 64))

    def edited() -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
        engine = AdaFlow(tiny_backbone("sd1"), Cache(tmp_path / "cache"))
        plan = engine.plan(clip, PlanConfig(keyframes=2), size=(64, 64))
        result = engine.edit(plan, "a ball", EditConfig(steps=2))
        return np.array(result.frames), plan.notes, result.warnings

    first, notes, warnings = edited()
    assert not any("damaged" in sentence for sentence in (*notes, *warnings))
    for file in (tmp_path / "cache").glob("*/*/*.npy"):
        flip(file)
    again, notes, warnings = edited()
    assert np.array_equal(first, again)
    for kind, told in (("frames", notes), ("features", notes), ("inversion", warnings)):
        assert any(f"cache's {kind}" in sentence and "damaged" in sentence for sentence in told)
    assert not any("damaged" in sentence for sentence in edited()[1])
