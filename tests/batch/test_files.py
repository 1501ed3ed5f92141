"""Files of a batch: whole or absent, in a folder and in a bucket; manifests that say what is wrong with them."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import NoReturn

import pytest
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem

from adaflow_core.batch.files import Storage, join
from adaflow_core.batch.manifest import Clip, read_manifest, write_manifest
from adaflow_core.errors import AdaFlowError


@pytest.fixture(params=["folder", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """fsspec's file system in memory behaves as a bucket does: no folders, no renaming. [1] is no pattern."""
    return Storage(str(tmp_path / "out [1]") if request.param == "folder" else f"memory://{uuid.uuid4().hex} [1]")


def test_what_is_written_is_read(storage: Storage, tmp_path: Path) -> None:
    assert not storage.exists("rows/a.json") and storage.names("rows", ".json") == []
    assert storage.read_all("rows", ".json") == {}
    storage.write_json("rows/b/x.json", {"b": 1})
    assert storage.read_all("rows", ".json") == {"rows/b/x.json": {"b": 1}}
    storage.write_json("rows/a.json", {"a": None})
    storage.write_json("rows/a.json", {"a": 2})
    storage.write("rows/notes.txt", b"no row")
    assert storage.names("rows", ".json") == ["rows/a.json", "rows/b/x.json"]
    assert storage.read_all("rows", ".json") == {"rows/a.json": {"a": 2}, "rows/b/x.json": {"b": 1}}
    (tmp_path / "film.mp4").write_bytes(b"frames")
    storage.put(tmp_path / "film.mp4", "videos/film.mp4")
    assert storage.fetch("videos/film.mp4", tmp_path).read_bytes() == b"frames"
    with pytest.raises(AdaFlowError, match="does not exist"):
        storage.read("rows/c.json")


def test_colons_in_a_path_are_a_part_of_it(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "memory::out"))
    storage.write_json("rows/a::b.json", {"a": 1})
    assert (tmp_path / "memory::out/rows/a::b.json").is_file()
    assert storage.read_all("rows", ".json") == {"rows/a::b.json": {"a": 1}}
    (tmp_path / "zip::m.jsonl").write_text('{"video": "a.mp4", "prompt": "a cat"}')
    assert read_manifest(str(tmp_path / "zip::m.jsonl"))[0].location == str(tmp_path / "a.mp4")


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[bool]()
    monkeypatch.setattr("os.fsync", lambda descriptor: seen.append((tmp_path / "out/film.mp4").exists()))
    (tmp_path / "film.mp4").write_bytes(b"frames")
    Storage(str(tmp_path / "out")).put(tmp_path / "film.mp4", "film.mp4")
    assert seen == [False] and (tmp_path / "out/film.mp4").read_bytes() == b"frames"


def test_a_file_that_breaks_off_leaves_what_was_there(tmp_path: Path) -> None:
    """A writer is killed between its file's beginning and its end."""
    storage = Storage(str(tmp_path))
    storage.write_json("row.json", {"whole": True})
    script = (
        "import os, sys\n"
        "from adaflow_core.batch.files import _place, _whole\n"
        "with _place(sys.argv[1]) as (files, path), _whole(files, path) as part:\n"
        "    open(part, 'w').write('{\"whole\": fal')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path / "row.json")], cwd=root, check=False)
    assert ended.returncode == -9 and len(list(tmp_path.iterdir())) == 2  # the part lies there under another name
    assert storage.read_all("", ".json") == {"/row.json": {"whole": True}}


def test_what_cannot_be_reached_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AdaFlowError, match="permissions"):
        Storage(str(tmp_path / "file")).write("rows/a.json", b"")
    with pytest.raises(AdaFlowError, match="nowhere"):
        Storage("nowhere://bucket").exists("a")
    assert join("s3://bucket/out/", "rows/a.json") == "s3://bucket/out/rows/a.json"
    assert join("clips", "/data/a.mp4") == "/data/a.mp4" and join("clips", "gs://b/a.mp4") == "gs://b/a.mp4"


class _Locked(MemoryFileSystem):
    """A bucket whose package has no credentials: it raises an exception of its own, as botocore does."""

    protocol = "locked"

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise type("NoCredentialsError", (Exception,), {})("Unable to locate credentials")

    exists = find = cat_file = pipe_file = put_file = get_file = _refuse


def test_a_bucket_without_credentials_ends_with_a_sentence(tmp_path: Path) -> None:
    register_implementation("locked", _Locked, clobber=True)
    (tmp_path / "film.mp4").write_bytes(b"")
    bucket = Storage("locked://bucket")
    for use in (
        lambda: bucket.exists("a"),
        lambda: bucket.names("rows", ".json"),
        lambda: bucket.read("a"),
        lambda: bucket.find_json("a"),
        lambda: bucket.read_all("rows", ".json"),
        lambda: bucket.write("a", b""),
        lambda: bucket.put(tmp_path / "film.mp4", "a"),
        lambda: bucket.fetch("a", tmp_path),
        lambda: read_manifest("locked://bucket/manifest.jsonl"),
    ):
        with pytest.raises(AdaFlowError, match=r"locked://bucket/.* \(Unable to locate credentials\)"):
            use()


