"""What was changed by hand in a few frames, carried to the others along the source's motion.

For each pixel of a frame, its origin in a given frame is tracked. One candidate is the flow composed from frame to
frame, so that a picture is sampled only once however far it is carried. Another is the affine motion of what was
changed, which knows where its flat parts went. Both are refined against the given frame itself, so that nothing drifts.
Each pixel takes the candidate under which the source looks most like the given frame; the more alike they look, the
better the change is known there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from adaflow_core.picture.region.carry import Source
from adaflow_core.picture.region.ways import Advance, Way, go, shots_of, ways
from adaflow_core.progress import Stage
from adaflow_core.storage.arrays import scratch

Floats = NDArray[np.float32]

MISS = 1.0  # pixels by which the flow there and back may miss its starting point
LIKE = 20.0  # levels of 0..255 by which a pixel may differ from its origin
SHADE, WIDE = 0.3, 21  # weight of a mean difference over WIDE pixels: light stays in place when a thing turns
STRAY = 4.0  # pixels by which an origin may be moved by its refinement
POINTS, LEAST, OFF = 800, 50, 1.5  # of an affine fit: most and fewest points, pixels by which an inlier may be off
VISIBLE = 8  # levels of 0..255: a larger difference counts as changed
HARDLY = 0.001  # share of changed pixels below which an edit changed nothing: 16x16 of 512x512 pixels


class Origin(NamedTuple):
    """Where in a given frame each pixel of another frame comes from."""

    x: Floats  # [H, W]
    y: Floats

    def at(self, picture: np.ndarray) -> Floats:
        """Sample `picture` [H, W] or [H, W, c] at the origins: bilinear, clamped at the edge."""
        found = cv2.remap(picture.astype(np.float32), self.x, self.y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(found, np.float32)

    def inside(self) -> NDArray[np.bool_]:
        H, W = self.x.shape
        return (self.x >= -1) & (self.y >= -1) & (self.x <= W) & (self.y <= H)


@dataclass(frozen=True)
class Given:
    """A frame that was changed by hand."""

    frame: int
    source: np.ndarray  # [H, W, 3] uint8
    picture: np.ndarray  # [H, W, 3] uint8, as it was given back

    @property
    def change(self) -> Floats:
        return self.picture.astype(np.float32) - self.source

    @property
    def changed(self) -> NDArray[np.bool_]:
        """[H, W] bool, where it was changed, with small holes closed."""
        size = cv2.blur(np.abs(self.change).max(axis=-1), (5, 5))
        return cv2.morphologyEx((size > VISIBLE).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8)) > 0


def hardly_changed(frames: np.ndarray, source: np.ndarray, inside: np.ndarray | None = None) -> bool:
    """Return whether next to none of the pixels of an edit's frames [T, H, W, 3] uint8 differ from the source's.

    `inside` are the weights of a region, not 0 inside: the number of changed pixels is then compared with the region's.
    """
    all_of_it = source[..., 0].size if inside is None else sum(int(np.count_nonzero(mask)) for mask in inside)
    changed = 0
    for now, was in zip(frames, source, strict=True):
        changed += int((cv2.absdiff(np.ascontiguousarray(now), np.ascontiguousarray(was)).max(axis=-1) > VISIBLE).sum())
        if changed >= HARDLY * all_of_it:  # as a rule in the first frame
            return False
    return True


def itself(height: int, width: int) -> Origin:
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return Origin(x, y)


def follow(source: Source, given: Given, frames: range) -> Iterator[tuple[int, Origin, Floats]]:
    """Yield frames away from the given one: the frame, its origin there, and how far to trust that, [H, W] 0..1."""
    here = itself(*given.changed.shape)
    origin, area = here, given.changed.astype(np.float32)
    changed, grey = area.copy(), _grey(given.source)
    for t in frames:
        there, back = source.motion(t, t - frames.step)
        before = Origin(here.x + there[..., 0], here.y + there[..., 1])
        found = np.square(there + before.at(back)).sum(axis=-1) < MISS**2
        ways = [Origin(before.at(origin.x), before.at(origin.y))]
        affine = _affine(ways[0], found & (before.at(area) > 0.5), here)
        ways += [affine] if affine is not None else []
        ways += [_refined(_grey(source.frames[t]), grey, way, here) for way in ways]
        unlike = np.stack([_unlike(source.frames[t], given.source, way) for way in ways])
        best = unlike.argmin(axis=0)
        origin = Origin(*(cv2.medianBlur(np.choose(best, part), 5) for part in zip(*ways, strict=True)))
        area = origin.at(changed)
        yield t, origin, np.exp(-_unlike(source.frames[t], given.source, origin) / LIKE**2).astype(np.float32)


def carry_changes(
    source: Source,
    cuts: np.ndarray,  # [C] frames that begin a new shot
    pictures: Mapping[int, np.ndarray],  # frame -> [H, W, 3] uint8, as it was given back
    stage: Stage,  # counts frames twice
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the source with the changes, [T, H, W, 3] uint8, and how far they are known, [T, H, W] uint8, 255 in full.

    Between two given frames, the change of one fades into that of the other. Shots without a given frame stay as they
    are, and nothing is known there.
    """
    T = len(source.frames)
    frames, known = scratch(np.uint8, source.frames.shape), scratch(np.uint8, source.frames.shape[:3])
    frames[:], known[:] = source.frames, 0
    for t, picture in pictures.items():
        frames[t], known[t] = picture, 255
    reached = [shot for shot in shots_of(cuts, T) if not pictures.keys().isdisjoint(shot)]
    stage.advance(2 * (T - sum(map(len, reached)) + len(pictures)))

    def show(way: Way, advance: Advance) -> None:
        given = Given(way.known, source.frames[way.known], pictures[way.known])
        for t, new, trust in _shown(source, given, way.frames):
            if way.back:
                _lay(frames, known, t, new, trust, way.share(t))
            else:
                frames[t], known[t] = new.round(), (255 * trust).round()
            advance(way.count)

    for some in ways(reached, pictures):
        go(show, some, stage)
    return frames, known


