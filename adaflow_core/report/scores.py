"""Scores of an edit that need no picture of what it should look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from adaflow_core.model.ddim import add_noise, predict_x0_eps
from adaflow_core.motion.flow import one_opencv_thread
from adaflow_core.progress import Monitor, in_threads
from adaflow_core.report.edges import edges
from adaflow_core.report.flicker import flicker, pairs_of
from adaflow_core.types import Plan

if TYPE_CHECKING:
    from adaflow_core.model.backbone import Backbone


LOOKED_AT = 8  # most frames that the model judges
MOMENTS = (0.2, 0.4, 0.6, 0.8)  # parts of the noise schedule at which it does
SAME = 8.0  # levels of 0..255: a smaller root mean square change of a colour counts as none
STILL = 0.2  # levels: a smaller mean change between frames counts as none
# Deviation over a frame of the difference between two prompts' predictions, divided by its mean. Below this they differ
# all over the frame. On eight pairs of the drawn world: objects and colours 1.2 to 2.7, backgrounds and styles 0.3 to
# 0.9.
LOCAL = 1.1
# From these values on the user is warned. True edits of the drawn world have up to 15 % rims and 1 level of flicker;
# with smooth noise of 3 levels on each frame they have 2.7 levels and more. Their agreement is 81 % or more.
RIMS, FLICKER = 0.18, 2.0
UNSEEN = 0.1  # the user is warned up to this agreement


class Shown(NamedTuple):
    """What a frame should show."""

    prompt: str
    source_prompt: str  # what its source shows
    surroundings: bool = False  # whether the words name what surrounds a thing that stays


@dataclass(frozen=True)
class Scores:
    """Figures on one edit."""

    agreement: float | None  # 0..1, see `look`; None: no frame should show anything that its source does not
    untouched: float | None  # 0..1, share of pixels that are as in the source; None: the prompt changes all of them
    liveliness: float | None  # change from frame to frame, divided by the source's; None: the source stands still
    flicker: float | None = None  # levels of 0..255, see `flicker`
    edge_error: float | None = None  # levels of 0..255, see `Edges`; None: what changed has no edge
    rims: float | None = None  # 0..1, share of the edge that is a rim
    rim_frame: int | None = None  # the frame with most rims
    residual: tuple[float, ...] | None = None  # [T] see `planning.residual.edited_residual`

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on what is wrong with the edit."""
        found = []
        if self.agreement is not None and self.agreement <= UNSEEN:
            found.append(
                f"little of the prompt is seen (agreement {self.agreement:.0%}): word it like the source prompt, with "
                "other words only for what is to change; a lower structure or injection leaves more room for it"
            )
        if self.rims is not None and self.rims >= RIMS:
            found.append(
                f"there are rims along {self.rims:.0%} of the edges, most in frame {self.rim_frame}; a lower detail "
                "takes less of the source near them"
            )
        if self.flicker is not None and self.flicker >= FLICKER:
            found.append(
                f"the edit flickers by {self.flicker:.1f} levels of 255 from frame to frame where the source does not; "
                "more smoothing or more keyframes calm it"
            )
        return tuple(found)


@dataclass(frozen=True)
class Look:
    """How a model judges frames under two prompts."""

    agreement: float  # 0..1: 0 is what it would draw for the other prompt, 1 what it would for this one
    local: bool  # whether the prompts differ in one place


def score(
    backbone: Backbone,
    plan: Plan,
    frames: np.ndarray,
    prompts: Sequence[Shown | None],
    monitor: Monitor,
    place: np.ndarray | None = None,  # [T, h, w] 0..1 on the latents' grid, the region that was to be edited
) -> Scores:
    """Score an edit of `plan` with `frames` [T, H, W, 3] uint8; `prompts` [T] is None where a frame is not edited."""
    source, cuts, edited = plan.video.frames, plan.segments.cuts, [t for t, texts in enumerate(prompts) if texts]
    shares = np.ones(len(frames)) if place is None else place.mean(axis=(1, 2))
    # Frames changed only by hand should show what their source does, and so should frames without the region.
    asked = [
        texts if texts and texts.prompt != texts.source_prompt and share > 0 else None
        for texts, share in zip(prompts, shares, strict=True)
    ]
    chosen = _looked_at(plan.segments.keyframes, asked)
    looks, everywhere = [], []
    with monitor.stage("score", len(chosen) * len(MOMENTS)) as stage:
        for frame in chosen:
            texts = prompts[frame]
            assert texts is not None
            part = slice(frame, frame + 1)
            within = None if place is None else place[part]
            looks.append(look(backbone, frames[part], texts.prompt, texts.source_prompt, within))
            everywhere.append(not looks[-1].local and not texts.surroundings)
            stage.advance(len(MOMENTS))
    # An edit of the style should change every pixel, except outside a region.
    all_over = bool(everywhere) and all(everywhere) and place is None
    edge = None if all_over else edges(frames, source, edited, monitor=monitor)
    # A frame that shows only a sliver of the region says little about it.
    agreement = np.average([found.agreement for found in looks], weights=shares[chosen]) if looks else None
    return Scores(
        agreement=None if agreement is None else float(agreement),
        untouched=None if all_over else untouched(frames, source, monitor=monitor),
        liveliness=liveliness(frames, source, cuts, edited, monitor=monitor),
        flicker=flicker(frames, source, cuts, edited, monitor=monitor),
        edge_error=None if edge is None else edge.error,
        rims=None if edge is None else edge.rims,
        rim_frame=None if edge is None else edge.worst,
    )


