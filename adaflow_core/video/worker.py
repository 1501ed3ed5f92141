"""The process that opens an untrusted file: `python -m adaflow_core.video.worker FILE read|write`, started by `client`.

Requests are lines of JSON on stdin, answers lines of JSON on stdout, each with the number of `bytes` that follow it.
The process limits itself first, ends with its parent, and imports no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from fractions import Fraction
from functools import cached_property
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from adaflow_core.errors import AdaFlowError
from adaflow_core.progress import Monitor
from adaflow_core.video.types import VideoInfo

_ALIVE = 0.5  # seconds between two signs of life
MEMORY_BYTES = 4 * 2**30  # of addresses; 8K 10-bit HEVC was seen to take 1.4 GiB of them with eight threads


class Answers:
    """Writes answers to the parent."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._sent_at = out, time.monotonic()

    def send(self, payload: Any = b"", **header: Any) -> None:
        self._out.write(json.dumps(header | {"bytes": memoryview(payload).nbytes}).encode() + b"\n")
        self._out.write(payload)
        self._out.flush()
        self._sent_at = time.monotonic()

    def alive(self) -> bool:
        """The stop signal of every loop here: never stops, but tells the parent that the loop goes on."""
        if time.monotonic() - self._sent_at > _ALIVE:
            self.send(alive=True)
        return False


class Source:
    """A file or a folder of pictures; its public methods are the requests."""

    def __init__(self, path: Path, answers: Answers) -> None:
        self.path, self.answers, self.monitor = path, answers, Monitor(stop=answers.alive)
        self._of_pictures = path.is_dir() or _is_webp(path)
        names = ("images", "images") if self._of_pictures else ("coded.index", "reader")
        self._indexer, self._reader = (import_module(f"adaflow_core.video.{name}") for name in names)

    @cached_property
    def index(self) -> Any:
        return self._indexer.index_of(self.path, self.monitor)

    @cached_property
    def info(self) -> VideoInfo:
        return self._reader.probe(self.path, self.index, self.monitor)

    def probe(self) -> None:
        info = self.info
        self.answers.send(
            width=info.width, height=info.height, fps=str(info.fps), frames=info.frames, seconds=info.seconds,
            codec=info.codec, rotation=info.rotation, has_audio=info.has_audio, notes=info.notes,
            transfer=info.transfer, pixels=info.pixels,
        )  # fmt: skip

    def frames(self, size: list[int], begin: int, count: int, whole: bool, ground: int) -> None:
        """Those of `count` frames [h, w, 3] from number `begin` on that can be decoded, then an answer without one.

        With each its number, time and duration. `whole`: none from the first on that cannot be decoded. `ground`: the
        level under transparent ones.
        """
        from av.video.reformatter import VideoReformatter

        from adaflow_core.video.pixels import upright_rgb
        from adaflow_core.video.reader import progressive

        scaler, width, height = VideoReformatter(), *size
        laid = {"ground": ground} if self._of_pictures else {}  # frames of a video stay transparent until `upright_rgb`
        with closing(self._reader.frames_from(self.path, self.index, begin, self.monitor, **laid)) as source:
            number = begin - 1
            for frame in islice(progressive(source), count):
                before, number = number, self.index.number_of(frame, number + 1)
                if number >= begin + count or (whole and number > before + 1):
                    break
                picture = upright_rgb(frame, (width, height), scaler, ground)
                time = None if frame.time is None else frame.time - self.index.first
                duration = self.index.seconds_of(frame)
                self.answers.send(picture.tobytes(), frame=True, number=number, time=time, duration=duration)
        self.answers.send(frame=False)

    def thumbnails(self, count: int, size: list[int]) -> None:
        """`count` small frames spread evenly, each with its number, then an answer without one."""
        for number, picture in self._decord(count, size) or self._scattered(count, size):
            self.answers.send(picture.tobytes(), frame=True, number=number)
        self.answers.send(frame=False)

    def _decord(self, count: int, size: list[int]) -> list[tuple[int, Any]] | None:
        # decord knows no AV1, display matrix, HDR or primaries, and its reader must stay in one thread: made, used and
        # dropped here. In transport and program streams, AVI, ASF and MXF it gives frames that are up to a second off.
        if self.info.codec != "h264" or self.index.container not in ("mov", "matroska", "flv"):
            return None
        try:
            import decord

            from adaflow_core.video.pixels import BT709, orientation, primaries_of
            from adaflow_core.video.reader import notes_on_colours

            with closing(self._reader.frames_from(self.path, self.index, 0, self.monitor)) as source:
                first = next(source)
                if any(orientation(first)) or primaries_of(first) != BT709 or notes_on_colours("", first):
                    return None
            reader = decord.VideoReader(str(self.path.resolve()), width=size[0], height=size[1])
            if len(reader) != self.index.length:  # it counts frames that cannot be decoded
                return None
            pictures = []
            for number in spread(len(reader), count):
                self.monitor.check()  # one by one: together those of a large film take longer than a sign of life may
                pictures.append((number, reader.get_batch([number]).asnumpy()[0]))
            return pictures
        except Exception:  # no wheel for this machine, or an error of its own kind: PyAV reads it all the same
            return None

    def _scattered(self, count: int, size: list[int]) -> Iterator[tuple[int, Any]]:
        from av.video.reformatter import VideoReformatter

        from adaflow_core.video.pixels import upright_rgb

        scaler, width, height, index = VideoReformatter(), *size, self.index.by_stamps()
        with ExitStack() as readers:
            at = -1  # the last frame that was read
            source: Iterator[Any] = iter(())
            for number in spread(index.length, count):
                if number <= at:  # it cannot be decoded: the one after it was shown
                    continue
                if at < 0 or index.key_within(at + 1, number):  # else it is as quick to read on
                    readers.close()
                    frames = self._reader.frames_from(self.path, index, number, self.monitor)
                    source, at = readers.enter_context(closing(frames)), number - 1
                for frame in source:
                    at = index.number_of(frame, at + 1)
                    if at >= number:
                        yield at, upright_rgb(frame, (width, height), scaler)
                        break
                else:
                    return  # the file ends before its index does

    def sound(self, video: str, out: str, begin: str, length: str) -> None:
        """Writes `video` with this file's sound from `begin` seconds after its first frame on to `out`."""
        from adaflow_core.video.audio import add_sound

        if not self.info.has_audio:
            return self.answers.send(added=False)
        start, seconds = Fraction(begin), Fraction(length)
        if start + seconds > self.info.seconds - 0.5 / self.info.fps:  # to the end: with sound that goes on longer
            seconds = Fraction(10**6)
        start += Fraction(self.index.first)
        try:
            if not add_sound(Path(video), self.path, Path(out), start, seconds, self.monitor):
                raise AdaFlowError("no sound of these frames can be read")
        except Exception as problem:
            self.answers.send(failed=str(problem), errno=getattr(problem, "errno", None))
        else:
            self.answers.send(added=True)


