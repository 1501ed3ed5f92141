"""The state of an edit after each of its steps, so that a process that dies loses the step in hand and no more.

An edit's state between two steps is its latents alone: keyframes are drawn from the seed and the step, and what the
attention layers keep lives within a step.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np

from adaflow_core.types import Layout


class Checkpoint:
    """One file, replaced as a whole after every step. A damaged one counts as none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""  # why nothing can be written; the edit goes on without

    def load(self, shape: tuple[int, ...]) -> tuple[int, np.ndarray] | None:
        """How many steps were finished, and the latents `shape` [T, 4, h, w] float32 after them."""
        try:
            with np.load(self.path) as stored:  # checks the archive's checksums
                done, latents = int(stored["done"]), stored["latents"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        if latents.shape != shape or latents.dtype != np.float32 or done < 1:
            return None
        return done, latents

    def save(self, done: int, latents: np.ndarray) -> None:
        if self.problem:
            return
        part = self.path.with_suffix(f".{os.getpid()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                np.savez(file, done=done, latents=latents)
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


def layout_digest(layout: Layout) -> str:
    """Names a layout by its content: kept tokens and correspondences may come from elsewhere than the settings."""
    digest = hashlib.blake2b(layout.keyframes.tobytes(), digest_size=16)
    for grid, part in sorted((layout.slimming or {}).items()):
        digest.update(repr((grid, part.sampled, part.mass)).encode() + part.kept.tobytes())
    correspondence = layout.correspondence
    digest.update(correspondence.slots.tobytes())
    for grid in sorted(correspondence.index):
        for array in (correspondence.index[grid], correspondence.weights[grid]):
            digest.update(repr(grid).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