def _looked_at(keyframes: np.ndarray, prompts: Sequence[Shown | None]) -> np.ndarray:
    """Return [F], some of the keyframes with a prompt; the middle of a range of frames that has no keyframe."""
    found, start = list[int](), 0
    for texts, run in groupby(prompts):
        end = start + len(list(run))
        if texts is not None:
            inside = keyframes[(keyframes >= start) & (keyframes < end)].tolist()
            found += inside or [(start + end) // 2]
        start = end
    even = np.unique(np.linspace(0, len(found) - 1, min(LOOKED_AT, len(found))).astype(int))
    return np.array(found, np.int64)[even]


@torch.inference_mode()
def look(backbone: Backbone, frames: np.ndarray, prompt: str, other: str, place: np.ndarray | None = None) -> Look:
    """Return how far frames [F, H, W, 3] are what the model draws for `prompt` (1) rather than for `other` (0).

    `place` [F, h, w] 0..1: where to look; by default everywhere.
    The model predicts clean latents from noisy ones under both prompts. The frames' own latents are projected on the
    line between the two predictions, so each place counts by how much the prompts differ there. What is left of the
    source lowers the value: in the drawn world, true edits have 81 to 102 %, halfway blends with the source 36 to 55 %
    and sources -12 to 22 %, before they are limited to 0..1. The diffusion model serves as the classifier (Li et al.
    2023, arXiv 2303.16203), so any checkpoint will do and nothing else is loaded.
    """
    clean = backbone.encode(frames).float().cpu()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    weights = None if place is None else torch.from_numpy(np.asarray(place, np.float32))[:, None]
    schedule, along, spread = backbone.schedule, [], []
    for moment in MOMENTS:
        timestep = round(moment * (schedule.train_steps - 1))
        noisy = add_noise(schedule, clean, noise, timestep)
        drawn = []
        for text in (prompt, other):
            prompt_embeds = backbone.embed(text).prompt_embeds.expand(len(frames), -1, -1)
            predicted = backbone.predict(noisy, timestep, prompt_embeds).cpu().float()
            drawn.append(predict_x0_eps(schedule, noisy, predicted, timestep)[0])
        line = drawn[0] - drawn[1]  # [F, 4, h, w]
        size = line.square().sum(dim=1).sqrt().flatten(1)
        there = line if weights is None else line * weights
        along.append(((clean - drawn[1]) * there).sum() / (line * there).sum().clamp(min=1e-12))
        spread.append((size.std(dim=1) / size.mean(dim=1).clamp(min=1e-12)).mean())
    return Look(float(torch.stack(along).mean().clamp(0, 1)), float(torch.stack(spread).mean()) >= LOCAL)


def untouched(frames: np.ndarray, source: np.ndarray, *, monitor: Monitor) -> float:
    """Return the share of the pixels [T, H, W] whose colour changed by less than `SAME`."""
    import cv2

    shares = np.empty(len(frames))

    def compare(t: int) -> int:
        change = cv2.absdiff(frames[t], source[t]).astype(np.int32)
        shares[t] = (np.einsum("hwc,hwc->hw", change, change) < 3 * SAME**2).mean()
        return 1

    with monitor.stage("score", len(frames)) as stage, one_opencv_thread():
        in_threads(compare, range(len(frames)), stage.advance)
    return float(shares.mean())


def liveliness(
    frames: np.ndarray,
    source: np.ndarray,
    cuts: np.ndarray,
    edited: Sequence[int] | None = None,
    *,
    monitor: Monitor,
) -> float | None:
    """Return the mean change from frame to frame, divided by the source's; None if the source stands still.

    Only pairs of frames count that are both `edited` (default: all) and in the same shot.
    """
    import cv2

    pairs = pairs_of(len(frames), cuts, edited)
    if not len(pairs):
        return None
    changes = np.empty((len(pairs), 2))

    def compare(place: int) -> int:
        t = pairs[place]
        changes[place] = [cv2.norm(video[t], video[t - 1], cv2.NORM_L1) / video[t].size for video in (frames, source)]
        return 1

    with monitor.stage("score", len(pairs)) as stage, one_opencv_thread():
        in_threads(compare, range(len(pairs)), stage.advance)
    now, before = changes.mean(axis=0).tolist()
    return now / before if before > STILL else None


def psnr(first: np.ndarray, second: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Return the peak signal-to-noise ratio (dB) of uint8 pictures [..., H, W, 3], over `mask` [..., H, W] if given."""
    difference = first.astype(np.float64) - second.astype(np.float64)
    if mask is not None:
        difference = difference[mask]
    if not difference.size:
        return float("nan")
    error = float(np.mean(difference**2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))
