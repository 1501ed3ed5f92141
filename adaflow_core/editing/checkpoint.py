"""The state of an edit after each step, so that a process that dies loses one step.

The state between two steps is the latents alone: keyframes follow from the seed and the step, and what attention layers
keep lives within a step.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adaflow_core.model.memory import BLOCK, Sent, to_device
from adaflow_core.progress import THREADS
from adaflow_core.team.team import ALONE, Team
from adaflow_core.types import EditLayout

_DIGEST = 16  # bytes


class Checkpoint:
    """One file, replaced as a whole after every step. A damaged one counts as none.

    Latents on a GPU are written in a thread while the next step runs; the GPU would have to wait otherwise.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""  # why nothing can be written; the edit then goes on without checkpoints
        self._writer = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def load(self, latents: Tensor) -> int:
        """Reads the latents into `latents` [T, 4, h, w] float32; returns the number of finished steps, 0 if none is."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                meta = json.loads(archive.read("meta.json"))
                if meta["shape"] != list(latents.shape):
                    return 0
                with archive.open("latents") as stored:  # reading to its end checks the archive's checksum
                    for part in latents.split(BLOCK):
                        rows = np.frombuffer(stored.read(part.numel() * 4), np.float32).reshape(part.shape)
                        part.copy_(to_device(rows, part.device))
                    stored.read()
                return int(meta["done"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile):
            return 0  # a damaged archive can look encrypted, or packed in a way that nobody knows: RuntimeError

    def save(self, done: int, latents: Tensor, check: Callable[[], None] | None = None) -> None:
        """Saves the `latents` [T, 4, h, w] after `done` steps.

        `check` is called before anything is written, and may raise; for latents on a GPU its error is raised by the
        next `save` or by `finish`.
        """
        self.finish()
        sent = Sent(latents, check)

        def write() -> None:
            self._write(done, torch.from_numpy(sent.array()))

        if latents.device.type == "cpu":
            write()
        else:
            self._last = self._writer.submit(write)

    def finish(self) -> None:
        """Waits until the last save is written."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def _write(self, done: int, latents: Tensor) -> None:
        if self.problem:
            return
        part = self.path.with_suffix(f".{os.getpid()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                with zipfile.ZipFile(file, "w") as archive:
                    archive.writestr("meta.json", json.dumps({"done": done, "shape": list(latents.shape)}))
                    with archive.open("latents", "w", force_zip64=True) as stored:
                        for rows in latents.split(BLOCK):
                            stored.write(rows.cpu().contiguous().numpy().data)
                file.flush()
                os.fsync(file.fileno())  # the name must not be on disk before what it names
            part.replace(self.path)
        except OSError as problem:
            self.problem = problem.strerror or str(problem)
            with suppress(OSError):
                part.unlink()


def frames_digest(frames: np.ndarray, team: Team = ALONE) -> str:
    """A digest of edited frames [T, H, W, 3] uint8, independent of how a file encodes them.

    It is made of a digest of each frame, which the processes of the `team` compute for a part each.
    """
    own = np.asarray(frames)[team.own(len(frames))]  # a slice of a memory map takes far longer to make

    def of_some(part: np.ndarray) -> bytes:
        some = (hashlib.blake2b(np.ascontiguousarray(frame).data, digest_size=_DIGEST).digest() for frame in part)
        return b"".join(some)

    with ThreadPoolExecutor(THREADS) as threads:  # a second for 1,000 frames of 672x384, if one after another
        digests = b"".join(threads.map(of_some, np.array_split(own, THREADS)))
    found = torch.frombuffer(bytearray(digests), dtype=torch.uint8) if digests else torch.empty(0, dtype=torch.uint8)
    everyones = team.gather(found.view(-1, _DIGEST), len(frames))
    return hashlib.blake2b(everyones.numpy().tobytes(), digest_size=_DIGEST).hexdigest()


def layout_digest(layout: EditLayout) -> str:
    """A digest of a layout's content, which need not follow from the settings alone."""
    digest = hashlib.blake2b(layout.keyframes.tobytes(), digest_size=16)
    for grid, part in sorted((layout.slimming or {}).items()):
        digest.update(repr((grid, part.num_sampled, part.sample_weight)).encode())
        digest.update(np.ascontiguousarray(part.kept).data)
    correspondence = layout.correspondence
    digest.update(correspondence.slots.tobytes())
    for grid in sorted(correspondence.index):
        for array in (correspondence.index[grid], correspondence.weights[grid]):
            digest.update(repr(grid).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