def test_manifests_are_read_with_their_defaults(tmp_path: Path) -> None:
    lines = [
        {"video": "clips/a.mp4", "prompt": "a cat", "source_prompt": "a dog", "frames": "0:8", "size": "64x64"},
        {"video": "s3://bucket/b.mp4", "prompts": ["a cat", "a cow"], "id": "second", "meta": {"seed": 1}},
        {"video": "/data/c.mp4", "prompts": {"style": "a cat, comic"}, "id": 0},
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    first, second, third = read_manifest(str(path))
    assert (first.id, first.prompts, first.source_prompt) == ("a", {"0": "a cat"}, "a dog")
    assert first.location == str(tmp_path / "clips/a.mp4") and (third.id, third.location) == ("0", "/data/c.mp4")
    assert (second.id, second.prompts, second.meta) == ("second", {"0": "a cat", "1": "a cow"}, {"seed": 1})
    assert second.location == "s3://bucket/b.mp4"
    again = tmp_path / "again.jsonl"
    write_manifest(str(again), [first, second, third])
    assert read_manifest(str(again)) == [first, second, third]


def test_a_manifest_may_begin_with_a_mark_and_hold_any_character(tmp_path: Path) -> None:
    """Of these only the line feed ends a line, though str.splitlines() takes them all."""
    line = json.dumps({"video": "a.mp4", "prompt": "one\u2028two\u0085three"}, ensure_ascii=False)
    (tmp_path / "m.jsonl").write_bytes(f"\ufeff{line}\r\n".encode())
    (only,) = read_manifest(str(tmp_path / "m.jsonl"))
    assert only.prompts == {"0": "one\u2028two\u0085three"}


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("{", "line 2"),
        ("[]", "JSON object"),
        ('{"prompt": "a cat"}', "video"),
        ('{"video": "b.mp4"}', "prompts"),
        ('{"video": "b.mp4", "prompts": {"style": " "}}', "empty"),
        ('{"video": "b.mp4", "prompts": ["a cat"], "prompt": "a cow"}', "write all of them into prompts"),
        ('{"video": "b.mp4", "prompts": {"a/b": "a cat"}}', "a/b"),
        ('{"video": "b c.mp4", "prompt": "a cat"}', "b c"),
        ('{"video": "b.mp4", "prompts": {"style.": "a cat"}}', "no dot at the end"),
        ('{"video": "b.mp4", "prompts": {"Nul": "a cat"}}', "Windows"),
        ('{"video": "con.1.mp4", "prompt": "a cat"}', "Windows"),
        ('{"video": "b.mp4", "prompts": {"Style": "a cat", "style": "a cow"}}', "a prompt 'Style' already, and some"),
        ('{"video": "A.mp4", "prompt": "a cat"}', "a clip 'a' already, and some"),
        ('{"video": "x/a.mp4", "prompt": "a cat"}', "already"),
        ('{"video": "b.mp4", "prompt": "a cat", "seed": 1}', "seed"),
        ('{"video": "b.mp4", "prompt": "a cat", "frames": "x"}', "frame range"),
        ('{"video": "b.mp4", "prompt": "a cat", "size": "1"}', "size"),
        ('{"video": "b.mp4", "prompt": "a café"}', "save the file as UTF-8"),
    ],
)
def test_a_wrong_line_is_named(line: str, names: str, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"video": "a.mp4", "prompt": "a cat"}\n' + line, encoding="latin-1")
    with pytest.raises(AdaFlowError, match="line 2") as told:
        read_manifest(str(path))
    assert names in str(told.value)


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ('{"video": "a.mp4", "prompt": "x", "frames": 48}', 'frames is 48; write it in quotes, as "0:48"'),
        ('{"video": "a.mp4", "prompt": "x", "frames": [0, 48]}', "frames is"),
        ('{"video": "a.mp4", "prompt": "x", "size": 512}', 'size is 512; write it in quotes, as "672x384"'),
        ('{"video": "a.mp4", "prompt": "x", "source_prompt": 5}', "source_prompt is 5"),
        ('{"video": "a.mp4", "prompt": "x", "meta": "m"}', "meta must be"),
        ('{"video": "a.mp4", "prompt": "x", "frames": 0}', "frames is 0"),
        ('{"video": "a.mp4", "prompt": "x", "size": false}', "size is false"),
        ('{"video": "a.mp4", "prompt": "x", "source_prompt": []}', "source_prompt is []"),
        ('{"video": "a.mp4", "prompt": "x", "meta": []}', "meta must be"),
        ('{"video": "a.mp4", "prompt": "x", "id": false}', "id is false"),
        ('{"video": "a", "prompt": "x", "fps": "12"}', 'fps is "12"; write a number above 0, as 24'),
        ('{"video": "a", "prompt": "x", "fps": 0}', "fps is 0"),
        ('{"video": "a", "prompt": "x", "fps": NaN}', "fps is NaN"),
    ],
)
def test_values_of_another_kind_are_told_with_their_line(line: str, names: str, tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"video": "b.mp4", "prompt": "x", "frames": null}\n' + line)
    with pytest.raises(AdaFlowError, match="line 2") as problem:
        read_manifest(str(tmp_path / "m.jsonl"))
    assert names in str(problem.value)


def test_an_empty_manifest_is_told(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text("\n")
    with pytest.raises(AdaFlowError, match="no clip"):
        read_manifest(str(tmp_path / "m.jsonl"))
    assert Clip("a", "a.mp4", {"0": "x"}).location == "a.mp4"
