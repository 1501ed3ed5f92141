"""The cache: built once, complete or absent, damage seen, oldest removed first; and what a full disk does."""

from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from adaflow_core.cli.main import main
from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.loading import EMBEDDED
from adaflow_core.storage import cache as cache_module
from adaflow_core.storage.arrays import begin_columns, end_columns, open_columns
from adaflow_core.storage.cache import Cache, cache_key, checksum, file_digest, relative
from helpers.films import make

ROOT = Path(__file__).resolve().parents[2]
needs_locks = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks; there a day has to pass")


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
    assert {file.name for file in folder.iterdir()} == {"data", "meta.json"}


def stopped_half_way(folder: Path) -> dict[str, Any]:
    (folder / "half").write_bytes(bytes(4096))
    raise Stopped


def test_a_stopped_build_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        Cache(tmp_path).get("frames", "a", stopped_half_way)
    assert list((tmp_path / "frames").iterdir()) == []


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


def test_a_folder_is_named_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"1")
    before = file_digest(tmp_path)
    assert file_digest(tmp_path) == before
    (tmp_path / "1.png").write_bytes(b"12")
    assert file_digest(tmp_path) != before


def test_what_is_no_picture_in_a_folder_is_not_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"1")
    before = file_digest(tmp_path), checksum(tmp_path)
    for name in (".DS_Store", "._1.png", "Thumbs.db", "film.json"):
        (tmp_path / name).write_bytes(b"left there")
    (tmp_path / "folder.png").mkdir()
    assert (file_digest(tmp_path), checksum(tmp_path)) == before
    (tmp_path / "2.JPG").write_bytes(b"2")
    assert file_digest(tmp_path) != before[0] and checksum(tmp_path) != before[1]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows lets few users make links")
def test_a_link_is_named_as_it_is_called(tmp_path: Path) -> None:
    for name in ("blobs", "clips", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "blobs" / "0a1b").write_bytes(b"a clip")
    (tmp_path / "clips" / "ball.mp4").symlink_to(tmp_path / "blobs" / "0a1b")
    (tmp_path / "other").symlink_to(tmp_path / "clips")
    for folder in ("clips", "other"):
        assert relative(tmp_path / folder / "ball.mp4", tmp_path / "work") == "../clips/ball.mp4"


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
    monkeypatch.setattr("adaflow_core.storage.cache._BLOCK", 4)

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


# --- several processes ------------------------------------------------------------------------------


def _builds(root: Path, number: int, limit: int) -> None:
    """Ten rounds over four keys, of which the limit holds about two; every entry told of can be read."""
    cache = Cache(root, limit)
    for turn in range(40):
        value = (turn + number) % 4

        def fill(folder: Path, value: int = value) -> dict[str, Any]:
            (folder / "data").write_bytes(bytes([value]) * 5000)
            return {"value": value}

        folder, meta, _ = cache.get("frames", str(value), fill)
        assert meta == {"value": value} and (folder / "data").read_bytes() == bytes([value]) * 5000


