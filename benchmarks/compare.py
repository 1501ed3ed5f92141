"""Comparisons within the engine: methods at equal steps, and which tokens slimming keeps."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from adaflow_core.backbone import Backbone
from adaflow_core.config import Method
from adaflow_core.metrics import psnr, ssim, warp_error
from adaflow_core.slimming import random_tokens, select_tokens
from adaflow_core.types import Plan, Slimming
from benchmarks.run import cell, configs, fresh_engine, run, say, sheet_rows, table, write_sheet
from benchmarks.scores import autoencoded, mean_interval
from benchmarks.truth import Pair, random_pair, random_rows
from scenes.clips import FPS

METHODS: tuple[Method, ...] = ("adaflow", "uniform", "joint", "per-frame")


def _pairs(arguments: argparse.Namespace) -> list[Pair]:
    """One pair a clip, the kinds of edit in turn."""
    rows = random_rows(arguments.clips, arguments.scene_seed, arguments.source_style, arguments.split)
    kinds = arguments.kinds
    return [
        random_pair(rows[i : i + 1], kinds[i % len(kinds)], arguments.frames, i, arguments.size)
        for i in range(len(rows))
    ]


def _summary(rows: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Mean and interval of every score of every contestant over the clips."""
    return {
        who: {name: mean_interval(row[who][name] for row in rows if name in row[who]) for name in scores}
        for who, scores in rows[0].items()
    }


def _difference(rows: list[dict[str, dict[str, float]]], score: str, first: str, second: str) -> dict[str, Any]:
    """Paired by clip: the clips differ more than the contestants do."""
    return mean_interval(row[first][score] - row[second][score] for row in rows)


def _spread(value: dict[str, Any], form: str = ".2f") -> str:
    """A mean with half the width of its interval."""
    if value["low"] is None:
        return cell(value["mean"], form)
    return f"{cell(value['mean'], form)} ±{cell(value['mean'] - value['low'], form)}"


# --- methods --------------------------------------------------------------------------------------


def _against_truth(frames: np.ndarray, pair: Pair, flows: np.ndarray, visible: np.ndarray) -> dict[str, float]:
    return {
        "psnr": psnr(frames, pair.truth),
        "ssim": ssim(frames, pair.truth),
        "warp_error": warp_error(frames, flows, visible),
    }


