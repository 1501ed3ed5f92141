"""How long what is asked for takes, by the forecast of its plan, which is of an edit of the whole film.

Each forecast is of one of the parts that come one after another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from adaflow_core.editing.forecast import after_edit
from adaflow_core.film.retake import stretch_frames, surroundings
from adaflow_core.film.timeline import Timeline, stretches
from adaflow_core.storage.cache import Cache
from adaflow_core.types import Forecast, Plan

# About how a planning shares its time among its stages, and loading a model among its own.
PLANNING = {
    "decode": 1.0, "encode": 2.0, "features": 3.0, "cuts": 0.5, "similarity": 1.0, "refine": 2.0, "match": 1.0,
    "slim": 0.5, "measure": 3.0,
}  # fmt: skip
LOADING = {"download": 20.0, "load": 1.0}
_OF_EACH_DRAFT = ("edit", "decode frames")  # all else is in the cache after the first of several


def of_edit(
    plan: Plan, timeline: Timeline, takes: Iterable[Mapping[str, Any]] = (), crop: float = 1.0
) -> list[Forecast]:
    """Of the stretches of a timeline, in frames of the plan, and of the takes over them; `crop`: the share of the frame
    that is edited. AdaFlowError where a take is of frames that the plan does not have."""
    T = len(plan.video)
    lengths = [part.end - part.start for part in stretches(timeline, plan.segments.cuts, T)]
    edited = [plan.forecast.times(crop * length / T) for length in lengths]
    return edited + [of_retake(plan, take["frames"], crop) for take in takes]


def of_retake(plan: Plan, frames: tuple[int, int], crop: float = 1.0) -> Forecast:
    """Of a stretch, with the keyframes around it that pass through the model as well; AdaFlowError where it is none."""
    start, end = stretch_frames(plan, frames)
    held = len(surroundings(plan.segments, start, end)[3])
    around = held / len(plan.segments.keyframes)
    whole, alone = plan.forecast, plan.forecast.of_keyframes
    stretch = whole.times(crop * (end - start) / len(plan.video)).seconds
    return replace(whole, seconds={name: s + crop * around * alone.get(name, 0.0) for name, s in stretch.items()})


def of_drafts(plan: Plan, number: int, crop: float = 1.0) -> list[Forecast]:
    """Of so many drafts."""
    whole = plan.forecast.times(crop)
    first = replace(whole, seconds=whole.of_keyframes)
    later = {stage: first.seconds.get(stage, 0.0) for stage in _OF_EACH_DRAFT}
    return [first, *[replace(first, seconds=later)] * (number - 1)]


def to_the_end(parts: Sequence[Forecast], plan: Plan) -> list[Forecast]:
    """The parts of an edit of the plan, with what comes after the last: scoring and writing."""
    last = parts[-1]
    return [*parts[:-1], replace(last, seconds=last.seconds | after_edit(plan, Cache.default()))]


def of_place(plan: Plan) -> Forecast:
    """Of the search for where an edit changes the film."""
    stages = [stage for stage in ("flow", "place") if stage in plan.forecast.seconds]
    return replace(plan.forecast, seconds={stage: plan.forecast.seconds[stage] for stage in stages})