def test_processes_share_a_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    workers = [context.Process(target=_builds, args=(tmp_path, number, 12_000)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert all(not path.name.startswith(".") for path in (tmp_path / "frames").iterdir())


def test_two_that_build_the_same_at_once_agree(tmp_path: Path) -> None:
    def slow(folder: Path) -> dict[str, Any]:
        others.append(Cache(tmp_path).get("frames", "a", build(10)))
        return build(10)(folder)

    others: list[tuple[Path, dict[str, Any], bool]] = []
    assert Cache(tmp_path).get("frames", "a", slow) == others[0]
    assert [path.name for path in (tmp_path / "frames").iterdir()] == ["a"]


def test_what_another_placed_just_after_a_look_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was taken for damaged, removed and built again."""
    look, notes = Cache._read, list[str]()

    def late(cache: Cache, folder: Path) -> dict[str, Any] | None:
        found = look(cache, folder)
        if found is None and not folder.exists():
            monkeypatch.setattr(Cache, "_read", look)
            Cache(tmp_path).get("frames", "a", build(10))
        return found

    monkeypatch.setattr(Cache, "_read", late)
    _, _, known = Cache(tmp_path).get("frames", "a", build(10), notes.append)
    assert known and notes == []


@needs_locks
def test_what_dead_processes_were_building_is_removed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from adaflow_core.storage.cache import Cache\n"
        "def build(folder):\n"
        "    (folder / 'half').write_text('half'); print('building', flush=True); time.sleep(60)\n"
        "Cache(Path(sys.argv[1])).get('frames', 'a', build)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"building\n"
        Cache(tmp_path).get("frames", "b", build(1))
        assert len(list(tmp_path.glob("frames/.building-*"))) == 1  # of a process that lives
        process.kill()
    Cache(tmp_path).get("frames", "c", build(1))
    assert sorted(path.name for path in (tmp_path / "frames").iterdir()) == ["b", "c"]


# --- no room, no right ------------------------------------------------------------------------------


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AdaFlowError, match="set ADAFLOW_CACHE to another"):
        Cache(tmp_path / "file").get("frames", "a", build(1))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")
def test_users_share_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another user has made was taken for damaged, and made anew by each in turn."""
    folder, _, _ = Cache(tmp_path).get("frames", "a", build(10))
    (tmp_path / "plain").mkdir()
    assert folder.stat().st_mode == (tmp_path / "plain").stat().st_mode

    def denied(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", denied)
        assert Cache(tmp_path).get("frames", "a", build(10)) == (folder, {"size": 10}, True)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", denied)
        for use in (lambda: Cache(tmp_path).get("frames", "a", build(10)), lambda: Cache(tmp_path).find("frames", "a")):
            with pytest.raises(AdaFlowError, match=r"another user's and cannot be read .*meta\.json.*ADAFLOW_CACHE"):
                use()
    assert Cache(tmp_path).get("frames", "a", build(99)) == (folder, {"size": 10}, True)


# How large a file may become stands for the disk's size: RLIMIT_FSIZE gives errors at the same places.
def _under_limits(command: list[str], cache: Path, said: int) -> None:
    """In a fork, which has imported everything: the command under one limit after the other, told through `said`."""
    import resource

    torch.set_num_threads(1)
    os.environ["ADAFLOW_CACHE"] = str(cache)
    with os.fdopen(said, "w") as sys.stderr:  # a pipe: the limit is none for it
        sys.stdout = sys.stderr
        for most in (2_000, 97_000, 99_000, 10**9):
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
            status = main(command)
            kept = sorted(str(path.parent.relative_to(cache)) for path in cache.glob("*/*/meta.json"))
            print("END", status, *kept, file=sys.stderr)


@pytest.mark.thorough
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is Linux's")
@pytest.mark.skipif(not EMBEDDED.exists(), reason="the embedded model is not in assets/")
def test_a_full_disk_ends_with_the_remedy_and_keeps_what_was_done(tmp_path: Path) -> None:
    clip, cache = make(tmp_path / "a.mp4", 8, size=(64, 64)), tmp_path / "cache"
    command = ["edit", str(clip), "--prompt", "a ball", "--size", "64x64", "--device", "cpu", "--steps", "1"]
    command += ["--keyframes", "2", "--out", str(tmp_path / "out.mp4")]
    reader, writer = os.pipe()
    process = multiprocessing.get_context("fork").Process(target=_under_limits, args=(command, cache, writer))
    process.start()
    os.close(writer)
    with os.fdopen(reader) as pipe:
        lines = pipe.read().splitlines()
    process.join()
    assert process.exitcode == 0 and "Traceback" not in "".join(lines), lines
    kept: set[str] = set()
    statuses = []
    for before, line in pairwise(lines):
        if line.startswith("END "):
            statuses.append(int(line.split()[1]))
            entries = set(line.split()[2:])
            assert kept <= entries, "what was done is lost"
            kept = entries
            if statuses[-1]:
                assert before.startswith("adaflow: error: "), before
                assert "free some space" in before or "choose another folder" in before, before
    # Frames take 98 kB: too many for the first two. A few files of the third are larger than it allows, or none.
    assert statuses[:2] == [2, 2] and statuses[3] == 0 and len(kept) >= 4
    assert not list(cache.glob("*/.*")) and not list(tmp_path.glob(".*"))


def test_frames_that_cannot_fit_are_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adaflow_core import video
    from adaflow_core.storage import arrays as store

    clip = make(tmp_path / "a.mp4", 40)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**8))
    with pytest.raises(AdaFlowError, match=r"40 frames need 378 MB and .* 100 MB free; choose a shorter range"):
        video.decode_video(clip, size=(2048, 1536), out=tmp_path / "frames.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
