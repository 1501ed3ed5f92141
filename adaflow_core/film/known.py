"""Tells which parts of an edit are in the cache, from what was asked for alone.

The frames of a part are cached under a key of everything that decides their bits; computing it takes a loaded model. So
the cache also records which key belongs to what was asked for, and a forecast leaves out what need not be done again.
It does not distinguish other weights under the same name, or another dtype. A take that `retake` made is recorded once
its film was replayed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from adaflow_core.config import EditConfig
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.timeline import Stretch
from adaflow_core.storage.cache import Cache, cache_key
from adaflow_core.types import Plan
from adaflow_core.version import MADE

_KIND = "asked"


def part_keys(
    plan: Plan,
    parts: Sequence[Stretch],
    config: EditConfig,
    takes: Iterable[Mapping[str, Any]],  # the rows of a report's `takes`
    over: Mapping[str, Any],  # the result of `asked_over`
) -> list[str]:
    """Return a key for each stretch of a film, then for each take; a take's key depends on all keys before it."""
    ground = _ground(plan, over)
    keys = [cache_key(of=ground, part=asdict(part), settings=asdict(config)) for part in parts]
    for row in takes:
        named = {name: row.get(name) for name in ("frames", "prompt", "source_prompt", "settings")}
        keys.append(cache_key(over=list(keys), take=named))
    return keys


def draft_key(plan: Plan, prompt: str, config: EditConfig, over: Mapping[str, Any]) -> str:
    return cache_key(of=_ground(plan, over), draft=prompt, settings=asdict(config))


def remember(cache: Cache, asked: str, kind: str, key: str) -> None:
    """Record that what was `asked` for is the cache's entry `key` of this kind; AdaFlowErrors are ignored."""
    entry = {"kind": kind, "key": key}
    with suppress(AdaFlowError):
        _, meta, _ = cache.get(_KIND, asked, lambda _: entry)
        if meta != entry:  # recorded by another version, or on another device
            cache.renew(_KIND, asked, entry)


def is_kept(cache: Cache, asked: str) -> bool:
    """Return whether what is `asked` for is in the cache."""
    entry = cache.find(_KIND, asked)
    return entry is not None and cache.holds(entry["kind"], entry["key"])


def _ground(plan: Plan, over: Mapping[str, Any]) -> str:
    """Return the key of everything that the parts of an edit have in common."""
    keyframes = plan.segments.keyframes.tolist()
    return cache_key(
        video=plan.video.digest, model=plan.model, plan=asdict(plan.config), keyframes=keyframes, over=dict(over),
        made=MADE,
    )  # fmt: skip
