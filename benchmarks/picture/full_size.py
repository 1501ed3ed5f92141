"""Edits at a quarter of a drawn film's size, delivered at its own: `python -m benchmarks.picture.full_size`.

The true edit made small is laid over the source, or the engine's own edit (`--engine`); both are compared with the true
edit at full size, as is the small edit enlarged by Lanczos' filter. `--speed WxH` measures rates and memory instead.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from adaflow_core.config import PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.model.loading import load_backbone
from adaflow_core.picture.enlarge import lay_over
from adaflow_core.picture.full_size import FullSize, source_size
from adaflow_core.progress import Monitor
from adaflow_core.video.client import Decoder
from adaflow_core.video.decode import decode_video
from adaflow_core.video.pixels import FILTER
from adaflow_core.video.types import parse_size, working_size
from adaflow_core.video.write import write_video
from benchmarks.metrics import psnr
from benchmarks.output import cell, say, table, write_json
from benchmarks.run import fresh_engine
from benchmarks.truth import Pair, draw, load_bundled
from scenes.clips import FPS, scene

FULL, WORKING = 1024, 256
NEAR = 4  # pixels around the border of the change that count as its edge
SPILL = 3  # working pixels around a change that an enlargement may reach
PAGE = 4096  # bytes, of /proc/self/statm


@dataclass(frozen=True)
class Compared:
    """The scores of one clip: PSNR and error at the edge, of Lanczos and of the delivery, and changes outside."""

    name: str
    kind: str
    plain: float  # dB
    delivered: float  # dB
    plain_edge: float  # mean absolute error in levels; nan for a style, which has no border
    delivered_edge: float
    outside: int  # pixels
    touched: int  # of those, the pixels that differ from the source

    def cells(self) -> list[str]:
        gain = self.delivered - self.plain
        edges = cell(self.plain_edge, ".2f"), cell(self.delivered_edge, ".2f")
        values = cell(self.plain), cell(self.delivered), cell(gain, "+.1f"), *edges
        return [self.name, self.kind, *values, f"{self.touched}/{self.outside}"]


def smaller(frames: np.ndarray) -> np.ndarray:
    """[T, 256, 256, 3], as decoding makes them."""
    scaler, made = VideoReformatter(), []
    for picture in frames:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        made.append(scaler.reformat(frame, WORKING, WORKING, "rgb24", interpolation=FILTER).to_ndarray())
    return np.stack(made)


def compare(pair: Pair, source: np.ndarray, small: np.ndarray, edited: np.ndarray, delivered: np.ndarray) -> Compared:
    """source, delivered: [T, 1024, 1024, 3]; small, edited: [T, 256, 256, 3]."""
    plain = np.stack([cv2.resize(e, (FULL, FULL), interpolation=cv2.INTER_LANCZOS4) for e in edited])
    reach = np.ones((2 * SPILL + 1, 2 * SPILL + 1), np.uint8)
    changed = [cv2.dilate((s != e).any(axis=-1).astype(np.uint8), reach) for s, e in zip(small, edited, strict=True)]
    far = np.stack([cv2.resize(c, (FULL, FULL), interpolation=cv2.INTER_NEAREST) == 0 for c in changed])
    edges = np.stack([_border(region) for region in pair.region])
    errors = [np.nan, np.nan]
    if edges.any():
        errors = [
            float(np.abs(made[edges] - pair.truth[edges].astype(np.float32)).mean()) for made in (plain, delivered)
        ]
    return Compared(
        pair.name, pair.kind, psnr(plain, pair.truth), psnr(delivered, pair.truth), *errors,
        outside=int(far.sum()), touched=int((delivered != source).any(axis=-1)[far].sum()),
    )  # fmt: skip


def _border(region: np.ndarray) -> np.ndarray:
    outline = cv2.morphologyEx(region.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    return cv2.dilate(outline, np.ones((2 * NEAR + 1, 2 * NEAR + 1), np.uint8)) > 0


def by_truth(pair: Pair) -> Compared:
    small, edited = smaller(pair.source), smaller(pair.truth)
    delivered = np.stack([lay_over(*frames) for frames in zip(pair.source, small, edited, strict=True)])
    return compare(pair, pair.source, small, edited, delivered)


def by_engine(pair: Pair, engine: AdaFlow) -> Compared:
    with tempfile.TemporaryDirectory() as folder:
        file = write_video(Path(folder) / "source.mp4", pair.source, Fraction(FPS))
        plan = engine.plan(file, PlanConfig(source_prompt=pair.source_prompt), size=(WORKING, WORKING))
        result = engine.edit(plan, pair.prompt).forget_state()
        size = source_size(plan.video)
        assert size is not None
        delivered = np.stack(list(FullSize(plan.video, result.frames, size, Monitor())))
        source = decode_video(file, size=size).frames
        return compare(pair, source, np.asarray(plan.video.frames), result.frames, delivered)


def pairs(frames: int, kinds: list[str]) -> Iterator[Pair]:
    """The bundled clips with the edits that are suggested for them: frames from their middle on."""
    for entry in load_bundled():
        if entry["kind"] in kinds:
            start = (entry["frames"] - frames) // 2
            times = torch.linspace(0, 1, entry["frames"])[start : start + frames].numpy()
            prompts = {name: entry[name] for name in ("source_prompt", "prompt")}
            name = Path(entry["file"]).stem
            yield draw(scene(entry), entry["kind"], entry["value"], times, FULL, name=name, **prompts)


# --- speed ----------------------------------------------------------------------------------------


def make_film(path: Path, size: tuple[int, int], count: int) -> None:
    """A textured film that moves to the side, quickly encoded."""
    rng, (width, height) = np.random.default_rng(0), size
    coarse = rng.integers(0, 255, (height // 16, width // 16, 3), np.uint8)
    base = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"preset": "ultrafast", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for t in range(count):
            picture = np.ascontiguousarray(np.roll(base, 3 * t, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def rate_of(pictures: Iterator[Any], count: int, seen: Callable[[int], None] | None = None) -> float:
    """Return how many are made in a second."""
    began = time.perf_counter()
    for number, _ in enumerate(pictures):
        if seen is not None:
            seen(number)
    return count / (time.perf_counter() - began)


def resident() -> float:
    """GiB of this process, without mapped files."""
    pages, mapped = map(int, Path("/proc/self/statm").read_text().split()[1:3])
    return (pages - mapped) * PAGE / 2**30


def measure_speed(size: tuple[int, int], count: int, share: float) -> dict[str, Any]:
    """Frames a second of each part and of all, and this process's memory in the course of it."""
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "source.mp4", Path(folder) / "out.mp4"
        make_film(file, size, count)
        video = decode_video(file, size=working_size(*size, 512))
        edited = np.array(video.frames)
        h, w = (round(side * share**0.5) for side in edited.shape[1:3])
        edited[:, :h, :w] = 255 - edited[:, :h, :w]
        made = FullSize(video, edited, size, Monitor())
        with Decoder(file) as decoder:
            decoding = rate_of(decoder.frames(size, 0, count), count)
            few = [picture for *_, picture in decoder.frames(size, 0, 8)]
        laying = rate_of((lay_over(few[t], video.frames[t], edited[t]) for t in range(len(few))), len(few))
        began = time.perf_counter()
        write_video(out, np.stack(few * 3), Fraction(24))
        encoding = 3 * len(few) / (time.perf_counter() - began)
        del few
        memory: list[float] = []

        def note(progress: Any) -> None:
            memory.append(resident())

        began = time.perf_counter()
        write_video(out, made, video.fps, monitor=Monitor(note))
        whole = count / (time.perf_counter() - began)
    marks = {f"GiB at {part:.0%}": memory[int(part * (len(memory) - 1))] for part in (0.25, 0.5, 0.75, 1.0)}
    rates = {"decode": decoding, "lay over": laying, "encode": encoding, "all": whole}
    return {"size": f"{size[0]}x{size[1]}", "changed": share, "frames": count, **rates, **marks}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=4, help="of each clip")
    parser.add_argument("--kinds", default="colour,background,object,style", metavar="KIND,...")
    parser.add_argument("--engine", action="store_true", help="the engine's edits in place of the true ones")
    parser.add_argument("--speed", metavar="WxH", help="measure rates and memory for a film of this size")
    parser.add_argument("--changed", type=float, default=1.0, help="with --speed: the share of the frame that changes")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(argv)
    if given.speed:
        found = measure_speed(parse_size(given.speed), given.frames, given.changed)
        print(json.dumps({name: round(v, 3) if isinstance(v, float) else v for name, v in found.items()}))
        write_json(given.json, {"cpus": os.cpu_count(), **found})
        return
    rows = []
    with fresh_engine(load_backbone("embedded")) if given.engine else nullcontext() as engine:
        for pair in pairs(given.frames, given.kinds.split(",")):
            rows.append(by_truth(pair) if engine is None else by_engine(pair, engine))
            say("  ".join(rows[-1].cells()))
    head = ["clip", "edit", "Lanczos dB", "delivered dB", "gain", "edge, Lanczos", "edge, delivered", "touched outside"]
    print(table(head, [row.cells() for row in rows]))
    write_json(given.json, [vars(row) for row in rows])


if __name__ == "__main__":
    main()
