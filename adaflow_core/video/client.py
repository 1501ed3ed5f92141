"""Opens untrusted files in a process with limits; this is the parent's side of `worker`.

Whatever the file does to that process, the parent gets frames of the size it asked for or raises `AdaFlowError`.
"""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.progress import Monitor
from adaflow_core.video.coded.remedies import CONVERT
from adaflow_core.video.types import LIGHT, VideoInfo

STALL = 30.0  # seconds without a sign of life after which a process is ended; it gives one twice a second
_LOOK = 0.1  # seconds between two looks at the clock and the stop signal
_LINE = 2**16  # bytes of the longest header
_SIDE = 2**16  # pixels
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What a process needs of the environment; keys and tokens are not among it.
_KEPT = (
    "PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME", "PYTHONUTF8",
    "SYSTEMROOT", "TEMP", "TMP", "TMPDIR",
)  # fmt: skip


def check_source(path: Path) -> None:
    """Raise AdaFlowError for a path that cannot be opened."""
    try:
        if not path.exists():
            raise AdaFlowError(f"{path} does not exist; check the path")
        if not (path.is_file() or path.is_dir()):
            raise AdaFlowError(f"{path} is a pipe or a device; name a video file or a folder of pictures")
        if not os.access(path, os.R_OK):
            raise AdaFlowError(f"{path} may not be read; change its permissions")
        if path.is_file() and not path.stat().st_size:
            raise AdaFlowError(f"{path} is empty; copy or download it again")
    except (OSError, ValueError) as error:  # a name that is too long, a folder that may not be entered, "\0"
        reason = getattr(error, "strerror", None) or error
        raise AdaFlowError(f"{str(path)[:200]!r} cannot be opened ({reason}); check the path") from error


class Decoded(NamedTuple):
    """A frame of a file."""

    number: int  # in the file
    time: float | None  # seconds after the file's first frame at which it is shown; None: not known
    duration: float | None  # seconds
    picture: np.ndarray  # [h, w, 3] uint8


