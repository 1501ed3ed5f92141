"""LongV-EVAL's scores of one edited file: which there are, what each needs, and one pass over the frames for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adaflow_core.batch.manifest import Clip as Entry
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.loading import pick_device
from adaflow_core.video.decode import probe
from adaflow_core.video.types import parse_range
from benchmarks.longv.data import film_of
from benchmarks.longv.dover import HINT, VideoQuality, load_dover
from benchmarks.longv.models import CLIP, DINO, HEAD_HINT, Clip, Dino, is_available, load_aesthetic, remedy
from benchmarks.longv.video_scores import (
    Consistency,
    Flow,
    Judged,
    Mean,
    Truth,
    WarpError,
    count_frames,
    estimate_flows,
    evenly_spaced,
    stream,
)
from scenes.training.classifier import Judge, load_judge

Update = Callable[[np.ndarray], None]
Result = Callable[[], dict[str, float | None]]
INSTALL = "run: pip install -r requirements-dev.txt"
JUDGE = Path(__file__).resolve().parents[2] / "assets" / "judge"  # a worker's working directory may be another


@lru_cache(maxsize=1)
def _judge(device: torch.device) -> Judge:
    return load_judge(JUDGE, device)


@dataclass(frozen=True)
class LongVScorer:
    """The models by name or file; what is not on this machine is left out."""

    clip: str = CLIP
    dino: str = DINO
    aesthetic: str | None = None  # LAION's head
    dover: str | None = None  # TorchScript
    pairs: int = 16  # of frames, for the warp error
    truths: int = 48  # frames that are compared with the true edit of a drawn clip
    device: str = "auto"

    def skipped(self) -> dict[str, str]:
        """The scores that are left out on this machine, with the remedy for each."""
        found = {}
        if not is_available(self.clip):
            found["semantic_consistency"] = found["prompt_agreement"] = remedy(self.clip)
        if not is_available(self.dino):
            found["object_consistency"] = remedy(self.dino)
        if self.aesthetic is None or not Path(self.aesthetic).is_file():
            found["frame_quality"] = HEAD_HINT
        elif not is_available(self.clip):
            found["frame_quality"] = remedy(self.clip)
        if self.dover is None or not Path(self.dover).is_file():
            found["video_quality"] = HINT
        if find_spec("skimage") is None:
            found["warp_error"] = INSTALL
        return found

    def identity(self) -> dict[str, Any]:
        skipped = self.skipped()
        return {
            "clip": None if "semantic_consistency" in skipped else self.clip,
            "dino": None if "object_consistency" in skipped else self.dino,
            "aesthetic": None if "frame_quality" in skipped else Path(str(self.aesthetic)).name,
            "dover": None if "video_quality" in skipped else Path(str(self.dover)).name,
            "warp_pairs": None if "warp_error" in skipped else self.pairs,
            "truths": self.truths,
        }

    def score(self, clip: Entry, prompt: str, source: Path, edited: Path) -> dict[str, Any]:
        """Return the scores by name, without those in `skipped`; a drawn clip has its warp error in any case."""
        device, skipped = pick_device(self.device), self.skipped()
        count, info = count_frames(edited), probe(edited)
        parts: list[tuple[Update, Result]] = []
        if "semantic_consistency" not in skipped:
            head = None if "frame_quality" in skipped else self.aesthetic
            parts.append(_by_clip(Clip(self.clip, device), clip.prompts[prompt], head))
        if "object_consistency" not in skipped:
            parts.append(_by_dino(Dino(self.dino, device)))
        if "video_quality" not in skipped:
            quality = VideoQuality(load_dover(str(self.dover), device), count, device)
            parts.append((quality.update, lambda: {"video_quality": quality.result()}))
        film, begin = film_of(clip), _begin(clip, source)
        if film is not None:
            truth = Truth(film, prompt, evenly_spaced(count, self.truths), begin)
            for part in (truth, Judged(_judge(device), film, prompt)):
                parts.append((part.update, part.result))
        size = (info.width, info.height)
        if film is not None and (film.size, film.size) == size:
            flows = {number: film.flow(begin + number) for number in evenly_spaced(count - 1, self.pairs)}
            parts.append(_by_flow(flows, source, size, begin))
        elif "warp_error" not in skipped:
            flows = estimate_flows(source, begin, tuple(evenly_spaced(count - 1, self.pairs)), size)
            parts.append(_by_flow(flows, source, size, begin))
        for frames in stream(edited):
            for update, _ in parts:
                update(frames)
        return {name: value for _, result in parts for name, value in result().items()}


def _begin(clip: Entry, source: Path) -> int:
    """Return the number in the source file of the edit's first frame."""
    return parse_range(clip.frames).indices(count_frames(source))[0] if clip.frames else 0


def _by_clip(model: Clip, prompt: str, head: str | None) -> tuple[Update, Result]:
    """Compute all scores that use CLIP's features; these take longest and are computed once."""
    wanted = model.text(prompt)
    linear = load_aesthetic(head) if head is not None else None
    if linear is not None and len(linear[0]) != len(wanted):
        raise AdaFlowError(f"{head} was made for another CLIP than {model.name}; {HEAD_HINT}")
    consistency, agreement, quality = Consistency(), Mean(), Mean()

    def update(frames: np.ndarray) -> None:
        rows = model.images(frames)
        consistency.update(rows)
        agreement.update(rows @ wanted)
        if linear is not None:
            quality.update(rows @ linear[0] + linear[1])

    def result() -> dict[str, float | None]:
        found = {"semantic_consistency": consistency.result(), "prompt_agreement": agreement.result()}
        return found | ({} if linear is None else {"frame_quality": quality.result()})

    return update, result


def _by_dino(model: Dino) -> tuple[Update, Result]:
    consistency = Consistency()
    return (
        lambda frames: consistency.update(model.images(frames)),
        lambda: {"object_consistency": consistency.result()},
    )


def _by_flow(flows: dict[int, Flow], source: Path, size: tuple[int, int], begin: int) -> tuple[Update, Result]:
    """Compute the warp error of the edit, and that of the source, which a perfect edit would have too."""
    error = WarpError(flows)

    def result() -> dict[str, float | None]:
        own = WarpError(flows)
        for frames in stream(source, size, begin=begin):
            own.update(frames)
        return {"warp_error": error.result(), "warp_error_of_source": own.result()}

    return error.update, result
