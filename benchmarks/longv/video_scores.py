"""Scores of an edited video that take its frames as they are decoded, so that memory does not grow with its length."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from adaflow_core.progress import Monitor
from adaflow_core.video.coded.index import index_of
from adaflow_core.video.decode import probe
from adaflow_core.video.pixels import upright_rgb
from adaflow_core.video.reader import frames_from
from benchmarks.longv.data import Film
from benchmarks.metrics import warp_error
from scenes.training.classifier import ATTRIBUTES, Judge

CHUNK = 16  # frames decoded and embedded at a time
FLOW_SIDE = 256  # pixels of the shorter side at which flow is estimated
Flow = tuple[np.ndarray, np.ndarray]
"""[2, h, w] pixels (right, down) from a frame to the next, [h, w] bool where it is valid."""


# --- frames ---------------------------------------------------------------------------------------


def count_frames(path: Path) -> int:
    """Return the exact number of frames, from the packets and not from the header."""
    return index_of(path, Monitor()).length


def stream(path: Path, size: tuple[int, int] | None = None, chunk: int = CHUNK, begin: int = 0) -> Iterator[np.ndarray]:
    """The frames of a file from `begin` on, [up to chunk, H, W, 3] uint8 at a time; `size` (width, height)."""
    from av.video.reformatter import VideoReformatter

    monitor, scaler, info = Monitor(), VideoReformatter(), probe(path)
    batch = []
    for frame in frames_from(path, index_of(path, monitor), begin, monitor):
        batch.append(upright_rgb(frame, size or (info.width, info.height), scaler))
        if len(batch) == chunk:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


# --- one figure each ------------------------------------------------------------------------------


class Consistency:
    """Mean cosine of the features of consecutive frames."""

    def __init__(self) -> None:
        self._last: Tensor | None = None
        self._sum, self._count = 0.0, 0

    def update(self, rows: Tensor) -> None:
        """Take the features of the next frames, [F, d] unit rows."""
        if self._last is not None:
            rows = torch.cat([self._last, rows])
        cosines = (rows[1:].double() * rows[:-1].double()).sum(-1)
        self._sum, self._count = self._sum + float(cosines.sum()), self._count + len(cosines)
        self._last = rows[-1:]

    def result(self) -> float | None:
        """Return the mean; None for a single frame."""
        return self._sum / self._count if self._count else None


class Mean:
    """Mean of a value that each frame has."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def update(self, values: Tensor) -> None:
        self._sum, self._count = self._sum + float(values.double().sum()), self._count + values.numel()

    def result(self) -> float | None:
        return self._sum / self._count if self._count else None


class WarpError:
    """Mean change along the source's flow, 0..255, where the flow is valid; over some pairs of consecutive frames."""

    def __init__(self, flows: dict[int, Flow]) -> None:
        """`flows`: the flow from each of these frame numbers to the next frame."""
        self._flows, self._number, self._last = flows, 0, np.empty(0)
        self._errors: list[float] = []

    def update(self, frames: np.ndarray) -> None:
        """Take the next frames [F, H, W, 3] uint8, of any size."""
        for frame in frames:
            found = self._flows.get(self._number - 1)
            if found is not None:
                flow, visible = found
                pair = np.stack([_scaled(picture, flow.shape[1:]) for picture in (self._last, frame)])
                self._errors.append(warp_error(pair, flow[None], visible[None]))
            self._last, self._number = frame, self._number + 1

    def result(self) -> float | None:
        errors = [error for error in self._errors if np.isfinite(error)]  # nan: nothing stays in sight
        return float(np.mean(errors)) if errors else None


def evenly_spaced(count: int, most: int) -> list[int]:
    """Return at most `most` evenly spaced numbers of range(count)."""
    return sorted({int(n) for n in np.linspace(0, count - 1, min(most, count)).round()}) if count > 0 else []


@lru_cache(maxsize=1)  # the prompts and the methods of a clip share it
def estimate_flows(source: Path, begin: int, numbers: tuple[int, ...], size: tuple[int, int]) -> dict[int, Flow]:
    """Estimate a file's flow from the frames `numbers`, counted from `begin`, to the next, at `size` or smaller."""
    scale = min(1.0, FLOW_SIDE / min(size))
    small = (round(size[0] * scale), round(size[1] * scale))
    found: dict[int, Flow] = {}
    last = None
    at = 0
    for frames in stream(source, small, begin=begin):
        for frame in frames:
            if last is not None and at - 1 in numbers:
                found[at - 1] = estimate_flow(last, frame)
            last, at = frame, at + 1
        if numbers and at > max(numbers) + 1:
            break
    return found


