"""Sweeps of one setting: the share of pruned tokens, the number of keyframes, and the places of two keyframes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.planning.planner import build_layout
from adaflow_core.planning.slimming import Kept, kept_count, select_tokens
from adaflow_core.progress import Monitor
from adaflow_core.types import Plan, Segments, Slimming
from benchmarks.output import say
from benchmarks.quality import scoring
from benchmarks.quality.bench import Bench, Edited, Planned
from benchmarks.quality.cases import Clip
from benchmarks.quality.contestants import Contestant
from benchmarks.truth import Pair

Choose = Callable[[Slimming, int], Kept]
"""(part, count) -> the tokens that each keyframe keeps."""

# Settings with which a frame depends on its keyframes alone: every frame is edited, and none is carried from its
# neighbours or filtered with them.
ISOLATED: dict[str, Any] = {"stride": 1, "agreements": 0, "smoothing": 0.0}

# --- which tokens stay ----------------------------------------------------------------------------


def as_planned(part: Slimming, count: int, sampled: float) -> Kept:
    return select_tokens(torch.from_numpy(part.scores), count, sampled)


def by_score(part: Slimming, count: int) -> Kept:
    """Keep a keyframe's own tokens and the best others by score, without the even sample: the paper's choice."""
    return select_tokens(torch.from_numpy(part.scores), count)


def by_chance(seed: int) -> Choose:
    """Keep a keyframe's own tokens and random others."""

    def choose(part: Slimming, count: int) -> Kept:
        K, _, n = part.scores.shape
        return select_tokens(torch.rand(K, K, n, generator=torch.Generator().manual_seed(seed)), count)

    return choose


def by_time(keyframes: np.ndarray) -> Choose:
    """Keep a keyframe's own tokens and those of the keyframes nearest in time."""

    def choose(part: Slimming, count: int) -> Kept:
        distance = torch.from_numpy(np.abs(keyframes[:, None] - keyframes[None]))
        return select_tokens(-distance[:, :, None].expand(part.scores.shape).float(), count)

    return choose


def keep(plan: Plan, ratio: float, choose: Choose) -> Plan:
    """Return the plan with the share `ratio` of its tokens dropped; `choose` decides which are kept."""
    assert plan.layout.slimming is not None
    parts = {}
    for grid, part in plan.layout.slimming.items():
        kept = choose(part, kept_count(len(plan.layout.keyframes), grid.n, prune=ratio))
        parts[grid] = replace(
            part, kept=kept.tokens.int().numpy(), num_sampled=kept.num_sampled, sample_weight=kept.sample_weight
        )
    return replace(plan, layout=replace(plan.layout, slimming=parts))


# --- the sweeps -----------------------------------------------------------------------------------


class _Sweep:
    """Edits of one clip whose distances to the truth and to a reference edit are measured."""

    def __init__(self, bench: Bench, clip: Clip, part: str) -> None:
        self.bench, self.clip, self.part = bench, clip, part
        self.pair: Pair = clip.pair(clip.kinds[0], bench.size, bench.backbone.device)
        self.folder = scoring.Folder(bench.folder / self.pair.name)
        self.folder.save("truth", self.pair.truth)

    def plan(self, config: PlanConfig) -> Planned:
        who = Contestant("", "", "variant", config)
        return self.bench.plan(who, self.clip.name, self.pair.source, self.pair.source_prompt, None)

    def reference(self, planned: Planned, config: EditConfig | None = None) -> Edited:
        done = self.edit(planned, config)
        self.folder.save("near", done.frames)
        return done

    def measure(self, done: Edited, name: str, **row: Any) -> None:
        row = {
            "case": self.pair.name, "group": self.clip.group, "kind": self.pair.kind,
            "peak_memory": done.peak_memory, **row,
        }  # fmt: skip
        self.folder.save(name, done.frames)

        def finish(found: dict[str, float]) -> None:
            self.bench.results.add(self.part, row | found)

        self.bench.submit(finish, scoring.distances, self.folder, name, "near")

    def edit(self, planned: Planned, config: EditConfig | None = None) -> Edited:
        return self.bench.edit(planned, self.clip.name, self.pair.prompt, config)


