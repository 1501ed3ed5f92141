"""Small videos with seeded damage, through the whole path of reading: `python tests/helpers/videos/fuzz.py damage 500`.

Nothing may come of a file but frames or one sentence; how the process that reads it ends is its own affair. And valid
ones of random structure (`fuzz.py structure 300`): a right result or one sentence.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[n]) for n in (2, 3)]

from adaflow_core.errors import AdaFlowError
from adaflow_core.video.decode import decode_video, thumbnails
from adaflow_core.video.write import write_video
from helpers.films import make
from helpers.videos.flashes import Structure
from helpers.videos.measured import faults

SECONDS = 45.0  # longer than a process may be silent
KINDS = {  # name, codec, options
    "a.mp4": ("libx264", {"audio": "aac"}),
    "b.mkv": ("libx264", {"audio": "aac"}),
    "c.webm": ("libvpx-vp9", {"options": {"deadline": "realtime", "cpu-used": "8"}}),
    "d.gif": ("gif", {"pixels": "rgb8", "rate": Fraction(20)}),
    "e.avi": ("mpeg4", {"options": {"b": "1000000"}}),
    "f.ts": ("libx264", {}),
    "g.mov": ("prores_ks", {"pixels": "yuv422p10le"}),
    "h.mp4": ("libx265", {"options": {"preset": "ultrafast", "x265-params": "log-level=none"}}),
    "i.mp4": ("libsvtav1", {"options": {"preset": "12"}}),
}


@dataclass
class Figures:
    """What came of the files."""

    cases: int = 0
    read: int = 0  # frames came
    refused: int = 0  # a sentence came
    broken: int = 0  # of those: the process ended without an answer
    slowest: float = 0.0  # seconds
    seconds: float = 0.0
    sentences: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)  # anything else


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three kinds of damage, half of them where headers and tables lie."""
    content = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        size = len(content)
        low, high = [(0, size), (0, min(size, 2048)), (max(0, size - 2048), size)][rng.choice(3, p=[0.5, 0.25, 0.25])]
        at = int(rng.integers(low, high))
        length = int(rng.integers(1, min(512, size - at) + 1))
        kind = rng.integers(6)
        if kind == 0:  # single bytes
            for place in rng.integers(low, high, rng.integers(1, 40)):
                content[place] = rng.integers(256)
        elif kind == 1:  # a field at its extreme
            content[at : at + 4] = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1"][rng.integers(4)]
        elif kind == 2:
            content[at : at + length] = bytes(length)
        elif kind == 3:  # a piece too many
            content[at:at] = content[at : at + length]
        elif kind == 4:  # a piece too few
            del content[at : at + length]
        elif size > 64:
            del content[int(rng.integers(32, size)) :]
    return bytes(content)


def damaged(count: int, seed: int, folder: Path) -> Figures:
    """`count` mutated videos of all kinds."""
    kinds = {name: kind for name, kind in KINDS.items() if kind[0] in av.codecs_available}
    wholes = [
        make(folder / name, 12, codec, size=(96, 64), **options).read_bytes()
        for name, (codec, options) in kinds.items()
    ]
    names = list(kinds)

    def case(number: int) -> tuple[str, str, float]:
        rng = np.random.default_rng([seed, number])
        name = names[number % len(names)]
        path = folder / f"{number}-{name}"
        path.write_bytes(mutated(wholes[number % len(names)], rng))
        start = time.monotonic()
        try:
            video = decode_video(path, size=(64, 64), out=folder / f"{number}.npy")
            assert video.frames.shape[1:] == (64, 64, 3)
            if number % 4 == 0:
                thumbnails(path, 3)
            if number % 4 == 1:
                write_video(folder / f"{number}.mp4", video.frames, video.fps, audio_from=path)
            end = "read", ""
        except AdaFlowError as problem:
            end = "refused", str(problem).replace(str(path), "FILE")
        except Exception as problem:
            end = "failed", f"{path.name}: {problem!r}"
        path.unlink()
        return *end, time.monotonic() - start

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sound that cannot be read
        return _figures(case, count)


def structured(count: int, seed: int, folder: Path) -> Figures:
    """`count` valid videos of random structure."""

    def case(number: int) -> tuple[str, str, float]:
        start, place = time.monotonic(), folder / str(number)
        place.mkdir()
        structure = Structure.drawn(np.random.default_rng([seed, number]))
        try:
            found = faults(structure, place / "film")
            end = ("failed", f"{number}: {', '.join(found)}") if found else ("read", "")
        except AdaFlowError as problem:
            end = "refused", re.sub(r"\S*film\.\w+", "FILE", str(problem))
        except Exception as problem:
            end = "failed", f"{number}: {problem!r}"
        shutil.rmtree(place)
        return *end, time.monotonic() - start

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return _figures(case, count)


def _figures(case: Callable[[int], tuple[str, str, float]], count: int, threads: int = 2) -> Figures:
    figures, begun = Figures(), time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        for end, sentence, seconds in pool.map(case, range(count)):
            figures.cases += 1
            figures.read += end == "read"
            figures.refused += end == "refused"
            figures.broken += "beyond reading" in sentence or "gave no frame" in sentence
            figures.slowest = max(figures.slowest, seconds)
            if end == "refused":
                figures.sentences[sentence] += 1
            if end == "failed" or "\n" in sentence or seconds > SECONDS:
                figures.failures.append(f"{sentence} ({seconds:.1f} s)")
    figures.seconds = time.monotonic() - begun
    return figures


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        run = {"damage": damaged, "structure": structured}[sys.argv[1]]
        print(json.dumps(vars(run(int(sys.argv[2]), seed=1, folder=Path(place))), indent=1))
