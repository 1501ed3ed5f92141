"""Makes a stretch of a plan into a plan of its own, and lays edited stretches over a film.

The keyframes of a stretch attend only to each other, so that each stretch is edited as it would be alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np

from adaflow_core.config import PlanConfig
from adaflow_core.storage.arrays import taken
from adaflow_core.team.team import ALONE, Team
from adaflow_core.types import Correspondence, EditLayout, Features, Forecast, Grid, Plan, Segments


@dataclass(frozen=True)
class Laid:
    """Edited frames, and the weight with which each is shown over the frame below it."""

    start: int  # their first frame in the film
    frames: np.ndarray  # [F, H, W, 3] uint8
    weights: np.ndarray  # [F] 0..1


def clip(segments: Segments, start: int, end: int, edited: np.ndarray | None = None) -> Segments:
    """The segments of frames `start` to `end`, counted from `start`.

    A segment that loses its keyframe gets its middle frame as the keyframe. If it is known which frames [E] are
    `edited`, it gets the nearest of these; a segment without any is joined to the one beside it.
    """
    starts, ends = np.clip(segments.starts, start, end), np.clip(segments.ends, start, end)
    inside = starts < ends
    starts, ends, keyframes = starts[inside], ends[inside], segments.keyframes[inside]
    lost = (keyframes < starts) | (keyframes >= ends)
    keyframes = np.where(lost, (starts + ends - 1) // 2, keyframes)
    cuts = segments.cuts[(segments.cuts > start) & (segments.cuts < end)]
    segments = Segments(starts - start, keyframes - start, cuts - start, end - start)
    return segments if edited is None else _among(segments, np.flatnonzero(lost), edited - start)


def _among(segments: Segments, lost: np.ndarray, edited: np.ndarray) -> Segments:
    """The segments: each that `lost` [L] its keyframe gets one of the `edited` [E], or is joined to a neighbour."""
    starts, keyframes, stays = segments.starts.copy(), segments.keyframes.copy(), np.ones(len(segments), bool)
    for i in lost.tolist():
        known = edited[(edited >= starts[i]) & (edited < segments.ends[i])]
        if len(known):
            keyframes[i] = known[np.abs(known - keyframes[i]).argmin()]
        elif stays[:i].any():
            stays[i] = starts[i] in segments.cuts
        elif len(starts) > i + 1 and segments.ends[i] not in segments.cuts:
            starts[i + 1], stays[i] = starts[i], False
    return Segments(starts[stays], keyframes[stays], segments.cuts, segments.T)


def stretch_of(
    plan: Plan,
    start: int,
    end: int,
    source_prompt: str | None,  # of the stretch; by default the plan's
    lay_out: Callable[[Features, Segments, list[Grid], PlanConfig], EditLayout],
    segments: Segments | None = None,  # of the stretch; by default the plan's own, clipped
) -> Plan:
    """Frames `start` to `end` of a plan as a plan of their own, with the layout that `lay_out` makes of them."""
    config = plan.config if source_prompt is None else replace(plan.config, source_prompt=source_prompt)
    if (start, end) == (0, len(plan.video)) and segments is None:
        return replace(plan, config=config)
    frames, features = slice(start, end), plan.features.part(start, end)
    segments = segments or clip(plan.segments, start, end)
    curves = ("adjacent", "similarity", "window", "heat", "residual")
    return replace(
        plan,
        video=plan.video.part(start, end),
        config=config,
        features=features,
        segments=segments,
        layout=lay_out(features, segments, plan.grids, config),
        seconds={},
        **{name: getattr(plan, name)[frames] for name in curves},
    )


def only_frames(plan: Plan, frame_ids: np.ndarray) -> Plan:
    """Return the plan of a film of the frames `frame_ids` [F] only, which are ascending and include all keyframes.

    Keyframes attend to each other as in the plan, and the other frames are propagated from the same keyframes.
    """
    keyframes, all_of_it = np.searchsorted(frame_ids, plan.layout.keyframes), plan.layout.correspondence
    correspondence = Correspondence(
        taken(all_of_it.slots, frame_ids),
        {grid: taken(weights, frame_ids) for grid, weights in all_of_it.weights.items()},
        {grid: taken(index, frame_ids) for grid, index in all_of_it.index.items()},
    )
    starts, cuts = (np.searchsorted(frame_ids, borders) for borders in (plan.segments.starts, plan.segments.cuts))
    digest = blake2b(plan.video.digest.encode() + frame_ids.tobytes(), digest_size=16).hexdigest()
    return replace(
        plan,
        video=replace(plan.video, frames=taken(plan.video.frames, frame_ids), digest=digest, times=None, part_of=None),
        segments=Segments(starts, keyframes, cuts, len(frame_ids)),
        layout=EditLayout(keyframes, plan.layout.slimming, correspondence),
    )


def together(forecasts: list[Forecast]) -> Forecast:
    """The forecast of stretches that are edited one after another."""
    stages = dict.fromkeys(stage for one in forecasts for stage in one.seconds)
    seconds = {stage: sum(one.seconds.get(stage, 0.0) for one in forecasts) for stage in stages}
    return Forecast(seconds, max(one.peak_memory_bytes for one in forecasts))


def ramp(frames: int, rise: int, fall: int) -> np.ndarray:
    """Return [frames] weights 0..1 that rise over the first `rise` and fall over the last `fall` frames; 0: a cut."""
    up = np.minimum(1, np.arange(1, frames + 1) / (rise + 1))
    down = np.minimum(1, np.arange(frames, 0, -1) / (fall + 1))
    return np.minimum(up, down)


def lay_over(below: np.ndarray, parts: Iterable[Laid], team: Team = ALONE) -> np.ndarray:
    """[T, H, W, 3] uint8: the parts over the frames `below`, which keep every byte where no part is.

    The parts must come in the order of their starts. Where parts overlap, their weights must add up to at most 1; the
    rest is the frame below. The processes of the `team` share the frames out.
    """
    out, own = team.scratch(np.uint8, below.shape), team.own(len(below))
    out[own] = below[own]
    _lay(out, below, parts, own)
    team.wait()
    return out


def lay_into(frames: np.ndarray, part: Laid, team: Team = ALONE) -> None:
    """Lay one part over `frames` in place; all processes of the `team` share them."""
    team.wait()  # until no process needs the frames as they were
    _lay(frames, frames, [part], team.own(len(frames)))
    team.wait()


def _lay(out: np.ndarray, below: np.ndarray, parts: Iterable[Laid], own: slice) -> None:
    """Write the parts over `below` into this process's `own` frames of `out`."""
    mixed: dict[int, np.ndarray] = {}  # float32 sums of frames to which a later part may still add

    def write(end: int) -> None:
        for t in [t for t in mixed if t < end]:
            out[t] = mixed.pop(t).round().clip(0, 255)

    for part in parts:
        write(part.start)
        first, last = max(part.start, own.start), min(part.start + len(part.frames), own.stop)
        for t in range(first, last):
            frame, weight = part.frames[t - part.start], part.weights[t - part.start]
            if weight == 1:
                out[t] = frame
            else:
                before = mixed.setdefault(t, below[t].astype(np.float32))
                before += weight * (frame.astype(np.float32) - below[t])
    write(len(out))
