"""A mask carried from the frames on which it was painted to all frames.

The mask follows the source's optical flow from frame to frame, forwards and backwards from every painted frame. Where
the flow cannot be trusted, and at the mask's edge, colours decide: how much more often a colour occurs inside the mask
than outside, in the painted frames and in those just passed. So a thing that comes back into sight, or is seen in
another shot, is found again, unless its surroundings have the same colours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from adaflow_core.editing.place.cutout import Bools, Colours, Floats, cleaned, guided, iou, probability
from adaflow_core.picture.region.ways import Advance, Way, go, shots_of, ways
from adaflow_core.progress import Stage
from adaflow_core.storage.arrays import scratch

CERTAIN = 5.0  # limit of the log odds of a carried mask
DOUBT = -1.0  # log odds of being inside where nothing was carried
BAND = 1 / 50  # of the shorter side: how far from the mask's edge colours count in full
FLAT = 0.15  # weight of colours elsewhere
LIKE = 24.0  # levels of 0..255 by which a pixel may differ from the one that its mask comes from
MISS = 1.0  # pixels by which the flow there and back may miss its starting point
DISTINCT = 0.5  # IoU that colours alone must reach on the painted frames to find a thing in another shot
SMALLEST = 0.004  # share of the least painted area: smaller pieces and holes of carried masks count as errors


@dataclass(frozen=True)
class Source:
    """The frames along which a mask is carried, and their motion."""

    frames: np.ndarray  # [T, H, W, 3] uint8
    flow: np.ndarray  # [T - 1, 2, H / 2, W / 2, 2], from `source_flow`

    def motion(self, t: int, other: int) -> tuple[Floats, Floats]:
        """Return the flow from frame `t` to its neighbour `other`, and back: [H, W, 2] pixels (x, y) each."""
        pair = self.flow[min(t, other)].astype(np.float32)
        size = self.frames.shape[2], self.frames.shape[1]
        there, back = (cv2.resize(way, size) for way in (pair if other > t else pair[::-1]))
        return there, back


def carry(source: Source, cuts: np.ndarray, painted: Mapping[int, Bools], stage: Stage) -> NDArray[np.uint8]:
    """Return the masks of all frames, [T, H, W] uint8, 255 inside. The stage counts every frame twice."""
    T, H, W, _ = source.frames.shape
    out = scratch(np.uint8, (T, H, W))
    colours = Colours.of(source.frames, painted)
    # By the smallest painted mask: a thing that drives away may be painted near and far.
    smallest = SMALLEST * float(min((inside.sum() for inside in painted.values() if inside.any()), default=0))
    distinct = np.mean([iou(alone(colours, source.frames[t]) > 0.5, inside) for t, inside in painted.items()])
    known: dict[int, Floats] = {t: inside.astype(np.float32) for t, inside in painted.items()}
    shots = shots_of(cuts, T)

    def find(shot: range, advance: Advance) -> None:
        """Add to `known`, of a shot without a painted frame, the frame that shows most of the thing by its colours."""
        mask = alone(colours, source.frames[shot.start])
        out[shot.start] = (255 * mask).round()
        _follow(source, colours.again(), Way(shot.start, shot[1:]), mask, out, lambda _: advance(0))
        best = shot.start + int(np.argmax([(out[t] > 127).sum() for t in shot]))
        known[best] = out[best] / np.float32(255)

    def follow(way: Way, advance: Advance) -> None:
        _follow(source, colours.again(), way, known[way.known], out, advance)

    def clean(t: int, advance: Advance) -> None:
        out[t] = np.where(painted[t] if t in painted else cleaned(out[t] > 127, smallest), 255, 0)

    if distinct >= DISTINCT:
        go(find, [shot for shot in shots if known.keys().isdisjoint(shot)], stage)
    reached = [shot for shot in shots if not known.keys().isdisjoint(shot)]
    for shot in shots:
        if shot not in reached:
            out[shot.start : shot.stop] = 0
    for t, mask in known.items():
        out[t] = (255 * mask).round()
    stage.advance(2 * (T - sum(map(len, reached)) + len(known)))
    for some in ways(reached, known):
        go(follow, some, stage)
    go(clean, [t for shot in reached for t in shot], stage)
    return out


def _follow(source: Source, colours: Colours, way: Way, mask: Floats, out: NDArray[np.uint8], advance: Advance) -> None:
    """Propagate `mask` from the known frame along `way`, and write it to `out`.

    A way back from a second known frame is blended by distance with what is there.
    """
    frames = source.frames
    for t in way.frames:
        other = t - way.frames.step
        mask = step(colours, frames[t], frames[other], mask, *source.motion(t, other))
        colours.learn(frames[t], mask)
        if way.back and way.other is not None:
            share = way.share(t)
            out[t] = ((1 - share) * out[t] + share * 255 * mask.astype(np.float64)).round()
        else:
            out[t] = (255 * mask).round()
        advance(way.count)


def step(
    colours: Colours,
    frame: np.ndarray,  # [H, W, 3] uint8
    other: np.ndarray,  # [H, W, 3] its neighbour
    mask: Floats,  # [H, W] 0..1, the neighbour's
    there: Floats,  # [H, W, 2] the flow to the neighbour
    back: Floats,  # [H, W, 2] the flow from the neighbour
) -> Floats:
    """Return the mask of `frame`, [H, W] 0..1, from that of its neighbour."""
    H, W = mask.shape
    x, y = np.meshgrid(np.arange(W, dtype=np.float32), np.arange(H, dtype=np.float32))
    u, v = x + there[..., 0], y + there[..., 1]
    carried, returned, looked = (
        cv2.remap(picture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for picture in (mask, back, np.ascontiguousarray(other))
    )
    found = (np.square(there + returned).sum(-1) < MISS**2) & (u >= 0) & (v >= 0) & (u <= W - 1) & (v <= H - 1)
    differs = cv2.blur(np.square(frame.astype(np.float32) - looked).mean(-1), (3, 3))
    trust = found * np.exp(-differs / LIKE**2)

    prior = np.clip(np.log((carried + 1e-3) / (1 - carried + 1e-3)), -CERTAIN, CERTAIN)
    prior = trust * prior + (1 - trust) * (DOUBT + 0.3 * prior)
    width = 2 * max(1, round(BAND * min(H, W))) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    inside = (carried > 0.5).astype(np.uint8)
    band = cv2.dilate(inside, kernel) > cv2.erode(inside, kernel)
    share = np.maximum(np.maximum(band, 1 - trust), FLAT)
    return guided(frame, probability(prior + share * colours.odds(frame)))


def alone(colours: Colours, frame: np.ndarray) -> Floats:
    """Return the mask of a frame, [H, W] 0..1, by its colours alone."""
    return guided(frame, probability(DOUBT + colours.odds(frame)))
