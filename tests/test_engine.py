"""Plan and edit, end to end, on narrow pipelines of every layout."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaflow_core.config import METHODS, EditConfig, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.model.backbone import Backbone
from adaflow_core.progress import Progress
from adaflow_core.report.scores import psnr
from adaflow_core.storage.cache import Cache
from adaflow_core.types import EditResult, Grid, Plan

PROMPT = "a blue ball rolls over snow"
QUICK = EditConfig(steps=2, stride=1)
GRIDS = [Grid(8, 8), Grid(4, 4), Grid(2, 2), Grid(1, 1)]

Engines = Callable[[str], AdaFlow]


@pytest.fixture(scope="module")
def engines(tiny_backbone: Callable[[str], Backbone], tmp_path_factory: pytest.TempPathFactory) -> Engines:
    """Layout -> an engine; all of them share a cache."""
    cache = Cache(tmp_path_factory.mktemp("cache"))
    return lambda layout: AdaFlow(tiny_backbone(layout), cache)


@pytest.fixture
def fresh(tiny_backbone: Callable[[str], Backbone], tmp_path: Path) -> AdaFlow:
    """An engine whose cache is empty."""
    return AdaFlow(tiny_backbone("sd1"), Cache(tmp_path))


@pytest.fixture(scope="session")
def frames(drawn_frames: np.ndarray) -> np.ndarray:
    return drawn_frames[::2]


def untouched(backbone: Backbone) -> bool:
    """No processor or hook of the engine is left in the UNet."""
    processors = backbone.unet.attn_processors.values()
    hooks = [hook for module in backbone.unet.modules() for hook in module._forward_hooks]
    return not hooks and all(type(p).__module__.startswith("diffusers.") for p in processors)


def check_plan(plan: Plan, frames: np.ndarray) -> None:
    T, K = len(frames), len(plan.segments)
    assert plan.grids == GRIDS and plan.finest == GRIDS[0]
    for curve in (plan.adjacent, plan.similarity, plan.window, plan.residual):
        assert curve.shape == (T,) and np.isfinite(curve).all()
    assert plan.heat.shape == (T, plan.heat_grid.n)
    assert (plan.residual[plan.segments.keyframes] == 0).all()
    assert plan.layout.keyframes.tolist() == plan.segments.keyframes.tolist()
    assert plan.forecast.total > 0 and plan.forecast.peak_memory_bytes > 0
    assert plan.tokens_full == K * 64 and plan.kept_ratio == plan.tokens_kept / plan.tokens_full
    for grid, part in (plan.layout.slimming or {}).items():
        own = part.mask[np.arange(K), np.arange(K)]
        assert part.scores.shape == (K, K, grid.n) and own.all()
    for index in plan.layout.correspondence.index.values():
        assert len(index) == T


@pytest.mark.parametrize("layout", ["sd1", "sd2", "v"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_on_every_layout(engines: Engines, frames: np.ndarray, layout: str, method: str) -> None:
    engine = engines(layout)
    config = PlanConfig(method=method, keyframes=None if method in ("joint", "per-frame") else 3, prune=0.5)
    plan = engine.plan(frames, config, fps=12, edit=QUICK)
    check_plan(plan, frames)
    every = method in ("joint", "per-frame")
    assert len(plan.segments) == (6 if every else 3)
    kept = {"adaflow": 128, "uniform": 192, "tokenflow": 192, "joint": 384, "per-frame": 64}
    assert plan.tokens_kept == kept[method]
    if method in ("uniform", "tokenflow"):
        assert plan.segments.keyframes.tolist() == [0, 2, 4]
    result = engine.edit(plan, PROMPT, QUICK)
    assert result.frames.shape == frames.shape and result.frames.dtype == np.uint8
    assert all(frame.std() > 0 for frame in result.frames)
    assert untouched(engine.backbone)
    # The prompt, and what the branches of the batch are, reach the picture.
    other = engine.edit(plan, "watercolour", QUICK)
    assert (np.asarray(other.frames) != result.frames).any()


def test_the_methods_edit_differently(engines: Engines, frames: np.ndarray) -> None:
    engine = engines("sd1")
    plans = {m: engine.plan(frames, PlanConfig(method=m, keyframes=2, prune=0.5)) for m in METHODS}
    edits = {m: engine.edit(plan, PROMPT, QUICK).frames.tobytes() for m, plan in plans.items()}
    assert len(set(edits.values())) == len(METHODS)


def test_tokenflow_draws_its_keyframes_and_knows_no_cuts(engines: Engines, frames: np.ndarray) -> None:
    engine = engines("sd1")
    two_shots = np.concatenate([frames, 255 - frames[::-1]])
    plan = engine.plan(two_shots, PlanConfig(method="tokenflow"))
    assert plan.config.resample and not len(plan.segments.cuts)
    assert plan.segments.lengths.tolist() == [6, 6]  # one for every eight frames
    first, again, other = (engine.edit(plan, PROMPT, replace(QUICK, steps=3, seed=s)).frames for s in (0, 0, 5))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != other).any()


def test_unpruned_adaflow_with_every_frame_a_keyframe_is_joint(engines: Engines, frames: np.ndarray) -> None:
    engine = engines("sd1")
    joint = engine.plan(frames, PlanConfig(method="joint"))
    every = engine.plan(frames, PlanConfig(keyframes=len(frames), prune=0.0))
    assert every.kept_ratio == 1
    results = [engine.edit(plan, PROMPT, QUICK).frames for plan in (joint, every)]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("blend", [True, False])
def test_drawing_keyframes_anew(engines: Engines, frames: np.ndarray, blend: bool) -> None:
    engine = engines("sd1")
    plan = engine.plan(frames, PlanConfig(keyframes=2, resample=True, blend=blend))
    assert plan.layout.correspondence.slots.shape == (6, 2 if blend else 1)
    first, again, other = (engine.edit(plan, PROMPT, replace(QUICK, steps=3, seed=s)).frames for s in (0, 0, 5))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != other).any()


def test_the_same_seed_gives_the_same_bytes(engines: Engines, fresh: AdaFlow, frames: np.ndarray) -> None:
    """Whatever the cache holds, and whatever was done before."""
    config = PlanConfig(keyframes=2, prune=0.4, source_prompt="a red ball")
    results = []
    for engine in (engines("sd1"), fresh, fresh):
        plan = engine.plan(frames, config)
        results.append(engine.edit(plan, PROMPT, replace(QUICK, seed=7)))
    assert [r.report["inversion_reused"] for r in results[1:]] == [False, True]
    assert len({r.frames.tobytes() for r in results}) == 1


def test_an_edit_that_changes_nothing_gives_every_frame_back(engines: Engines, frames: np.ndarray) -> None:
    engine = engines("sd1")
    # Keyframes that attend to their own tokens only, at full fidelity: nothing changes in them either.
    plan = engine.plan(frames, PlanConfig(keyframes=2, prune=1.0, source_prompt="a red ball"))
    config = replace(QUICK, guidance=1.0, fidelity=1.0, detail=0.0)
    same = engine.edit(plan, "a red ball", config).frames
    source = engine.backbone.decode(engine.backbone.encode(frames))
    assert psnr(same, source) > 50
    # Nor in another noise: the source is shown in it as well, in every frame.
    assert psnr(engine.edit(plan, "a red ball", replace(config, variation=0.5, seed=3)).frames, source) > 50
    # This autoencoder keeps next to nothing of a frame; its detail is the frame itself.
    assert psnr(engine.edit(plan, "a red ball", replace(config, detail=1.0)).frames, frames) > 50
    # Gathered outputs belong to another frame, whatever the prompt.
    assert psnr(engine.edit(plan, "a red ball", replace(config, propagation="output")).frames, source) < 45


def test_guidance_of_one_leaves_the_negative_out(engines: Engines, frames: np.ndarray) -> None:
    engine = engines("sd1")
    plan = engine.plan(frames, PlanConfig(keyframes=2, prune=0.5))
    config = replace(QUICK, guidance=1.0, fidelity=1.0)
    without = np.asarray(engine.edit(plan, PROMPT, config).frames).astype(int)
    # A hair more than one runs both branches, and weighs the negative with nothing.
    both = np.asarray(engine.edit(plan, PROMPT, replace(config, guidance=1 + 1e-9, negative_prompt="a car")).frames)
    assert np.abs(both - without).max() <= 1
    guided = np.asarray(engine.edit(plan, PROMPT, replace(config, guidance=5.0, negative_prompt="a car")).frames)
    assert np.abs(guided - without).max() > 10


@pytest.mark.parametrize(("attention", "conv"), [(1.0, 1.0), (0.0, 1.0), (0.0, 0.0), (1.0, 0.0)])
def test_injection_holds_for_its_share_of_the_steps(
    engines: Engines, frames: np.ndarray, attention: float, conv: float
) -> None:
    engine = engines("sd1")
    plan = engine.plan(frames, PlanConfig(keyframes=3))
    settings = replace(QUICK, injection_attention=attention, injection_conv=conv)
    result = engine.edit(plan, PROMPT, settings)
    assert result.report["settings"]["edit"]["injection_conv"] == conv
    half = engine.edit(plan, PROMPT, replace(settings, injection_attention=0.5, injection_conv=0.5))
    assert (np.asarray(result.frames) != half.frames).any()


@pytest.mark.parametrize("method", ["adaflow", "per-frame"])
def test_the_chunks_do_not_show(engines: Engines, frames: np.ndarray, method: str) -> None:
    engine = engines("sd2")
    config = PlanConfig(method=method, keyframes=2 if method == "adaflow" else None)
    plan = engine.plan(frames, config)
    # No detail: this autoencoder loses nearly all, and giving that back makes a rounding several levels large.
    settings = replace(QUICK, detail=0.0)
    whole, single, pairs = (
        np.asarray(engine.edit(plan, PROMPT, replace(settings, chunk=chunk)).frames, np.int16) for chunk in (8, 1, 4)
    )
    for other in (single, pairs):
        apart = abs(whole - other)  # frames that agree are rounded to levels on their way: one of 70,000 is two apart
        assert apart.max() <= 2 and (apart > 1).mean() < 1e-4


def test_planning_again_repeats_only_what_changed(
    fresh: AdaFlow, tiny_backbone: Callable[[str], Backbone], frames: np.ndarray
) -> None:
    config = PlanConfig(keyframes=2)
    first = fresh.plan(frames, config)
    assert {"encode", "features", "similarity", "match"} <= set(first.seconds)
    again = fresh.plan(frames, replace(config, prune=0.1))
    assert not set(again.seconds) & {"encode", "features", "similarity", "match"}
    assert again.kept_ratio > first.kept_ratio
    moved = fresh.plan(frames, replace(config, keyframes=3, scales=(1, 2)))
    assert not set(moved.seconds) & {"encode", "features"} and "match" in moved.seconds
    # Another engine finds what this one left on the disk.
    other = AdaFlow(tiny_backbone("sd1"), fresh.cache).plan(frames, config)
    assert not set(other.seconds) & {"encode", "features"} and "similarity" in other.seconds
    assert other.segments.keyframes.tolist() == first.segments.keyframes.tolist()


def test_an_edit_repeats_no_inversion(fresh: AdaFlow, frames: np.ndarray) -> None:
    plan = fresh.plan(frames, PlanConfig(keyframes=2))
    first, second = (fresh.edit(plan, prompt, QUICK).report for prompt in (PROMPT, "a red ball"))
    assert "invert" in first["seconds"] and not first["inversion_reused"]
    assert "invert" not in second["seconds"] and second["inversion_reused"]
    assert not fresh.edit(plan, PROMPT, replace(QUICK, inversion_steps=4)).report["inversion_reused"]


@pytest.mark.parametrize("stage", ["encode", "features", "similarity", "match", "invert", "edit", "decode frames"])
def test_stop_ends_any_stage_and_leaves_nothing_half_done(fresh: AdaFlow, frames: np.ndarray, stage: str) -> None:
    seen: list[Progress] = []

    def stop() -> bool:
        return bool(seen) and seen[-1].stage == stage

    def work(stop: Callable[[], bool] | None) -> EditResult:
        plan = fresh.plan(frames, PlanConfig(keyframes=2), progress=seen.append, stop=stop)
        return fresh.edit(plan, PROMPT, QUICK, progress=seen.append, stop=stop)

    with pytest.raises(Stopped):
        work(stop)
    assert seen[-1].stage == stage
    assert not list(fresh.cache.root.rglob(".building-*"))
    for entry in fresh.cache.root.glob("*/[!.]*"):
        if entry.parent.name == "edits":  # what will be taken up, as are hidden folders
            continue
        assert json.loads((entry / "meta.json").read_text()) is not None
    made = {"encode": "latents", "features": "features", "invert": "inversion"}
    if stage in made:
        assert not list(fresh.cache.root.glob(f"{made[stage]}/[!.]*"))
    assert untouched(fresh.backbone)
    # The device is free again, and the work can be done.
    assert work(None).frames.shape == frames.shape


def test_progress_reaches_its_total_and_shows_keyframes(engines: Engines, frames: np.ndarray) -> None:
    engine, seen = engines("sd1"), []
    plan = engine.plan(frames, PlanConfig(keyframes=2), progress=seen.append)
    engine.edit(plan, PROMPT, replace(QUICK, steps=5), progress=seen.append)
    last = {p.stage: p for p in seen}
    for stage in ("invert", "edit", "decode frames"):
        assert last[stage].done == last[stage].total and last[stage].remaining == 0
    assert last["edit"].total == (5 + 1) * len(frames)  # brought to agree between steps
    previews = [p.preview for p in seen if p.preview is not None]
    assert len(previews) == 5 and all(p.shape == (2, 8, 8, 3) and p.dtype == np.uint8 for p in previews)


def test_the_report_is_complete(engines: Engines, frames: np.ndarray) -> None:
    engine = engines("sd1")
    plan = engine.plan(frames, PlanConfig(keyframes=3, prune=0.5), fps=12)
    plan = replace(plan, seconds=plan.seconds | {"edit": 100.0})  # as of a stage that both have
    report = engine.edit(plan, PROMPT, replace(QUICK, seed=3)).report
    json.dumps(report)
    expected = {
        "frames": 6, "width": 64, "height": 64, "fps": 12.0, "segments": 3, "tokens_full": 192, "tokens_kept": 128,
        "kept_ratio": 2 / 3, "seed": 3, "model": engine.backbone.name, "prompt": PROMPT, "warnings": [],
    }  # fmt: skip
    assert {name: report[name] for name in expected} == expected
    assert report["keyframes"] == plan.segments.keyframes.tolist()
    assert report["seconds"]["total"] >= report["seconds"]["edit"] > 100
    assert report["peak_memory_bytes"] > 2**20
    assert re.fullmatch(r"\d+\.\d+.*", report["version"])
    assert report["settings"]["plan"]["prune"] == 0.5 and report["settings"]["edit"]["steps"] == 2
    assert None not in [report["settings"]["edit"][name] for name in ("guidance", "chunk", "injection_conv")]


def test_words_that_the_model_cannot_take_are_named(engines: Engines, frames: np.ndarray) -> None:
    engine = engines("sd1")
    plan = engine.plan(frames, PlanConfig(keyframes=2))
    warnings = engine.edit(plan, "a zeppelin over snow" + 80 * " red", QUICK).warnings
    assert any("zeppelin" in w and "snow" not in w for w in warnings)
    assert any("too long" in w and "red red" in w for w in warnings)
    assert engine.edit(plan, PROMPT, QUICK).warnings == ()
    negative = replace(QUICK, negative_prompt=80 * "red " + "blue")
    assert any("the negative prompt is too long" in w for w in engine.edit(plan, PROMPT, negative).warnings)
    assert engine.check_prompt("blue zeppelin").unknown == ("zeppelin",)


def test_problems_name_their_remedy(engines: Engines, frames: np.ndarray) -> None:
    plan = engines("sd1").plan(frames, PlanConfig(keyframes=2))
    with pytest.raises(AdaFlowError, match="prompt is empty"):
        engines("sd1").edit(plan, "  ")
    with pytest.raises(AdaFlowError, match="plan again"):
        engines("sd2").edit(plan, PROMPT)
    with pytest.raises(AdaFlowError, match="source prompt"):
        engines("sd1").plan(frames, PlanConfig(importance="prompt"))
    with pytest.raises(AdaFlowError, match="frames are"):
        engines("sd1").plan(frames.astype(np.float32))
    with pytest.raises(AdaFlowError, match="folder or file that exists"):
        AdaFlow.from_pretrained("./no/such/folder")
    with pytest.raises(AdaFlowError, match="device"):
        AdaFlow.from_pretrained("./no/such/folder", device="abacus")


@pytest.mark.parametrize("importance", ["uniform", "attention", "distinctive", "prompt"])
@pytest.mark.parametrize("count", [1, 2])
def test_the_shortest_videos(engines: Engines, frames: np.ndarray, importance: str, count: int) -> None:
    engine = engines("sd1")
    config = PlanConfig(importance=importance, source_prompt="a red ball")
    plan = engine.plan(frames[:count], config)
    check_plan(plan, frames[:count])
    assert engine.edit(plan, PROMPT, replace(QUICK, steps=1)).frames.shape == (count, 64, 64, 3)
    with pytest.raises(AdaFlowError):
        engine.plan(frames[:0], config)
    notes = engine.plan(frames[:count], replace(config, keyframes=5)).notes
    assert f"the video has {count} frames" in notes[0]


def test_oblong_frames_whose_grids_do_not_halve_evenly(engines: Engines, drawn_frames: np.ndarray) -> None:
    engine, oblong = engines("sd2"), np.pad(drawn_frames[:4], ((0, 0), (0, 8), (0, 40), (0, 0)))
    plan = engine.plan(oblong, PlanConfig(keyframes=2))
    assert plan.grids == [Grid(9, 13), Grid(5, 7), Grid(3, 4), Grid(2, 2)]
    assert engine.edit(plan, PROMPT, QUICK).frames.shape == oblong.shape


def test_a_file_and_its_range(fresh: AdaFlow, drawn_clip: Path) -> None:
    plan = fresh.plan(drawn_clip, PlanConfig(keyframes=2), size=(64, 64), frames=slice(4, 10))
    assert len(plan.video) == 6 and plan.video.fps == 12
    assert (plan.video.source, plan.video.start) == (drawn_clip, 4)
    result = fresh.edit(plan, PROMPT, QUICK)
    assert (result.source, result.start, result.fps) == (drawn_clip, 4, 12)
    again = fresh.plan(drawn_clip, PlanConfig(keyframes=2), size=(64, 64), frames=slice(4, 10))
    assert "decode" in plan.seconds and "decode" not in again.seconds
    other = fresh.plan(drawn_clip, PlanConfig(keyframes=2), size=(64, 64), frames=slice(0, 6))
    assert other.video.digest != plan.video.digest


@pytest.mark.parametrize("call", ["plan", "edit"])
def test_a_device_that_is_full_is_told_in_a_sentence(
    fresh: AdaFlow, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    plan, config = fresh.plan(frames[:4], PlanConfig(keyframes=2)), replace(QUICK, agreements=0)
    monkeypatch.setattr(type(fresh.backbone), "encode" if call == "plan" else "decode_there", full)
    with pytest.raises(AdaFlowError, match="fewer keyframes"):
        fresh.plan(frames, PlanConfig(keyframes=2)) if call == "plan" else fresh.edit(plan, PROMPT, config)
    monkeypatch.undo()
    assert fresh.edit(plan, PROMPT, config).report["resumed_at_step"] == (0 if call == "plan" else QUICK.steps)


def test_a_pass_that_did_not_fit_is_not_counted_twice(
    fresh: AdaFlow, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, seen, left = fresh.plan(frames, PlanConfig(keyframes=2)), list[Progress](), [3]
    predict = Backbone.predict

    def full_once(self: Backbone, *args: Any) -> torch.Tensor:
        left[0] -= 1
        if not left[0]:  # in the middle of the first pass
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict(self, *args)

    monkeypatch.setattr(Backbone, "predict", full_once)
    fresh.edit(plan, PROMPT, replace(QUICK, steps=5, inversion_steps=5, agreements=0), progress=seen.append)
    counts = [p for p in seen if p.stage == "invert"]
    assert counts[-1].done == counts[-1].total == max(p.done for p in counts)