def _is_webp(path: Path) -> bool:
    """FFmpeg reads a WebP as a still picture only."""
    with path.open("rb") as file:
        start = file.read(12)
    return start[:4] == b"RIFF" and start[8:] == b"WEBP"


def spread(length: int, count: int) -> list[int]:
    """Up to `count` different numbers spread evenly over range(length)."""
    if count < 2 or length < 2:
        return [0]
    return sorted({round(i * (length - 1) / (count - 1)) for i in range(count)})


def _requests() -> Iterator[dict[str, Any]]:
    """Requests as they come; when stdin closes the parent is gone, and this process exits, whatever it is doing."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        yield json.loads(lines.get())


def main(path: str, may_write: bool) -> None:
    limit_process(may_write)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    # Libraries that print must not print into the answers.
    answers = Answers(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    answers.send(alive=True)  # what fails from here on fails because of the file
    source: Source | None = None
    for request in _requests():
        try:
            source = source or Source(Path(path), answers)
            ask: Callable[..., None] = getattr(source, request.pop("ask"))
            ask(**request)
        except AdaFlowError as problem:
            answers.send(error=str(problem))
        except MemoryError:
            answers.send(error=f"{path} needs more memory to decode than is allowed; scale it down first")


def limit_process(may_write: bool) -> None:
    """Limits memory, files and core dumps where the platform can; elsewhere only the parent's timeout does."""
    if sys.platform == "win32":
        return
    import resource

    wanted = {resource.RLIMIT_AS: MEMORY_BYTES, resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: 64}
    if not may_write:
        wanted[resource.RLIMIT_FSIZE] = 0  # pipes are no files in this respect
    for kind, most in wanted.items():
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS knows RLIMIT_AS and refuses it
            resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2] == "write")
    except BrokenPipeError:  # the parent wants no more
        pass
    except Exception:
        traceback.print_exc()
    os._exit(1)  # the usual way aborts over the thread that listens
