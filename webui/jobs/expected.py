"""Forecasts of the time of edits, retakes, drafts and searches, scaled from the plan's forecast for the whole film.

`of_edit` and `of_drafts` return a forecast for each part of the job, in running order; the other jobs have one part. A
part that is in the cache takes no time, unless `kept` is False: the cache may lose it before the job runs.
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

# Approximate relative times of the stages of planning, and of loading a model.
PLANNING = {
    "decode": 1.0, "encode": 2.0, "features": 3.0, "cuts": 0.5, "similarity": 1.0, "refine": 1.0, "borders": 0.5,
    "residual": 0.5, "match": 1.0, "slim": 0.5, "measure": 3.0,
}  # fmt: skip
LOADING = {"download": 20.0, "load": 1.0}
_OF_EACH_DRAFT = ("edit", "decode frames")  # after the first of several drafts, all other stages are in the cache


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
    """Forecast each stretch of a timeline (in frames of the plan), then each take over them.

    `crop`: the share of the frame that is edited. AdaFlowError if a take has frames that the plan does not have.
    """
    T = len(plan.video)
    parts = stretches(timeline, plan.segments.cuts, T)
    found = [plan.forecast.times(crop * (part.end - part.start) / T) for part in parts]
    found += [of_retake(plan, take["frames"], crop) for take in takes]
    # An edit of all frames with one prompt is never cached.
    if not kept or (timeline.one_prompt(plan.video) is not None and not takes):
        return found
    keys, cache = part_keys(plan, parts, config, takes, asked_over(region, by_hand)), Cache.default()
    return [_kept(part) if is_kept(cache, key) else part for part, key in zip(found, keys, strict=True)]


def of_retake(plan: Plan, frames: tuple[int, int], crop: float = 1.0) -> Forecast:
    """Forecast a retake of `frames`, with the held keyframes around them, which pass through the model too.

    AdaFlowError if the frames are not within the video.
    """
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
    """Forecast a draft for each of `configs`."""
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
    """Return the parts of an edit with the time of scoring and writing added to the last one."""
    last = parts[-1]
    return [*parts[:-1], replace(last, seconds=last.seconds | after_edit(plan, Cache.default()))]


def of_place(plan: Plan) -> Forecast:
    """Forecast the search for where an edit changes the film."""
    stages = [stage for stage in ("flow", "place") if stage in plan.forecast.seconds]
    return replace(plan.forecast, seconds={stage: plan.forecast.seconds[stage] for stage in stages})
