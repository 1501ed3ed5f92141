"""Folders that last as long as the page: what a killed one left is deleted, and nothing of others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from webui.serving.folders import own_folder

ROOT = Path(__file__).resolve().parents[3]
_HELD = """
import sys, time
from pathlib import Path
from webui.serving.folders import own_folder
with own_folder(Path(sys.argv[1])) as folder:
    (folder / "upload.mp4").write_bytes(b"a stranger's")
    print(folder, flush=True)
    time.sleep(60)
"""


def age(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (1e9, 1e9))


@pytest.mark.skipif(sys.platform == "win32", reason="it is killed by a signal")
def test_what_a_killed_page_left_goes_as_the_next_one_starts(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HELD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as page:
        assert page.stdout is not None
        left = Path(page.stdout.readline().strip())
        age(left)
        with own_folder(tmp_path):
            assert (left / "upload.mp4").exists(), "its page still runs"
        page.send_signal(signal.SIGKILL)
        page.wait()
        assert (left / "upload.mp4").exists()
        with own_folder(tmp_path) as folder:
            assert list(tmp_path.iterdir()) == [folder]
    assert list(tmp_path.iterdir()) == []


def test_what_belongs_to_others_stays(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"x")
    for name in ("adaflow-team-abc", "adaflow-batch-abc", "someone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".page.lock").touch()
    (tmp_path / "adaflow-link").symlink_to(tmp_path / "elsewhere")
    age(tmp_path)
    (tmp_path / "adaflow-new").mkdir()
    (tmp_path / "adaflow-new" / ".page.lock").touch()  # of a page that is just about to hold it
    before = sorted(tmp_path.rglob("*"))
    with own_folder(tmp_path):
        pass
    assert sorted(tmp_path.rglob("*")) == before
