"""What can be said of an edit without knowing what it should look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from adaflow_core.model.ddim import add_noise, predict_x0_eps
from adaflow_core.progress import Monitor
from adaflow_core.report.edges import edges
from adaflow_core.report.flicker import flicker, pairs_of
from adaflow_core.types import Plan

if TYPE_CHECKING:
    from adaflow_core.model.backbone import Backbone


LOOKED_AT = 8  # frames that the model is asked about
MOMENTS = (0.2, 0.4, 0.6, 0.8)  # of the noise schedule
SAME = 8.0  # levels of 0..255: a root mean square change of the colours that is none
STILL = 0.2  # levels: a mean change between frames that is none
# Spread of what two prompts differ in over a frame, as a part of its mean, under which they differ all over it. On
# eight pairs of the drawn world: objects and colours 1.2 to 2.7, backgrounds and styles 0.3 to 0.9.
LOCAL = 1.1
# From here on a visitor is told. True edits of the drawn world have up to 15 % rims and 1 level of flicker; with the
# smooth noise of 3 levels on each frame they have 2.7 levels and more. They agree with the prompt by 81 % and more.
RIMS, FLICKER = 0.18, 2.0
UNSEEN = 0.1  # up to here too


class Shown(NamedTuple):
    """What a frame is to show."""

    prompt: str
    source_prompt: str  # what its source shows
    surroundings: bool = False  # whether the words name what surrounds a thing that stays


@dataclass(frozen=True)
class Scores:
    """Figures on one edit."""

    agreement: float | None  # 0..1, see `look`; None: nothing is asked for that the source does not show, or in sight
    untouched: float | None  # 0..1, share of the pixels that are as in the source; None: the prompt changes all of them
    liveliness: float | None  # change from frame to frame, the source's is 1; None: the source stands still
    flicker: float | None = None  # levels of 0..255, see `flicker`
    edge_error: float | None = None  # levels of 0..255, see `Edges`; None: what changed has no edge
    rims: float | None = None  # 0..1, share of the edge that is a rim
    rim_frame: int | None = None  # the frame with most of them
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
    """What a model says of frames under two prompts."""

    agreement: float  # 0..1: 0 is what it would draw for the other prompt, 1 for this one
    local: bool  # whether the prompts differ in one place


def score(
    backbone: Backbone,
    plan: Plan,
    frames: np.ndarray,
    prompts: Sequence[Shown | None],
    monitor: Monitor,
    place: np.ndarray | None = None,  # [T, h, w] 0..1 on the latents' grid, the region that was to be edited
) -> Scores:
    """`frames` [T, H, W, 3] uint8 are an edit of `plan`; `prompts` [T]: None where a frame is not edited."""
    source, cuts, edited = plan.video.frames, plan.segments.cuts, [t for t, texts in enumerate(prompts) if texts]
    shares = np.ones(len(frames)) if place is None else place.mean(axis=(1, 2))
    # Changed by hand alone, a frame is to show what its source does; so is one in which the region is not in sight.
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
    # An edit of the style is to change every pixel, but for those outside a region.
    all_over = bool(everywhere) and all(everywhere) and place is None
    edge = None if all_over else edges(frames, source, edited, monitor=monitor)
    # A frame that shows a sliver of the region says little of it.
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
    """[F] some of the keyframes that are to show something; of a range without one its middle."""
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
    """How far frames [F, H, W, 3] lie from what the model would draw for `other` towards what it would for `prompt`.

    `place` [F, h, w] 0..1: where that is asked; by default everywhere.
    It predicts the clean latents from noisy ones under both prompts; the frames' own are projected on the line between
    the two, so that each place weighs by how much the prompts differ there. What is left of the source there counts: of
    the drawn world's true edits, halfway blends with the source and sources the model finds 81 to 102 %, 36 to 55 % and
    -12 to 22 %. The diffusion model is its own classifier (Li et al. 2023, arXiv 2303.16203), so any checkpoint will do
    and nothing else is loaded.
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
            states = backbone.embed(text).states.expand(len(frames), -1, -1)
            predicted = backbone.predict(noisy, timestep, states).cpu().float()
            drawn.append(predict_x0_eps(schedule, noisy, predicted, timestep)[0])
        line = drawn[0] - drawn[1]  # [F, 4, h, w]
        size = line.square().sum(dim=1).sqrt().flatten(1)
        there = line if weights is None else line * weights
        along.append(((clean - drawn[1]) * there).sum() / (line * there).sum().clamp(min=1e-12))
        spread.append((size.std(dim=1) / size.mean(dim=1).clamp(min=1e-12)).mean())
    return Look(float(torch.stack(along).mean().clamp(0, 1)), float(torch.stack(spread).mean()) >= LOCAL)


def untouched(frames: np.ndarray, source: np.ndarray, *, monitor: Monitor) -> float:
    """Share of the pixels [T, H, W] whose colour changed by less than `SAME`."""
    shares = []
    with monitor.stage("score", len(frames)) as stage:
        for t in range(len(frames)):
            change = frames[t].astype(np.float32) - source[t]
            shares.append(float((np.square(change).mean(axis=-1) < SAME**2).mean()))
            stage.advance()
    return float(np.mean(shares))


def liveliness(
    frames: np.ndarray,
    source: np.ndarray,
    cuts: np.ndarray,
    edited: Sequence[int] | None = None,
    *,
    monitor: Monitor,
) -> float | None:
    """Mean change from frame to frame of those that are `edited`, by default all, as a part of the source's.

    Cuts do not count. None where the source stands still.
    """
    pairs, changes = pairs_of(len(frames), cuts, edited), []
    if not len(pairs):
        return None
    with monitor.stage("score", len(pairs)) as stage:
        for t in pairs:
            changes.append([np.abs(video[t].astype(np.int16) - video[t - 1]).mean() for video in (frames, source)])
            stage.advance()
    now, before = np.mean(changes, axis=0).tolist()
    return now / before if before > STILL else None


def psnr(first: np.ndarray, second: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB of uint8 pictures [..., H, W, 3], over `mask` [..., H, W] if given."""
    difference = first.astype(np.float64) - second.astype(np.float64)
    if mask is not None:
        difference = difference[mask]
    if not difference.size:
        return float("nan")
    error = float(np.mean(difference**2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))
