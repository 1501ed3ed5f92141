"""Cuts found in films whose cuts are known: `python -m benchmarks.cuts [--clips FILE ...]`.

Films are drawn: 0 to 3 cuts join shots of other scenes, or of the same one seen from elsewhere. Three of four hold what
is no cut: turns, pans and zooms at two to five times the pace, a flash, a cross-dissolve or a fade through black, of
which nothing may be reported. Pieces of real clips are joined alike, with crops as other cameras' views. A cut is found
where it is reported on its very frame.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from adaflow_core.motion.cuts import detect_cuts
from adaflow_core.progress import Monitor
from adaflow_core.video.decode import decode_video
from benchmarks.output import say, write_json
from scenes.render import render
from scenes.world import MOTIONS, SceneBatch, sample

PACE = 1 / 48  # clip time from frame to frame, as in the bundled clips
KINDS = ("plain", "fast", "flash", "fades")


@dataclass(frozen=True)
class Film:
    kind: str  # of KINDS
    number: int
    frames: np.ndarray  # [T, H, W, 3] uint8
    cuts: tuple[int, ...]


def join(shots: list[np.ndarray], transitions: list[str], rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """Join shots [t, H, W, 3] by `transitions`; returns the film and the first frame after each cut."""
    film, cuts = shots[0].astype(np.float32), []
    for shot, transition in zip(shots[1:], transitions, strict=True):
        n = min(int(rng.integers(6, 13)), len(shot) - 2, len(film) - 2)
        rise = ((np.arange(n) + 1) / (n + 1))[:, None, None, None]
        if transition == "cut":
            cuts.append(len(film))
            film = np.concatenate([film, shot])
        elif transition == "dissolve":
            film = np.concatenate([film[:-n], film[-n:] * (1 - rise) + shot[:n] * rise, shot[n:]])
        else:
            black = np.zeros((int(rng.integers(1, 5)), *film.shape[1:]))
            film = np.concatenate([film[:-n], film[-n:] * (1 - rise), black, shot[:n] * rise, shot[n:]])
    return film, cuts


def flash(film: np.ndarray, cuts: list[int], rng: np.random.Generator) -> None:
    """Brighten one to three frames of a shot, some to white, in place."""
    free = [t for t in range(3, len(film) - 6) if all(t + 5 < c or t - 3 > c for c in cuts)]
    if free:
        start, length = int(rng.choice(free)), int(rng.integers(1, 4))
        strength = rng.uniform(0.3, 0.9) * rng.permutation([1.0, 0.7, 0.4])[:length, None, None, None]
        part = film[start : start + length]
        part += (255 - part) * strength if rng.random() < 0.5 else part * 1.5 * strength


def plan_film(number: int, rng: np.random.Generator) -> tuple[str, list[str]]:
    """Return the kind of a film and the transitions between its shots."""
    kind, transitions = KINDS[number // 4 % 4], ["cut"] * (number % 4)
    if kind == "fades":
        transitions.insert(int(rng.integers(0, len(transitions) + 1)), str(rng.choice(["dissolve", "black"])))
    return kind, transitions


def finish(kind: str, number: int, shots: list[np.ndarray], transitions: list[str], rng: np.random.Generator) -> Film:
    film, cuts = join(shots, transitions, rng)
    if kind == "flash":
        flash(film, cuts, rng)
    noisy = film + rng.normal(0, rng.choice([0.0, 1.0, 3.0]), film.shape)
    return Film(kind, number, noisy.clip(0, 255).round().astype(np.uint8), tuple(cuts))


def clip_times(length: int, fast: float, rng: np.random.Generator) -> torch.Tensor:
    """Return the clip times of a shot's frames; with `fast` > 1 four to eight of them run faster by that factor."""
    pace = np.full(length - 1, PACE * rng.uniform(0.5, 1.2))
    if fast > 1:
        start = int(rng.integers(0, max(1, length - 5)))
        pace[start : start + int(rng.integers(4, 9))] *= fast
    times = np.append(0.0, np.cumsum(pace))
    times *= min(1.0, 1 / times[-1])
    return torch.from_numpy(times + rng.uniform(0, 1 - times[-1]))


def drawn_shot(row: SceneBatch, length: int, size: int, fast: float, rng: np.random.Generator) -> np.ndarray:
    drawn = render(row, clip_times(length, fast, rng).float(), size).rgb[0]
    return rearrange(drawn * 255, "t c h w -> t h w c").numpy()