class Decoder:
    """The process of one file, a context manager; `monitor`'s stop signal ends it within a fraction of a second."""

    def __init__(self, path: Path, monitor: Monitor | None = None, *, may_write: bool = False) -> None:
        check_source(path)
        self.path, self._monitor, self._may_write = path, monitor or Monitor(), may_write

    def __enter__(self) -> Decoder:
        # -B: where a file may not grow, Python leaves a broken .pyc behind, with which no later process starts.
        command = [sys.executable, "-P", "-B", "-m", "adaflow_core.video.worker", str(self.path)]
        self._process = subprocess.Popen(
            [*command, "write" if self._may_write else "read"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,  # Ctrl-C in a terminal is for the parent
        )
        self._watch = _Watch(self._process, self._monitor)
        self._watch.start()
        self._started = False  # whether it has answered
        return self

    def __exit__(self, *exc: object) -> None:
        self._watch.ended.set()
        self._watch.join()
        _end(self._process)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def probe(self) -> VideoInfo:
        """What is in the file."""
        self._ask("probe")
        answer, _ = self._answer()
        try:
            whole = ("width", "height", "frames", "rotation", "transfer")
            width, height, frames, rotation, transfer = (int(answer[key]) for key in whole)
            fps, seconds = Fraction(answer["fps"]), float(answer["seconds"])
            codec, pixels = str(answer["codec"]), str(answer["pixels"])
            audio, notes = bool(answer["has_audio"]), tuple(map(str, answer["notes"]))
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            raise self._broken() from None
        if not (0 < width <= _SIDE and 0 < height <= _SIDE and fps > 0 and frames > 0 and math.isfinite(seconds)):
            raise AdaFlowError(f"the header of {self.path} makes no sense; choose another file or {CONVERT}")
        return VideoInfo(
            self.path, width, height, fps, frames, seconds, codec, rotation, audio, notes, transfer, pixels
        )

    def frames(
        self, size: tuple[int, int], begin: int, count: int, *, whole: bool = False, ground: int = LIGHT
    ) -> Iterator[Decoded]:
        """The frames `begin` to `begin + count` - 1 that can be read, upright, at `size` (width, height).

        `whole`: AdaFlowError where one of them cannot be read, which otherwise is left out. `ground`: the level of
        0..255 over which transparent ones are laid.
        """
        self._ask("frames", size=size, begin=begin, count=count, whole=whole, ground=ground)
        read, last = 0, begin - 1
        for answer, picture in self._pictures(size, count):
            number = answer.get("number")
            if not isinstance(number, int) or not max(begin, last) <= number < begin + count:
                raise self._broken()
            read, last = read + 1, number
            time, duration = (
                value if isinstance(value := answer.get(name), float) and math.isfinite(value) else None
                for name in ("time", "duration")
            )
            yield Decoded(number, time, duration, picture)
        if whole and read < count:
            raise AdaFlowError(f"{self.path.name} is damaged: its frame {begin + read} cannot be read; export it again")

    def thumbnails(self, count: int, size: tuple[int, int]) -> Iterator[tuple[int, np.ndarray]]:
        """Up to `count` small frames [h, w, 3] spread evenly over the file, with their numbers."""
        self._ask("thumbnails", count=count, size=size)
        for answer, picture in self._pictures(size, count):
            number = answer.get("number")
            if not isinstance(number, int):
                raise self._broken()
            yield number, picture

    def add_sound(self, video: Path, out: Path, begin: Fraction, length: Fraction) -> bool:
        """Writes `video` with the file's sound to `out`; False if it has none, AdaFlowError if that cannot be read.

        `begin` and `length` in seconds; `begin` counts from the file's first frame.
        """
        self._ask("sound", video=str(video), out=str(out), begin=str(begin), length=str(length))
        answer, _ = self._answer()
        if "failed" in answer:
            if answer.get("errno") in _FULL:
                raise OSError(answer["errno"], os.strerror(answer["errno"]))
            raise AdaFlowError(str(answer["failed"]))
        return answer.get("added") is True

    def _pictures(self, size: tuple[int, int], count: int) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        shape = (size[1], size[0], 3)
        for _ in range(count + 1):  # and the answer that says that there are no more
            answer, data = self._answer(math.prod(shape))
            if not answer.get("frame"):
                return
            yield answer, np.frombuffer(data, np.uint8).reshape(shape)
        raise self._broken()

    def _ask(self, what: str, **details: Any) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # it is gone: its answers tell
            self._process.stdin.write(json.dumps({"ask": what} | details).encode() + b"\n")
            self._process.stdin.flush()

    def _answer(self, size: int = 0) -> tuple[dict[str, Any], bytes]:
        """The next answer that is more than a sign of life, and its data: none, or `size` bytes."""
        assert self._process.stdout is not None
        while True:
            self._monitor.check()
            self._watch.late_at = time.monotonic() + STALL
            try:
                answer = json.loads(self._process.stdout.readline(_LINE))
                expected = size if answer.get("frame") else 0
                data = self._process.stdout.read(expected)
                if answer["bytes"] != expected or len(data) != expected:
                    raise ValueError
            except (ValueError, KeyError, TypeError, AttributeError):  # cut off, or not what was agreed on
                raise self._broken() from None
            finally:
                self._watch.late_at = math.inf
            self._started = True
            if "error" in answer:
                raise AdaFlowError(str(answer["error"]))
            if not answer.get("alive"):
                return answer, data

    def _broken(self) -> AdaFlowError:
        """What the user is told when the process ended, or was ended, without an answer."""
        self._monitor.check()
        if self._watch.late:
            return AdaFlowError(f"{self.path} gave no frame for {STALL:g} s; choose another file or {CONVERT}")
        if not self._started:
            return AdaFlowError(
                "the process that reads videos does not start; see what `python -m adaflow_core.video.worker FILE` says"
            )
        return AdaFlowError(f"{self.path} is damaged beyond reading; choose another file or {CONVERT}")


class _Watch(threading.Thread):
    """Ends the process when it is late or a stop is asked for; the parent then reads the end of its answers."""

    def __init__(self, process: subprocess.Popen[bytes], monitor: Monitor) -> None:
        super().__init__(name="decoder-watch", daemon=True)
        self._process, self._monitor = process, monitor
        self.late_at, self.late = math.inf, False
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(_LOOK):
            self.late = time.monotonic() > self.late_at
            if self.late or self._stopped():
                _end(self._process)
                return

    def _stopped(self) -> bool:
        try:
            self._monitor.check()
        except Stopped:
            return True
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that has not been waited for, with what it may have started: that could hold its pipes."""
    if sys.platform == "win32":
        process.kill()
    elif process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _environment() -> dict[str, str]:
    """What the process needs to import what the parent imports, from the same places."""
    package = str(Path(__file__).resolve().parents[2])
    places = os.pathsep.join([package, *filter(None, sys.path)])
    # One thread for sums that are not done; few arenas, each of which takes addresses from the limit.
    fixed = {"PYTHONPATH": places, "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    return {name: os.environ[name] for name in _KEPT if name in os.environ} | fixed