def prune(bench: Bench, clip: Clip, ratios: list[float], keyframes: int, sampled: list[float]) -> None:
    """Compare edits with ever fewer tokens, chosen in four ways, with the edit with all tokens.

    `sampled`: further shares of the even sample to try, each of them one more way.
    """
    sweep = _Sweep(bench, clip, "prune")
    full = sweep.plan(PlanConfig(keyframes=keyframes, prune=0.0))
    K = len(full.plan.segments)
    say(f"{sweep.pair.name}: pruning at {K} keyframes")
    sweep.measure(sweep.reference(full), "all", keyframes=K, ratio=0.0, way="as planned")
    ways: dict[str, Choose] = {
        "as planned": partial(as_planned, sampled=full.plan.config.sampled),
        "by score alone": by_score,
        "at random": by_chance(clip.seed),
        "nearest frames": by_time(full.plan.layout.keyframes),
        **{f"sampled {share:g}": partial(as_planned, sampled=share) for share in sampled},
    }
    for ratio in filter(None, ratios):
        for way, choose in ways.items():
            if bench.over:
                return
            slim = replace(full, plan=keep(full.plan, ratio, choose))
            sweep.measure(sweep.edit(slim), f"{way} {ratio}", keyframes=K, ratio=ratio, way=way)


def keyframes(bench: Bench, clip: Clip, counts: list[int], variants: Sequence[Contestant]) -> None:
    """Compare adaptive and evenly spaced keyframes, with all tokens kept, with the edit of all frames together.

    `variants`: other settings to try, each of them one more way. All edits are `ISOLATED`.
    """
    sweep = _Sweep(bench, clip, "keyframes")
    say(f"{sweep.pair.name}: from {counts[0]} to {counts[-1]} keyframes")
    sweep.reference(sweep.plan(PlanConfig(method="joint")), EditConfig(**ISOLATED))
    ways = {"adaptive": (PlanConfig(), EditConfig()), "uniform": (PlanConfig(method="uniform"), EditConfig())}
    ways |= {who.name: (who.plan, who.edit) for who in variants}
    for count in counts:
        for way, (plan_config, edit_config) in ways.items():
            if bench.over:
                return
            planned = sweep.plan(replace(plan_config, keyframes=count, prune=0.0))
            done = sweep.edit(planned, replace(edit_config, **ISOLATED))
            sweep.measure(done, f"{way} {count}", asked=count, keyframes=len(planned.plan.segments), way=way)


def with_keyframes(planned: Planned, frames: tuple[int, int]) -> Planned:
    """Return the plan of a clip without cuts, with these two keyframes."""
    plan, (first, second) = planned.plan, frames
    starts = np.array([0, (first + second + 1) // 2])
    segments = Segments(starts, np.array(frames), plan.segments.cuts, plan.segments.T)
    device = planned.engine.backbone.device
    layout = build_layout(plan.features, segments, plan.grids, plan.config, device=device, monitor=Monitor())
    return replace(planned, plan=replace(plan, segments=segments, layout=layout))


def pairs(bench: Bench, clip: Clip, stride: int) -> None:
    """Try all pairs out of every `stride`-th frame as keyframes, besides the chosen pair and even keyframes.

    All tokens are kept, and all edits are `ISOLATED`; distances are to the edit of all frames together.
    """
    sweep = _Sweep(bench, clip, "pairs")
    say(f"{sweep.pair.name}: all pairs of frames, of every {stride} one")
    chosen = sweep.plan(PlanConfig(keyframes=2, prune=0.0))
    if len(chosen.plan.segments.cuts):
        say(f"{sweep.pair.name}: has cuts, and is left out")
        return
    config = EditConfig(**ISOLATED)
    sweep.reference(sweep.plan(PlanConfig(method="joint")), config)

    def measure(planned: Planned, way: str) -> None:
        frames = planned.plan.segments.keyframes.tolist()
        sweep.measure(sweep.edit(planned, config), f"{way} {frames}", way=way, frames=frames)

    measure(chosen, "adaptive")
    for count in (2, 4):
        measure(sweep.plan(PlanConfig(method="uniform", keyframes=count, prune=0.0)), f"{count} even")
    for frames in combinations(range(stride // 2, clip.frames, stride), 2):
        if bench.over:
            return
        measure(with_keyframes(chosen, frames), "pair")
