"""The state of an edit after each of its steps, so that a process that dies loses the step in hand and no more.

An edit's state between two steps is its latents alone: keyframes are drawn from the seed and the step, and what the
attention layers keep lives within a step.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
from torch import Tensor

from adaflow_core.model.memory import BLOCK, to_device
from adaflow_core.types import EditLayout


class Checkpoint:
    """One file, replaced as a whole after every step. A damaged one counts as none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""  # why nothing can be written; the edit goes on without

    def load(self, latents: Tensor) -> int:
        """How many steps were finished; `latents` [T, 4, h, w] float32 then are as after them. 0: none, or damaged."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                told = json.loads(archive.read("meta.json"))
                if told["shape"] != list(latents.shape):
                    return 0
                with archive.open("latents") as stored:  # reading to its end checks the archive's checksum
                    for part in latents.split(BLOCK):
                        rows = np.frombuffer(stored.read(part.numel() * 4), np.float32).reshape(part.shape)
                        part.copy_(to_device(rows, part.device))
                    stored.read()
                return int(told["done"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile):
            return 0  # a damaged archive can look encrypted, or packed in a way that nobody knows: RuntimeError

    def save(self, done: int, latents: Tensor) -> None:
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

    def remove(self) -> None:
        with suppress(OSError):
            self.path.unlink()


def frames_digest(frames: np.ndarray) -> str:
    """Names edited frames [T, H, W, 3] uint8 by their content: equal runs give equal names, whatever encodes them."""
    digest = hashlib.blake2b(digest_size=16)
    for frame in frames:
        digest.update(np.ascontiguousarray(frame).data)
    return digest.hexdigest()


def layout_digest(layout: EditLayout) -> str:
    """Names a layout by its content: kept tokens and correspondences may come from elsewhere than the settings."""
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