def drawn_film(number: int, split: str, seed: int, size: int) -> Film:
    """Draw a film with `number % 4` cuts; the films of validation and test share no scene."""
    rng = np.random.default_rng([seed, number, split == "test"])
    kind, transitions = plan_film(number, rng)
    moves = ["turn", "pan", "zoom", "bounce"] if kind == "fast" else [motion for motion in MOTIONS if motion != "cut"]
    scenes = 100_000 * seed + 10 * number
    rows = [sample(1, seed=scenes + k, split=split, motion=str(rng.choice(moves))) for k in range(len(transitions) + 1)]
    if rng.random() < 0.5:  # the same thing in the same place, from elsewhere
        same = ("kind", "colour", "background", "style", "present2", "kind2", "colour2")
        rows = [row.replace(**{name: getattr(rows[0], name) for name in same}) for row in rows]
    shots = [
        drawn_shot(row, int(rng.integers(8, 20)), size, rng.uniform(2, 5) if kind == "fast" else 1.0, rng)
        for row in rows
    ]
    return finish(kind, number, shots, transitions, rng)


def joined_film(number: int, clips: list[np.ndarray], split: str, seed: int, size: int) -> Film:
    """Join pieces of real clips: of different clips or crops, and in "fast" films at two or three times the speed."""
    import cv2

    rng = np.random.default_rng([seed, number, 2 + (split == "test")])
    kind, transitions = plan_film(number, rng)
    shots, before = [], -1
    for _ in range(len(transitions) + 1):
        view = int(rng.choice([v for v in range(2 * len(clips)) if v != before]))
        before, clip = view, clips[view // 2]
        step, length = int(rng.integers(2, 4)) if kind == "fast" else 1, int(rng.integers(8, 20))
        length = min(length, len(clip) // step)
        start = int(rng.integers(0, len(clip) - step * length + 1))
        piece = clip[start : start + step * length : step]
        if view % 2:  # a crop as another camera's view
            h, w = (side * 2 // 3 for side in piece.shape[1:3])
            y, x = (int(rng.integers(0, side - side * 2 // 3 + 1)) for side in piece.shape[1:3])
            piece = piece[:, y : y + h, x : x + w]
        shots.append(np.stack([cv2.resize(f, (size, size), interpolation=cv2.INTER_AREA) for f in piece]))
    return finish(kind, number, shots, transitions, rng)


# --- figures --------------------------------------------------------------------------------------


def measure(name: str, films: Iterable[Film]) -> list[dict[str, Any]]:
    """Find the cuts of each film; returns a row per film, and prints the films with errors."""
    rows = []
    for film in films:
        began = time.process_time()
        found = set(detect_cuts(film.frames, Monitor()).tolist())
        seconds, true = time.process_time() - began, set(film.cuts)
        if found != true:
            say(f"{name} {film.kind} {film.number}: {sorted(found)} found, true are {sorted(true)}")
        counts = {"right": len(found & true), "wrong": len(found - true), "missed": len(true - found)}
        rows.append({"films": name, "kind": film.kind, "frames": len(film.frames), "seconds": seconds} | counts)
    return rows


def summary(rows: list[dict[str, Any]]) -> str:
    """Return a table with a line for each set of films, and one for each kind of film in it."""
    lines = [
        "| films | number | frames | cuts | found | reported wrongly | precision | recall | F1 | CPU ms a frame |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for name in dict.fromkeys(row["films"] for row in rows):
        for kind in (None, *KINDS):
            part = [row for row in rows if row["films"] == name and kind in (None, row["kind"])]
            if not part:
                continue
            frames, right, wrong, missed = (sum(row[k] for row in part) for k in ("frames", "right", "wrong", "missed"))
            precision, recall, f1 = (
                f"{n / d:.3f}" if d else "-"
                for n, d in ((right, right + wrong), (right, right + missed), (2 * right, 2 * right + wrong + missed))
            )
            pace = 1000 * sum(row["seconds"] for row in part) / frames
            lines.append(
                f"| {name if kind is None else kind} | {len(part)} | {frames} | {right + missed} | {right} | {wrong} "
                f"| {precision} | {recall} | {f1} | {pace:.2f} |"
            )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cuts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--films", type=int, default=100, help="drawn ones, and as many of real clips")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="val to tune by")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=128, help="pixels of a side of the drawn films")
    parser.add_argument("--clips", type=Path, nargs="+", default=[], metavar="FILE", help="real clips to join")
    parser.add_argument("--json", type=Path, help="a row for each film")
    options = parser.parse_args(argv)
    numbers = range(options.films)
    rows = measure("drawn", (drawn_film(n, options.split, options.seed, options.size) for n in numbers))
    if options.clips:
        clips = [decode_video(path, size=256).frames for path in options.clips]
        rows += measure("real", (joined_film(n, clips, options.split, options.seed, size=256) for n in numbers))
    write_json(options.json, rows)
    print(summary(rows))


if __name__ == "__main__":
    main()
