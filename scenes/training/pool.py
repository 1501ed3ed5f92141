"""Scenes for training, drawn on the device while it trains: a ring of rows whose oldest are redrawn.

Captions are strings, hence made by worker processes; pictures are drawn where the network trains.
"""

import functools
import multiprocessing
import os
import pickle
import random
import string
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from scenes.captions import captions
from scenes.render import render
from scenes.world import BACKGROUNDS, SceneBatch, changed, sample

BRANCHES = 3  # a scene and two edits of it
CAPTIONS_PER_SCENE = 4
UNKNOWN_SHARE = 0.08  # captions with a made-up word, so that the model learns to read past unknown words
MIN_OBJECT_SHARE = 0.002  # of the picture: below that, a caption would name something that is not there


def moments(count: int, seed: int) -> Tensor:
    """A random clip time for each of `count` scenes: [count, 1]."""
    return torch.rand(count, 1, generator=torch.Generator().manual_seed(seed))


def draw(
    batch: SceneBatch, times: Tensor, size: int, device: torch.device
) -> tuple[Tensor, Tensor]:  # [B, 3, size, size] uint8, [B] bool
    """Draw each scene at one time (`times` [B, 1]); also returns whether the objects in its caption are visible.

    The renderer works on groups with one style and place, a few hundred frames at a time. Sorting the scenes makes
    these groups few and large, which is several times faster on a GPU.
    """
    order = torch.argsort(batch.style * len(BACKGROUNDS) + batch.background)
    place = torch.argsort(order).to(device)
    with torch.no_grad():
        drawn = render(batch[order].to(device), times[order].to(device), size)
        pictures = (drawn.rgb[:, 0] * 255).round().to(torch.uint8)
        first = (drawn.ids[:, 0] == 1).float().mean((1, 2)) > MIN_OBJECT_SHARE
        second = (drawn.ids[:, 0] == 2).float().mean((1, 2)) > MIN_OBJECT_SHARE
        seen = first & (second | ~batch[order].present2.to(device))
    return pictures[place], seen[place]


def alone(batch: SceneBatch) -> SceneBatch:
    """The same scenes with their first object only."""
    return batch.replace(present2=torch.zeros_like(batch.present2))


def unit(pictures: Tensor) -> Tensor:
    """Convert pictures from uint8 to the -1..1 that the VAE takes."""
    return pictures.float() / 127.5 - 1


class Ring:
    """Rows of named tensors on the device; the oldest are overwritten once it is full."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.rows: dict[str, Tensor] = {}
        self.written = 0

    def write(self, **rows: Tensor) -> None:  # each [n, ...]
        count = len(next(iter(rows.values())))
        for name, values in rows.items():
            if name not in self.rows:
                self.rows[name] = values.new_empty(self.capacity, *values.shape[1:])
            index = torch.arange(self.written, self.written + count, device=values.device) % self.capacity
            self.rows[name][index] = values
        self.written += count

    def sample(self, count: int) -> dict[str, Tensor]:  # each [count, ...]
        filled = min(self.written, self.capacity)
        device = next(iter(self.rows.values())).device
        index = torch.randint(filled, (count,), device=device)
        return {name: values[index] for name, values in self.rows.items()}


class Described:
    """An endless stream of scenes with edits of each and their token ids, made ahead by worker processes.

    An item is `branches` batches of the same clips, the first as sampled and each other one changed in its own way, and
    the ids [B, branches, CAPTIONS_PER_SCENE, L] int16. In the first half of the captions a clip and its edits are
    worded alike. Create the stream before anything uses the GPU, because the processes are forked.
    """

    def __init__(
        self, tokenizer_folder: Path, count: int, seed: int, workers: int, *, branches: int, ambiguous: bool = False
    ) -> None:
        self.folder = tokenizer_folder
        self.branches = branches
        self.ambiguous = ambiguous
        self.count = count
        self.seed = seed
        self.processes: ProcessPoolExecutor | None = None
        self.ahead: deque[Future] = deque()
        if workers > 0:
            self.processes = ProcessPoolExecutor(workers, multiprocessing.get_context("fork"))
            for _ in range(3 * workers):
                self._ask(self.processes)

    def _next(self) -> tuple[Path, int, int, int, bool]:
        return self.folder, self.count, self.seed, self.branches, self.ambiguous

    def _ask(self, processes: ProcessPoolExecutor) -> None:
        self.ahead.append(processes.submit(_describe, *self._next()))
        self.seed += 1

    def __next__(self) -> tuple[list[SceneBatch], np.ndarray]:
        if self.processes is None:
            pickled, tokens = _describe(*self._next())
            self.seed += 1
        else:
            self._ask(self.processes)
            pickled, tokens = self.ahead.popleft().result()
        return pickle.loads(pickled), tokens

    def close(self) -> None:
        if self.processes is not None:
            self.processes.shutdown(wait=False, cancel_futures=True)


@functools.cache
def _tokenizer(folder: Path) -> CLIPTokenizer:
    if multiprocessing.parent_process() is not None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there is one process per core already
        torch.set_num_threads(1)
    return CLIPTokenizer.from_pretrained(folder)


def _describe(folder: Path, count: int, seed: int, branches: int, ambiguous: bool) -> tuple[bytes, np.ndarray]:
    """Return the item of a seed with its scenes pickled: torch would send each tensor through a file of its own."""
    source = sample(count, seed=seed, split="train", ambiguous=ambiguous)
    batches = [source, *(changed(source, seed=seed * BRANCHES + branch) for branch in range(1, branches))]
    tokenizer = _tokenizer(folder)
    words = random.Random(seed)
    tokens = []
    for branch, batch in enumerate(batches):
        rows = []
        for version in range(CAPTIONS_PER_SCENE):
            wording = seed * CAPTIONS_PER_SCENE + version
            if version >= CAPTIONS_PER_SCENE // 2:
                wording = -1 - (wording * BRANCHES + branch)
            texts = captions(batch, wording)
            texts = [_with_unknown_word(text, words) if words.random() < UNKNOWN_SHARE else text for text in texts]
            rows.append(tokenizer(texts, padding="max_length", truncation=True, return_tensors="np")["input_ids"])
        tokens.append(np.stack(rows, axis=1))
    return pickle.dumps(batches), np.stack(tokens, axis=1).astype(np.int16)


def _with_unknown_word(text: str, words: random.Random) -> str:
    parts = text.split()
    made_up = "".join(words.choices(string.ascii_lowercase, k=words.randint(4, 9)))
    parts.insert(words.randint(0, len(parts)), made_up)
    return " ".join(parts)
