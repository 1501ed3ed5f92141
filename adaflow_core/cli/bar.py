"""Progress on a terminal."""

from __future__ import annotations

import sys
import time
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from adaflow_core.progress import Progress

if TYPE_CHECKING:
    from tqdm import tqdm

_SECONDS_A_LINE = 10  # of a download, where there is no terminal


class Bar:
    """Stage, share done and time left on a terminal; elsewhere a line when a stage is done."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._next_line = 0.0

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __call__(self, progress: Progress) -> None:
        done = progress.done >= progress.total
        if not sys.stderr.isatty():
            self._print(progress, done)
            return
        if self._bar is None or (self._bar.desc, self._bar.total) != (progress.stage, progress.total):
            self.close()
            self._bar = _new_bar(progress)
        self._bar.initial = progress.skipped  # excluded from tqdm's pace
        self._bar.update(progress.done - self._bar.n)
        if done:
            self.close()

    def _print(self, progress: Progress, done: bool) -> None:
        if done:
            print(f"{progress.stage}: {progress.elapsed:.1f} s", file=sys.stderr, flush=True)
        elif progress.unit and time.monotonic() >= self._next_line:  # downloads may take an hour
            left = "" if progress.remaining is None else f", about {progress.remaining:.0f} s left"
            print(f"{progress.stage}: {progress.amount}{left}", file=sys.stderr, flush=True)
            self._next_line = time.monotonic() + _SECONDS_A_LINE


def _new_bar(progress: Progress) -> tqdm:
    from tqdm import tqdm

    # tqdm's own look-up draws nothing if the terminal does not know its size.
    columns, lines = get_terminal_size()
    bar = tqdm(
        total=progress.total,
        desc=progress.stage,
        file=sys.stderr,
        ncols=columns,
        nrows=lines,
        ascii=".#",
        unit=progress.unit,
        unit_scale=bool(progress.unit),
        bar_format="{desc:<14} [{bar:24}] {n_fmt}/{total_fmt}{unit} {remaining} left",
        smoothing=0,  # the time left is estimated by the mean pace, as chunks take unequal times
    )
    bar.start_t -= progress.elapsed
    return bar
