"""How long what is asked for takes, by the forecast of its plan, which is of an edit of the whole film.

Each forecast is of one of the parts that come one after another; one that is in the cache takes no time, unless
`kept` is False: until the job runs, the cache may lose it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from adaflow_core.config import EditConfig
from adaflow_core.editing.forecasting.forecast import after_edit
from adaflow_core.film.known import draft_key, is_kept, part_keys
from adaflow_core.film.retake import stretch_frames, surroundings
from adaflow_core.film.timeline import Timeline, stretches
from adaflow_core.picture.by_hand import ByHand
from adaflow_core.picture.over import asked_over
from adaflow_core.picture.region import Region
from adaflow_core.storage.cache import Cache
from adaflow_core.types import Forecast, Plan

# About how a planning shares its time among its stages, and loading a model among its own.
PLANNING = {
    "decode": 1.0, "encode": 2.0, "features": 3.0, "cuts": 0.5, "similarity": 1.0, "refine": 1.0, "borders": 0.5,
    "residual": 0.5, "match": 1.0, "slim": 0.5, "measure": 3.0,
}  # fmt: skip
LOADING = {"download": 20.0, "load": 1.0}
_OF_EACH_DRAFT = ("edit", "decode frames")  # all else is in the cache after the first of several


def of_edit(
    plan: Plan,
    timeline: Timeline,
    config: EditConfig,
    takes: Sequence[Mapping[str, Any]] = (),
    region: Region | None = None,
    by_hand: ByHand | None = None,
    crop: float = 1.0,
    *,
    kept: bool = True,
) -> list[Forecast]:
    """Of the stretches of a timeline, in frames of the plan, and of the takes over them; `crop`: the share of the frame
    that is edited. AdaFlowError where a take is of frames that the plan does not have."""
    T = len(plan.video)
    parts = stretches(timeline, plan.segments.cuts, T)
    found = [plan.forecast.times(crop * (part.end - part.start) / T) for part in parts]
    found += [of_retake(plan, take["frames"], crop) for take in takes]
    # An edit of all frames is made each time.
    if not kept or (timeline.one_prompt(plan.video) is not None and not takes):
        return found
    keys, cache = part_keys(plan, parts, config, takes, asked_over(region, by_hand)), Cache.default()
    return [_kept(part) if is_kept(cache, key) else part for part, key in zip(found, keys, strict=True)]


def of_retake(plan: Plan, frames: tuple[int, int], crop: float = 1.0) -> Forecast:
    """Of a stretch, with the keyframes around it that pass through the model as well; AdaFlowError where it is none."""
    start, end = stretch_frames(plan, frames)
    held = len(surroundings(plan.segments, start, end)[3])
    around = held / len(plan.segments.keyframes)
    whole, alone = plan.forecast, plan.forecast.of_keyframes
    stretch = whole.times(crop * (end - start) / len(plan.video)).seconds
    return replace(whole, seconds={name: s + crop * around * alone.get(name, 0.0) for name, s in stretch.items()})


def of_drafts(
    plan: Plan,
    prompt: str,
    configs: Iterable[EditConfig],
    region: Region | None = None,
    by_hand: ByHand | None = None,
    crop: float = 1.0,
    *,
    kept: bool = True,
) -> list[Forecast]:
    """Of drafts with these settings."""
    whole, cache, found = plan.forecast.times(crop), Cache.default(), list[Forecast]()
    first = replace(whole, seconds=whole.of_keyframes)
    later = replace(whole, seconds={stage: first.seconds.get(stage, 0.0) for stage in _OF_EACH_DRAFT})
    over = asked_over(region, by_hand)
    for config in configs:
        made = kept and is_kept(cache, draft_key(plan, prompt, config, over))
        found.append(_kept(first) if made else later if found else first)
    return found


def _kept(part: Forecast) -> Forecast:
    return replace(part, seconds={})


def to_the_end(parts: Sequence[Forecast], plan: Plan) -> list[Forecast]:
    """The parts of an edit of the plan, with what comes after the last: scoring and writing."""
    last = parts[-1]
    return [*parts[:-1], replace(last, seconds=last.seconds | after_edit(plan, Cache.default()))]


def of_place(plan: Plan) -> Forecast:
    """Of the search for where an edit changes the film."""
    stages = [stage for stage in ("flow", "place") if stage in plan.forecast.seconds]
    return replace(plan.forecast, seconds={stage: plan.forecast.seconds[stage] for stage in stages})
