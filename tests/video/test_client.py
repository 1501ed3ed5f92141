"""The process that reads: whatever it does, its parent goes on. The bad process is a script in Python's place."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.progress import Monitor
from adaflow_core.video import client, worker
from adaflow_core.video.client import Decoder
from adaflow_core.video.decode import decode_video, probe
from adaflow_core.video.write import write_video
from helpers.films import film, make
from helpers.videos import fuzz

ROOT = Path(__file__).resolve().parents[2]
posix = pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for the process")
Bad = Callable[[str], None]
READY = """echo '{"alive": true, "bytes": 0}'"""
INFO = (
    """echo '{"width": 64, "height": 64, "fps": "24", "frames": 3, "seconds": 1, "codec": "h264", "rotation": 0,"""
    + (""" "has_audio": false, "notes": [], "transfer": 1, "pixels": "yuv420p", "bytes": 0}'""")
)


@pytest.fixture
def bad(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bad:
    """Puts a shell script in the place of the process."""

    def install(script: str) -> None:
        path = tmp_path / "process.sh"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(path))

    return install


@posix
@pytest.mark.parametrize(
    ("script", "part"),
    [
        ("exit 3", "does not start"),
        (f"{READY}; kill -SEGV $$", "damaged beyond reading"),
        (f"{READY}; kill -ABRT $$", "damaged beyond reading"),
        (f"{READY}; exit 0", "damaged beyond reading"),
        (f"{READY}; echo", "damaged beyond reading"),
        (f"{READY}; head -c 300000 /dev/zero", "damaged beyond reading"),
        (f"{READY}; echo '[]'", "damaged beyond reading"),
        (f"{READY}; echo '{{}}'", "damaged beyond reading"),
        (f"{READY}; {INFO.replace('64', '-1')}", "makes no sense"),
        (f"{READY}; {INFO.replace('64', '9999999')}", "makes no sense"),
        (f"{READY}; {INFO.replace('24', '0')}", "makes no sense"),
        (f"{READY}; {INFO.replace('24', '1/0')}", "damaged beyond reading"),
        (f"{READY}; {INFO.replace('3,', '0,')}", "makes no sense"),
        (f'{READY}; {INFO}; echo \'{{"frame": true, "bytes": 5}}\'; echo 12345', "damaged beyond reading"),
        (
            f'{READY}; {INFO}; echo \'{{"frame": true, "bytes": 12288}}\'; head -c 99 /dev/zero',
            "damaged beyond reading",
        ),
        (f"{READY}; sleep 60", "gave no frame"),
        ("trap '' INT TERM HUP; while true; do :; done", "gave no frame"),
    ],
)
def test_the_parent_survives(script: str, part: str, bad: Bad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "a.mp4", 3)
    monkeypatch.setattr(client, "STALL", 1.0)
    bad(script)
    begun = time.monotonic()
    with pytest.raises(AdaFlowError, match=part):
        decode_video(path, size=(64, 64), out=tmp_path / "frames.npy")
    assert time.monotonic() - begun < 30
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mp4", "process.sh"]


@posix
def test_a_process_that_hangs_can_be_stopped(bad: Bad, tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", 3)
    bad(f"{READY}; sleep 60")
    begun = time.monotonic()
    with pytest.raises(Stopped):
        decode_video(path, size=(64, 64), monitor=Monitor(stop=lambda: time.monotonic() - begun > 0.5))
    assert time.monotonic() - begun < 30


@posix
def test_an_edit_is_not_lost_over_sound_that_breaks_the_process(bad: Bad, tmp_path: Path) -> None:
    source = make(tmp_path / "a.mp4", 3, audio="aac")
    executable = sys.executable
    bad(f"{READY}; kill -SEGV $$")
    with pytest.warns(UserWarning, match="written without the sound of a.mp4"):
        path = write_video(tmp_path / "b.mp4", film(3), Fraction(24), audio_from=source)
    sys.executable = executable
    assert probe(path).frames == 3 and not probe(path).has_audio


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", 3)
    script = (
        "import sys, time; from pathlib import Path; from adaflow_core.video.client import Decoder\n"
        "with Decoder(Path(sys.argv[1])) as decoder:\n"
        "    decoder.probe(); print(decoder._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(path)], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 30
    while _runs(child):
        assert time.monotonic() < deadline, "the process outlived its parent"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")
    except ProcessLookupError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limits are Linux's")
def test_the_limits_hold(tmp_path: Path) -> None:
    script = f"""
from adaflow_core.video.worker import limit_process
limit_process(may_write=False)
for name, work in {{
    "memory": lambda: bytearray({worker.MEMORY_BYTES}),
    "file": lambda: open({str(tmp_path / "x")!r}, "wb", 0).write(b"x"),
    "files": lambda: [open("/dev/null") for _ in range(99)],
}}.items():
    try:
        work()
    except (MemoryError, OSError):
        print(name)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["memory", "file", "files"]


def test_the_process_is_told_no_secrets_and_imports_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert "HF_TOKEN" not in client._environment()
    script = "import sys; from adaflow_core.video import audio, reader, worker; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_one_process_answers_several_questions(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", 12)
    with Decoder(path) as decoder:
        assert decoder.probe().frames == 12
        first = [picture for *_, picture in decoder.frames((96, 64), 2, 3)]
        second = [picture for *_, picture in decoder.frames((96, 64), 2, 30)]
        numbers = [number for number, _ in decoder.thumbnails(3, (96, 64))]
    assert len(first) == 3 and len(second) == 10 and np.array_equal(first, second[:3]) and numbers == [0, 6, 11]
    assert decoder._process.returncode in (-signal.SIGKILL, 1)


def test_mutated_videos_neither_crash_nor_hang_the_parent(tmp_path: Path) -> None:
    figures = fuzz.damaged(15, seed=0, folder=tmp_path)
    assert figures.cases == 15 and not figures.failures, figures.failures
    assert figures.read and figures.refused, "the mutations all do the same"


@pytest.mark.slow
@pytest.mark.skipif("ADAFLOW_FUZZ" not in os.environ, reason="500 videos take minutes; set ADAFLOW_FUZZ=500")
def test_many_mutated_videos(tmp_path: Path) -> None:
    figures = fuzz.damaged(int(os.environ["ADAFLOW_FUZZ"]), seed=1, folder=tmp_path)
    assert not figures.failures, figures.failures


def test_each_thumbnail_is_a_sign_of_life(tmp_path: Path) -> None:
    class Counting(worker.Answers):
        count = 0

        def alive(self) -> bool:
            self.count += 1
            return super().alive()

    answers = Counting(io.BytesIO())
    source = worker.Source(make(tmp_path / "a.mp4", 48, options={"bf": "0", "g": "12"}), answers)
    assert source.info.codec == "h264"
    answers.count = 0
    assert (found := source._decord(48, [96, 64])) is None or (len(found) == 48 and answers.count > 48)