def methods(backbone: Backbone, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every method on the same clips with the same inversion; `uniform` gets as many keyframes as `adaflow`."""
    clips: list[dict[str, Any]] = []
    rows, pages = [], []
    for number, pair in enumerate(_pairs(arguments)):
        flows, visible = pair.flows()
        plan_config, edit_config = configs(arguments, pair.source_prompt)
        row: dict[str, dict[str, float]] = {}
        frames: dict[str, np.ndarray] = {}
        inversion = 0.0
        with fresh_engine(backbone, arguments.cache) as engine:
            for name in METHODS:
                config = replace(plan_config, method=name)
                if name == "uniform":
                    config = replace(config, keyframes=int(row["adaflow"]["keyframes"]))
                done = run(engine, pair, config, edit_config)
                stages = done.result.report["seconds"]
                if not done.result.report["inversion_reused"]:
                    inversion = stages["invert"]
                frames[name] = done.result.frames
                row[name] = _against_truth(frames[name], pair, flows, visible) | {
                    "keyframes": len(done.plan.segments),
                    "edit_seconds": stages["edit"],
                }
                say(f"{number + 1}/{arguments.clips} {pair.name}, {name}: {row[name]['psnr']:.1f} dB")
        row["autoencoded truth"] = _against_truth(autoencoded(backbone, pair.truth), pair, flows, visible)
        row["truth"] = {"warp_error": warp_error(pair.truth, flows, visible)}
        row["copy"] = _against_truth(pair.source, pair, flows, visible)
        rows.append(row)
        clips.append({"name": pair.name, "kind": pair.kind, "invert_seconds": inversion, **row})
        pages.append(sheet_rows(pair, frames))
    summary = _summary(rows)
    shown = ("psnr", "ssim", "warp_error", "keyframes", "edit_seconds")
    forms = (".2f", ".3f", ".2f", ".1f", ".1f")
    lines = [
        [who, *(_spread(scores[s], f) if s in scores else "-" for s, f in zip(shown, forms, strict=True))]
        for who, scores in summary.items()
    ]
    print(table(["", "PSNR to the truth", "SSIM", "error along the flow", "keyframes", "edit s"], lines))
    invert = mean_interval(clip["invert_seconds"] for clip in clips)
    print(
        f"{len(rows)} clips of {arguments.frames} frames, mean ± 95 % interval; "
        f"inversion {cell(invert['mean'])} s apart"
    )
    paired = {}
    for other in METHODS[1:]:
        paired[other] = {s: _difference(rows, s, "adaflow", other) for s in ("psnr", "warp_error")}
        print(
            f"adaflow against {other}: PSNR {_spread(paired[other]['psnr'], '+.2f')} dB, "
            f"error along the flow {_spread(paired[other]['warp_error'], '+.2f')}"
        )
    write_sheet(arguments.sheet, pages)
    return {"summary": summary, "adaflow_against": paired, "invert_seconds": invert, "clips": clips}


# --- slimming -------------------------------------------------------------------------------------

Choose = Callable[[Slimming], torch.Tensor]  # the kept tokens, each for itself


def by_chance(seed: int) -> Choose:
    """A keyframe's own tokens and others at random."""

    def choose(part: Slimming) -> torch.Tensor:
        K, _, n = part.scores.shape
        return random_tokens(K, n, part.kept.shape[1], torch.Generator().manual_seed(seed))

    return choose


def by_time(keyframes: np.ndarray) -> Choose:
    """A keyframe's own tokens and those of the keyframes nearest in time."""

    def choose(part: Slimming) -> torch.Tensor:
        distance = torch.from_numpy(np.abs(keyframes[:, None] - keyframes[None]))
        scores = -distance[:, :, None].expand(part.scores.shape).float()
        return select_tokens(scores, part.kept.shape[1])[0]

    return choose


def best_only(part: Slimming) -> torch.Tensor:
    """A keyframe's own tokens and the best by score, nothing sampled: the paper's choice."""
    return select_tokens(torch.from_numpy(part.scores), part.kept.shape[1])[0]


def keep(plan: Plan, choose: Choose) -> Plan:
    """The plan with other tokens kept, as many as before."""
    assert plan.layout.slimming is not None
    parts = {
        grid: replace(p, kept=choose(p).int().numpy(), mass=np.ones_like(p.mass))
        for grid, p in plan.layout.slimming.items()
    }
    return replace(plan, layout=replace(plan.layout, slimming=parts))


def slimming(backbone: Backbone, arguments: argparse.Namespace) -> dict[str, Any]:
    """The edit with tokens kept by score, at random and by nearness in time against the one with all tokens."""
    clips, rows, pages = [], [], []
    for number, pair in enumerate(_pairs(arguments)):
        plan_config, edit_config = configs(arguments, pair.source_prompt)
        with fresh_engine(backbone, arguments.cache) as engine:
            slim = engine.plan(pair.source, plan_config, edit=edit_config, fps=FPS)
            full = engine.plan(pair.source, replace(plan_config, prune=0.0, kv_frames=None), fps=FPS)
            keyframes = slim.layout.keyframes
            assert np.array_equal(keyframes, full.layout.keyframes)
            plans = {
                "all": full,
                "as planned": slim,
                "best by score": keep(slim, best_only),
                "at random": keep(slim, by_chance(number)),
                "nearest in time": keep(slim, by_time(keyframes)),
            }
            row: dict[str, dict[str, float]] = {}
            frames: dict[str, np.ndarray] = {}
            for name, plan in plans.items():
                result = engine.edit(plan, pair.prompt, edit_config)
                frames[name] = result.frames
                row[name] = {
                    "psnr_to_all": psnr(result.frames, frames["all"]),
                    "psnr_to_truth": psnr(result.frames, pair.truth),
                    "kept_ratio": plan.kept_ratio,
                    "edit_seconds": result.report["seconds"]["edit"],
                }
                say(
                    f"{number + 1}/{arguments.clips} {pair.name}, {len(keyframes)} keyframes, {name}: "
                    f"{row[name]['psnr_to_all']:.1f} dB to all, {row[name]['edit_seconds']:.1f} s"
                )
        rows.append(row)
        clips.append({"name": pair.name, "kind": pair.kind, "keyframes": len(keyframes), **row})
        pages.append(sheet_rows(pair, frames))
    summary = _summary(rows)
    shown = ("psnr_to_all", "psnr_to_truth", "kept_ratio", "edit_seconds")
    lines = [[who, *(_spread(scores[score]) for score in shown)] for who, scores in summary.items()]
    print(table(["tokens kept", "PSNR to the unpruned edit", "to the truth", "share", "edit s"], lines))
    gains = {}
    for other in ("best by score", "at random", "nearest in time"):
        gains[other] = _difference(rows, "psnr_to_all", "as planned", other)
        print(f"as planned against {other}: {_spread(gains[other], '+.2f')} dB nearer to the unpruned edit")
    write_sheet(arguments.sheet, pages)
    return {"summary": summary, "as_planned_against": gains, "clips": clips}
