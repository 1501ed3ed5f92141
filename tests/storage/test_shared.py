"""A cache of several processes and users; and what a full disk does."""

from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from adaflow_core.cli.main import main
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.loading import EMBEDDED
from adaflow_core.storage.cache import Cache
from helpers.caches import build, needs_locks
from helpers.films import make

ROOT = Path(__file__).resolve().parents[2]


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
