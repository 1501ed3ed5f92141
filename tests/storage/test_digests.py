"""How files are recorded: a folder of pictures by these alone, a link as it is called."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from adaflow_core.storage.digests import content_digest, quick_digest, relative_path


def test_a_folder_is_named_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"1")
    before = quick_digest(tmp_path)
    assert quick_digest(tmp_path) == before
    (tmp_path / "1.png").write_bytes(b"12")
    assert quick_digest(tmp_path) != before


def test_what_is_no_picture_in_a_folder_is_not_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"1")
    before = quick_digest(tmp_path), content_digest(tmp_path)
    for name in (".DS_Store", "._1.png", "Thumbs.db", "film.json"):
        (tmp_path / name).write_bytes(b"left there")
    (tmp_path / "folder.png").mkdir()
    assert (quick_digest(tmp_path), content_digest(tmp_path)) == before
    (tmp_path / "2.JPG").write_bytes(b"2")
    assert quick_digest(tmp_path) != before[0] and content_digest(tmp_path) != before[1]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows lets few users make links")
def test_a_link_is_named_as_it_is_called(tmp_path: Path) -> None:
    for name in ("blobs", "clips", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "blobs" / "0a1b").write_bytes(b"a clip")
    (tmp_path / "clips" / "ball.mp4").symlink_to(tmp_path / "blobs" / "0a1b")
    (tmp_path / "other").symlink_to(tmp_path / "clips")
    for folder in ("clips", "other"):
        assert relative_path(tmp_path / folder / "ball.mp4", tmp_path / "work") == "../clips/ball.mp4"