def _lay(frames: np.ndarray, known: np.ndarray, t: int, new: Floats, trust: Floats, share: float) -> None:
    """Blend a changed frame [H, W, 3] over frame `t` so far, by its `share` and by how far each of them is known."""
    weight = share * trust, (1 - share) * known[t].astype(np.float32) / 255
    part = weight[0] / (weight[0] + weight[1]).clip(min=1e-6)
    frames[t] = (frames[t] + part[..., None] * (new - frames[t])).round().clip(0, 255)
    known[t] = (known[t] + part * (255 * trust - known[t])).round().clip(0, 255)


def _shown(source: Source, given: Given, frames: range) -> Iterator[tuple[int, Floats, Floats]]:
    """Yield frames with the change of a given one, [H, W, 3] 0..255, and how far it is known, [H, W] 0..1."""
    change = given.change
    for t, origin, trust in follow(source, given, frames):
        new = source.frames[t] + trust[..., None] * origin.at(change)
        yield t, new.clip(0, 255).astype(np.float32), trust


def _grey(frame: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)


def _affine(way: Origin, where: NDArray[np.bool_], here: Origin) -> Origin | None:
    """Fit an affine map to `way` on the pixels `where` by RANSAC; None if these are too few."""
    places = np.flatnonzero(where)
    if len(places) < LEAST:
        return None
    places = places[np.linspace(0, len(places) - 1, min(POINTS, len(places))).astype(np.int64)]
    points, origins = (np.stack([side.x.ravel()[places], side.y.ravel()[places]], axis=1) for side in (here, way))
    cv2.setRNGSeed(0)  # the same for every run
    matrix: np.ndarray | None = cv2.estimateAffine2D(points, origins, ransacReprojThreshold=OFF)[0]
    if matrix is None:
        return None
    return Origin(*((a * here.x + b * here.y + c).astype(np.float32) for a, b, c in matrix))


def _refined(frame: np.ndarray, given: np.ndarray, way: Origin, here: Origin) -> Origin:
    """Refine `way` by optical flow from a frame to the given one, both grey, searched around `way`."""
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    first = np.stack([way.x - here.x, way.y - here.y], axis=-1)
    flow = search.calc(frame, given, first.copy())
    near = np.square(flow - first).sum(axis=-1) < STRAY**2
    return Origin(
        *(np.where(near, old + flow[..., i], was) for i, (old, was) in enumerate(zip(here, way, strict=True)))
    )


def _unlike(frame: np.ndarray, given: np.ndarray, way: Origin) -> Floats:
    """Return [H, W], the squared levels by which the pixels around each differ from those they come from."""
    difference = frame - way.at(given)
    difference -= (1 - SHADE) * cv2.blur(difference, (WIDE, WIDE))
    size = cv2.blur(np.square(difference).mean(axis=-1), (5, 5))
    return np.where(way.inside(), size, np.float32(1e6))