def estimate_flow(first: np.ndarray, second: np.ndarray) -> Flow:
    """TV-L1 (Zach et al. 2007) by scikit-image, in both directions.

    It is valid where following both returns to the start (Sundaram et al. 2010).
    """
    from scipy.ndimage import map_coordinates
    from skimage.registration import optical_flow_tvl1

    grey = [picture.astype(np.float32).mean(axis=-1) / 255 for picture in (first, second)]
    there, back = (np.asarray(optical_flow_tvl1(a, b))[::-1] for a, b in (grey, grey[::-1]))  # (down, right) turned
    rows, columns = np.mgrid[0 : grey[0].shape[0], 0 : grey[0].shape[1]].astype(np.float32)
    target = [rows + there[1], columns + there[0]]
    returned = np.stack([map_coordinates(part, target, order=1, mode="nearest") for part in back])
    apart = np.square(there + returned).sum(0)
    inside = (target[0] >= 0) & (target[0] <= len(rows) - 1) & (target[1] >= 0) & (target[1] <= rows.shape[1] - 1)
    holds = apart < 0.01 * (np.square(there).sum(0) + np.square(returned).sum(0)) + 0.5
    return there, inside & holds


def _scaled(frame: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if frame.shape[:2] == tuple(shape):
        return frame
    return np.asarray(Image.fromarray(frame).resize((shape[1], shape[0]), Image.Resampling.LANCZOS))


# --- drawn clips ----------------------------------------------------------------------------------


class Truth:
    """PSNR in dB to the true edit of a drawn clip, beside that of the untouched source, over some of its frames."""

    def __init__(self, film: Film, prompt: str, numbers: list[int], begin: int = 0) -> None:
        """`numbers`: the edit's frames that are compared; `begin`: the film's frame that the edit's first one shows."""
        self._film, self._prompt, self._numbers, self._begin, self._number = film, prompt, set(numbers), begin, 0
        self._errors: dict[str, list[float]] = {"psnr": [], "psnr_of_source": []}

    def update(self, frames: np.ndarray) -> None:
        for frame in frames:
            if self._number in self._numbers:
                number = self._begin + self._number
                truth, source = (self._film.draw([number], name)[0] for name in (self._prompt, None))
                for name, picture in (("psnr", frame), ("psnr_of_source", source)):
                    self._errors[name].append(float(np.square(truth.astype(np.float64) - picture).mean()))
            self._number += 1

    def result(self) -> dict[str, float | None]:
        """Return the scores; a PSNR is None if the pictures are equal."""
        means = {name: float(np.mean(values)) for name, values in self._errors.items() if values}
        return {name: 10 * float(np.log10(255**2 / mean)) if mean else None for name, mean in means.items()}


class Judged:
    """Answers of the drawn world's judge: shares of frames with the wanted attribute, and with the others unchanged."""

    def __init__(self, judge: Judge, film: Film, prompt: str) -> None:
        before = film.shots[0]
        after = before.replace(**film.edits[prompt])
        self._judge, self._consistency = judge, Consistency()
        self._wanted = {name: int(getattr(after, name)[0]) for name in ATTRIBUTES}
        self._target = next(iter(film.edits[prompt]))
        self._shares = {"target": Mean(), "others": Mean()}

    @torch.inference_mode()
    def update(self, frames: np.ndarray) -> None:
        pictures = rearrange(torch.from_numpy(frames), "f h w c -> f c h w").float() / 255
        seen = self._judge.predict(pictures)
        right = {name: (seen[name].cpu() == wanted).float() for name, wanted in self._wanted.items()}
        target = right.pop(self._target)
        self._shares["target"].update(target)
        self._shares["others"].update(torch.stack(list(right.values())).amin(0))
        weight = next(self._judge.parameters())
        rows = self._judge.pooled(2 * pictures.to(weight.device) - 1)
        self._consistency.update(torch.nn.functional.normalize(rows, dim=-1).cpu())

    def result(self) -> dict[str, float | None]:
        shares = {f"judge_{name}": share.result() for name, share in self._shares.items()}
        return shares | {"judge_consistency": self._consistency.result()}
