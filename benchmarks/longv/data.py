"""The clips of LongV-EVAL, as published or as drawn here: writes the manifest that benchmarks.longv takes.

    hf download zhangsh2001/LongV-EVAL --repo-type dataset --local-dir LongV-EVAL
    python -m benchmarks.longv.data published LongV-EVAL
    python -m benchmarks.longv.data drawn outputs/drawn --clips 75 --frames 1024 --model embedded

The published one (75 videos of about a minute; CC BY-NC 4.0) holds `videos/NNNNN.mp4` and a prompt in each of
`foreground/NNNNN.txt`, `background/NNNNN.txt` and `style/NNNNN.txt`. It says nothing of the source; who has captions
puts them into `source/NNNNN.txt`. The drawn one has the same shape, and its true edits and true flow are known. Its
clips are edited at the size that they are drawn at: name the model, and they have its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from adaflow_core.batch.manifest import Clip, write_manifest
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.loading import load_backbone
from adaflow_core.video.write import write_video
from benchmarks.run import clip_size
from benchmarks.truth import EDITS
from scenes.captions import plain
from scenes.clips import FRAMES, SIZE
from scenes.flow import true_flow
from scenes.render import render
from scenes.world import SceneBatch, sample

PROMPTS = ("foreground", "background", "style")
FPS = 24
SHOT = 128  # frames between two cuts of a long film: the drawn world's motions take some seconds each
# Motions with the object in sight, one a shot.
MOTIONS = ("pan", "drift", "turn", "uneven", "zoom", "bounce", "occlusion")
CHUNK = 8  # frames drawn at a time


# --- drawn ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Film:
    """A drawn clip: one thing in one place, in photo style, in shots that differ in motion and camera."""

    seed: int
    frames: int
    size: int = SIZE

    @cached_property
    def shots(self) -> list[SceneBatch]:
        """A row each, all with the attributes of the first."""
        count = max(1, round(self.frames / SHOT))
        rows = [
            sample(1, seed=40_000 + 100 * self.seed + i, split="test", motion=MOTIONS[(self.seed + i) % len(MOTIONS)])
            for i in range(count)
        ]
        same = {name: rows[0].names(name)[0] for name in ("kind", "colour", "background")}
        return [row.replace(style="photo", present2=False, **same) for row in rows]

    @cached_property
    def edits(self) -> dict[str, dict[str, str]]:
        """What each prompt changes: an attribute of the scene and its new value."""
        rng = np.random.default_rng(self.seed)
        chosen = {}
        for name in PROMPTS:
            edit = ("colour" if self.seed % 2 == 0 else "object") if name == "foreground" else name
            attribute, values = EDITS[edit]
            others = [value for value in values if value != self.shots[0].names(attribute)[0]]
            chosen[name] = {attribute: others[int(rng.integers(len(others)))]}
        return chosen

    @property
    def starts(self) -> np.ndarray:
        """[shots + 1] the first frame of each shot, and one past the last."""
        return np.linspace(0, self.frames, len(self.shots) + 1).round().astype(int)

    def place(self, number: int) -> tuple[int, float]:
        """Return a frame's shot and its time 0..1 in that shot. A short shot shows the middle of its motion."""
        starts = self.starts
        shot = int(np.searchsorted(starts, number, side="right")) - 1
        length = int(starts[shot + 1] - starts[shot])
        whole = max(length, FRAMES)
        return shot, float(number - starts[shot] + (whole - length) // 2) / max(1, whole - 1)

    def draw(self, numbers: Sequence[int], prompt: str | None = None, device: torch.device | str = "cpu") -> np.ndarray:
        """[F, H, W, 3] uint8: the source, or the true edit under the prompt of that name."""
        pictures = []
        for number in numbers:
            shot, moment = self.place(number)
            row = self.shots[shot].replace(**(self.edits[prompt] if prompt else {})).to(device)
            rgb = render(row, torch.tensor([moment], device=device), self.size).rgb[0]
            pictures.append(rearrange((rgb * 255).round().byte(), "1 c h w -> h w c").cpu().numpy())
        return np.stack(pictures)

    def flow(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The true flow of the source from a frame to the next: [2, H, W] pixels, [H, W] bool where it holds."""
        (shot, here), (after, there) = self.place(number), self.place(number + 1)
        flow, visible = true_flow(self.shots[shot], here, there, self.size)
        return flow.numpy(), visible.numpy() & (shot == after)

    def clip(self, video: str) -> Clip:
        row = self.shots[0]
        return Clip(
            id=Path(video).stem,
            video=video,
            source_prompt=plain(row)[0].removesuffix(", photo"),
            prompts={name: plain(row.replace(**edit))[0].removesuffix(", photo") for name, edit in self.edits.items()},
            size=f"{self.size}x{self.size}",
            meta={"film": asdict(self)},
        )


def film_of(clip: Clip) -> Film | None:
    """Return the film of a drawn clip; None for any other clip."""
    return Film(**clip.meta["film"]) if "film" in clip.meta else None


def write_film(film: Film, path: Path, device: torch.device | str = "cpu") -> None:
    """Draws into an unnamed file and not into memory: a long film at full size has gigabytes."""
    with tempfile.TemporaryFile() as file:
        shape = (film.frames, film.size, film.size, 3)
        frames: np.ndarray = np.memmap(file, np.uint8, mode="w+", shape=shape)
        for start in range(0, film.frames, CHUNK):
            numbers = range(start, min(start + CHUNK, film.frames))
            frames[start : start + len(numbers)] = film.draw(numbers, device=device)
        write_video(path, frames, Fraction(FPS))


def draw_clips(folder: Path, clips: int, frames: int, size: int = SIZE, device: str = "cpu") -> Path:
    """Draws what is missing of the films, and writes their manifest."""
    entries = []
    for seed in range(clips):
        film, name = Film(seed, frames, size), f"videos/{seed:05d}-{frames}x{size}.mp4"
        if not (folder / name).is_file():
            write_film(film, folder / name, device)
            print(f"{name}: {film.clip(name).source_prompt}", file=sys.stderr, flush=True)
        entries.append(film.clip(name))
    return _write(folder, entries)


# --- published ------------------------------------------------------------------------------------


def index_published(folder: Path) -> Path:
    """The manifest of the data set as downloaded to `folder`."""
    entries = list(_published_clips(folder))
    if not entries:
        raise AdaFlowError(
            f"{folder} holds no videos/*.mp4; run: "
            f"hf download zhangsh2001/LongV-EVAL --repo-type dataset --local-dir {folder}"
        )
    return _write(folder, entries)


def _published_clips(folder: Path) -> Iterator[Clip]:
    for video in sorted((folder / "videos").glob("*.mp4")):
        texts = {name: _text(folder / name / f"{video.stem}.txt") for name in ("source", *PROMPTS)}
        prompts: dict[str, Any] = {name: texts[name] for name in PROMPTS if texts[name]}
        if not prompts:
            raise AdaFlowError(f"{video.name} has no prompt in {folder}/style/{video.stem}.txt; download it again")
        yield Clip(id=video.stem, video=f"videos/{video.name}", source_prompt=texts["source"] or "", prompts=prompts)


def _text(path: Path) -> str | None:
    """Return a prompt file's one line without its quotes."""
    return path.read_text(encoding="utf-8").strip().strip('"“”').strip() if path.is_file() else None


def _write(folder: Path, entries: list[Clip]) -> Path:
    path = folder / "manifest.jsonl"
    write_manifest(str(path), entries)
    return path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.longv.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("published", help="index the downloaded data set")
    command.add_argument("folder", type=Path)
    command = commands.add_parser("drawn", help="draw clips of the same shape")
    command.add_argument("folder", type=Path)
    command.add_argument("--clips", type=int, default=75)
    command.add_argument("--frames", type=int, default=1024)
    command.add_argument("--model", metavar="NAME", help="that is to edit them, as benchmarks.longv takes it")
    command.add_argument(
        "--size", type=int, help=f"pixels a side; default: the model's own, {SIZE} where none is named"
    )
    command.add_argument("--device", default="cpu", help="cuda draws faster")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "published":
            print(index_published(arguments.folder))
        else:
            size = arguments.size or SIZE
            if arguments.model is not None:
                size = clip_size(arguments.size, load_backbone(arguments.model, device="cpu").profile)
            print(draw_clips(arguments.folder, arguments.clips, arguments.frames, size, arguments.device))
    except AdaFlowError as problem:
        print(f"{parser.prog}: error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
