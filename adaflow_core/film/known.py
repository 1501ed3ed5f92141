"""Which parts of an edit the cache holds, by what is asked for alone.

The frames of a part are kept under a key of all that decides on their bits, which takes a loaded model to say. Beside
them lies which key it was for what was asked, so that a forecast leaves out what is not done again. Other weights under
one name, and another dtype, are not told apart. A take that `retake` made is known once its film was replayed.
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
    takes: Iterable[Mapping[str, Any]],  # as a report has them
    over: Mapping[str, Any],  # as `asked_over` says it
) -> list[str]:
    """Of the stretches of a film, and of the takes over them, each of which is fitted into all that lies below."""
    ground = _ground(plan, over)
    keys = [cache_key(of=ground, part=asdict(part), settings=asdict(config)) for part in parts]
    for row in takes:
        named = {name: row.get(name) for name in ("frames", "prompt", "source_prompt", "settings")}
        keys.append(cache_key(over=list(keys), take=named))
    return keys


def draft_key(plan: Plan, prompt: str, config: EditConfig, over: Mapping[str, Any]) -> str:
    return cache_key(of=_ground(plan, over), draft=prompt, settings=asdict(config))


def remember(cache: Cache, asked: str, kind: str, key: str) -> None:
    """That what was `asked` for is the cache's entry `key` of this kind. An edit does not fail where it cannot be."""
    entry = {"kind": kind, "key": key}
    with suppress(AdaFlowError):
        _, meta, _ = cache.get(_KIND, asked, lambda _: entry)
        if meta != entry:  # by another version, or on another device
            cache.renew(_KIND, asked, entry)


def is_kept(cache: Cache, asked: str) -> bool:
    """Whether what is `asked` for is in the cache."""
    entry = cache.find(_KIND, asked)
    return entry is not None and cache.holds(entry["kind"], entry["key"])


def _ground(plan: Plan, over: Mapping[str, Any]) -> str:
    """Of all that parts have in common."""
    keyframes = plan.segments.keyframes.tolist()
    return cache_key(
        video=plan.video.digest, model=plan.model, plan=asdict(plan.config), keyframes=keyframes, over=dict(over),
        made=MADE,
    )  # fmt: skip
