"""What of the cache goes and what stays: parts of entries, the limit, age, what a job goes on from."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.model.backbone import Backbone
from adaflow_core.storage import cache as cache_module
from adaflow_core.storage.arrays import open_columns
from adaflow_core.storage.cache import Cache
from helpers.caches import build, inverting, needs_locks, stopped_half_way
from helpers.films import make


def test_a_part_of_an_entry_is_kept_for_the_rest(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with cache.part("frames", "a") as folder:
        (folder / "half").write_text("half")
    with cache.part("frames", "a") as folder:
        (folder / "more").write_text("more")

    def rest(folder: Path) -> dict[str, Any]:
        return {"found": sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))}

    whole, meta, known = cache.get("frames", "a", rest, resumable=True)
    assert (meta, known) == ({"found": ["half", "more"]}, False)
    with cache.part("frames", "a") as folder:
        assert folder == whole


PROBLEMS = [
    Stopped(), MemoryError(), KeyboardInterrupt(), AdaFlowError("not even one frame fits"), RuntimeError("CUDA error"),
    OSError(errno.ENOSPC, "No space left on device"),
]  # fmt: skip


@needs_locks
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: type(problem).__name__)
def test_what_is_finished_outlives_whatever_ends_the_rest(problem: BaseException, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with cache.part("frames", "a") as folder:
        inverting([0, 3])(folder)
    with pytest.raises(AdaFlowError if isinstance(problem, OSError) else type(problem)):  # noqa: SIM117
        with cache.part("frames", "a") as folder:
            inverting([1], problem)(folder)
    assert cache.find("frames", "a") is None and len(list((tmp_path / "frames").iterdir())) == 1
    with pytest.raises(AdaFlowError if isinstance(problem, OSError) else type(problem)):
        cache.get("frames", "a", inverting([], problem), resumable=True)
    assert cache.find("frames", "a") is None
    folder, meta, known = cache.get("frames", "a", inverting([2, 4]), resumable=True)
    assert (meta, known) == ({"missing": [2, 4]}, False)
    assert np.load(folder / "data.npy")[1, :, 0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: type(problem).__name__)
def test_nothing_is_kept_of_what_has_no_finished_part(problem: BaseException, tmp_path: Path) -> None:
    with pytest.raises(AdaFlowError if isinstance(problem, OSError) else type(problem)):
        Cache(tmp_path).get("frames", "a", inverting([], problem), resumable=True)
    assert list((tmp_path / "frames").iterdir()) == []


@needs_locks
def test_what_cannot_be_read_or_was_lost_is_not_gone_on_with(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(AdaFlowError, match="Input/output"):
        cache.get("frames", "a", inverting([0, 1], OSError(errno.EIO, "Input/output error")), resumable=True)
    assert list((tmp_path / "frames").iterdir()) == []
    with cache.part("frames", "a") as folder:
        inverting([0, 1])(folder)
    next(tmp_path.glob("frames/*/data.npy")).write_bytes(b"damaged")
    assert cache.get("frames", "a", inverting([0, 1, 2, 3, 4]), resumable=True)[1] == {"missing": [0, 1, 2, 3, 4]}


@needs_locks
def test_a_part_that_is_just_taken_up_again_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, other = cache_module._locked, Cache(tmp_path, limit_bytes=0)
    with Cache(tmp_path).part("frames", "a") as folder:
        (folder / "half").write_text("half")
    hour_ago = time.time() - 3600
    os.utime(next((tmp_path / "frames").iterdir()), (hour_ago, hour_ago))

    def late(path: Path) -> Any:
        monkeypatch.setattr(cache_module, "_locked", lock)
        other.get("frames", "b", build(10))
        return lock(path)

    monkeypatch.setattr(cache_module, "_locked", late)
    with Cache(tmp_path).part("frames", "a") as folder:
        assert (folder / "half").read_text() == "half"


@needs_locks
def test_an_entry_whose_description_found_no_room_is_whole_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, write = Cache(tmp_path), Path.write_text

    def full(path: Path, text: str, **kwargs: Any) -> int:
        write(path, text[:9], **kwargs)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(AdaFlowError, match="free some space"):
        patch.setattr(Path, "write_text", full)
        cache.get("frames", "a", inverting([0, 1, 2, 3, 4]), resumable=True)
    assert cache.get("frames", "a", inverting([]), resumable=True)[1:] == ({"missing": []}, False)
    assert Cache(tmp_path).get("frames", "a", inverting([]), resumable=True)[2]


@needs_locks
def test_an_edit_that_fails_leaves_its_draft_what_was_inverted(
    tiny_backbone: Callable[[str], Backbone], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, config = AdaFlow(tiny_backbone("sd1"), Cache(tmp_path / "cache")), EditConfig(steps=2, inversion_steps=2)
    plan = engine.plan(make(tmp_path / "a.mp4", 6, size=(64, 64)), PlanConfig(keyframes=2), size=(64, 64))
    engine.draft(plan, "a ball", config)
    monkeypatch.setattr("adaflow_core.editing.inversion.ddim_step", lambda *_: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        engine.edit(plan, "a ball", config)
    (kept,) = engine.cache.root.glob("inversion/*/latents.npy")
    assert np.flatnonzero(open_columns(kept)[1]).tolist() == plan.segments.keyframes.tolist()


@needs_locks
def test_parts_count_and_go_by_age_too(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=20_000)
    for key in ("old", "new"):
        with cache.part("frames", key) as folder:
            (folder / "data").write_bytes(bytes(12_000))
        if key == "old":
            os.utime(next((tmp_path / "frames").iterdir()), (1e9, 1e9))
    (left,) = (tmp_path / "frames").iterdir()
    assert "new" in left.name
    with cache.part("frames", "large") as folder:  # stays for who asked for it, however large and slow it was
        (folder / "data").write_bytes(bytes(30_000))
        os.utime(folder, (1e9, 1e9))
    assert any("large" in left.name for left in (tmp_path / "frames").iterdir())


@needs_locks
def test_the_limit_holds_whatever_parts_of_other_films_there_are(tmp_path: Path) -> None:
    """As edits that do not invert every frame leave; those that were stopped stay for a day."""
    cache, hours_ago = Cache(tmp_path, limit_bytes=8192), time.time() - 20 * 3600
    for film in ("a", "b", "c"):
        with cache.part("inversion", film) as folder:
            (folder / "half").write_bytes(bytes(4096))
    with pytest.raises(Stopped):
        cache.get("inversion", "stopped", stopped_half_way, resumable=True)
    for age, path in enumerate(sorted((tmp_path / "inversion").iterdir())):
        os.utime(path, (hours_ago - age, hours_ago - age))
    folder, _, _ = cache.get("frames", "d", build(1000))
    os.utime(folder / "meta.json", (hours_ago, hours_ago))
    with cache.part("inversion", "a") as folder:
        (folder / "half").write_bytes(bytes(4096))
    assert {cache_module._name(path)[1] for path in tmp_path.glob("*/*")} == {"a", "stopped"}
    with suppress(Stopped), cache.part("inversion", "a") as folder:  # which makes it unfinished again
        raise Stopped
    os.utime(next(tmp_path.glob("inversion/.unfinished-a-*")), (hours_ago, hours_ago))
    with cache.part("inversion", "e") as folder:
        (folder / "half").write_bytes(bytes(4096))
    assert {cache_module._name(path)[1] for path in tmp_path.glob("*/*")} == {"a", "e", "stopped"}


@needs_locks
def test_a_build_with_nothing_finished_is_not_gone_on_with(tmp_path: Path) -> None:
    """A look at the lock of a folder that goes meanwhile makes an empty one."""
    cache = Cache(tmp_path)
    with cache.part("frames", "a") as folder:
        inverting([0, 3])(folder)
    begun, away = next((tmp_path / "frames").iterdir()), tmp_path / "away"
    empty = [begun.with_name(f".unfinished-a-{number:032x}") for number in range(8)]
    begun.rename(away)
    for number, path in enumerate(empty):  # some before it in the folder, some after it
        path.mkdir()
        (path / ".lock").touch()
        if number == 3:
            away.rename(begun)
    assert cache.get("frames", "a", inverting([1, 2, 4]), resumable=True)[1] == {"missing": [1, 2, 4]}
    hour_ago = time.time() - 3600
    for path in empty:
        os.utime(path, (hour_ago, hour_ago))
    Cache(tmp_path, limit_bytes=10).get("frames", "b", build(1))
    assert sorted(path.name for path in (tmp_path / "frames").iterdir()) == ["a", "b"], "nor is it unfinished work"


def test_without_locks_a_part_that_was_enough_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "sys", SimpleNamespace(platform="win32"))
    cache = Cache(tmp_path)
    with cache.part("frames", "a") as folder:
        inverting([0, 3])(folder)
    with suppress(Stopped), cache.part("frames", "a") as folder:
        assert np.flatnonzero(open_columns(folder / "data.npy")[1]).tolist() == [0, 3]
        raise Stopped
    with cache.part("frames", "a") as folder:  # somebody may still be at the other
        assert inverting([2])(folder) == {"missing": [0, 1, 2, 3, 4]}


def test_the_oldest_entry_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=2500)
    for age, key in ((300, "old"), (200, "new")):
        folder, _, _ = cache.get("frames", key, build(1000))
        os.utime(folder / "meta.json", (1e9 - age, 1e9 - age))
    cache.get("frames", "third", build(1000))
    assert {path.name for path in (tmp_path / "frames").iterdir()} == {"new", "third"}


def test_what_another_process_was_just_told_of_is_not_removed(tmp_path: Path) -> None:
    cache, other = (Cache(tmp_path, limit_bytes=1500) for _ in range(2))
    folder, _, _ = other.get("frames", "read", build(1000))
    mapped = np.memmap(folder / "data", mode="r")
    cache.get("frames", "b", build(1000))
    assert (folder / "data").exists()
    for entry in tmp_path.glob("frames/*/meta.json"):
        os.utime(entry, (1e9, 1e9))
    cache.get("frames", "c", build(1000))
    assert {path.name for path in (tmp_path / "frames").iterdir()} == {"c"}
    if sys.platform != "win32":
        assert mapped.sum() == 0  # a map outlives the name of its file


@needs_locks
def test_a_film_larger_than_the_limit_keeps_what_it_goes_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "_FRESH", 0.0)
    cache, notes = Cache(tmp_path, limit_bytes=2500), list[str]()

    def left() -> list[str]:
        return sorted(f"{path.parent.name} {cache_module._name(path)[1]}" for path in tmp_path.glob("*/*"))

    cache.get("frames", "other", build(1000))
    frames, _, _ = cache.get("frames", "film", build(1000))
    pixels = np.memmap(frames / "data", mode="r")
    with cache.at_work(pixels[10:], np.zeros(3)):
        cache.get("latents", "film", build(1000), notes.append)
        assert notes == []
        state = cache.state("edits", "film")
        state.parent.mkdir()
        state.write_bytes(bytes(2000))
        with cache.part("inversion", "film") as folder:
            (folder / "half").write_bytes(bytes(4096))
        with suppress(Stopped):
            cache.get("features", "film", stopped_half_way, resumable=True)
        cache.get("flow", "film", build(1000), notes.append)
        kinds = ("edits", "features", "flow", "frames", "inversion", "latents")
        assert left() == [f"{kind} film" for kind in kinds]
        assert len(notes) == 1 and "raise the limit with --cache-gb" in notes[0]
    # In the next run something else is built first; what is unfinished goes last, and not within a day.
    Cache(tmp_path, limit_bytes=2500).get("frames", "third", build(1000))
    assert left() == ["edits film", "features film", "frames third"]
    two_days_ago = time.time() - 2 * 24 * 3600
    for path in (state, next(tmp_path.glob("features/*"))):
        os.utime(path, (two_days_ago, two_days_ago))
    Cache(tmp_path, limit_bytes=2500).get("frames", "fourth", build(1000))
    assert left() == ["frames fourth"]
