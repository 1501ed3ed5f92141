"""The speed benchmark: what it counts, how it splits an edit, and its command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adaflow_core.config import PRESETS, FilledEdit, ModelProfile, PlanConfig, resolve_edit
from adaflow_core.model.backbone import Backbone
from adaflow_core.progress import Progress
from adaflow_core.types import Correspondence, EditLayout, Grid, Slimming
from benchmarks.speed import measure
from benchmarks.speed.__main__ import main, parse
from benchmarks.speed.clock import GIB, Clock
from benchmarks.speed.stand_ins import make_film
from benchmarks.speed.work import Passes, count_passes, extended_attention_work, stage_work

SD_GRIDS = [Grid(48, 84), Grid(24, 42), Grid(12, 21), Grid(6, 11)]


@pytest.fixture(scope="module")
def sd21() -> SimpleNamespace:
    """Stable Diffusion 2.1 base as far as its passes are counted: shapes without weights."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280, 1280), attention_head_dim=(5, 10, 20, 20), cross_attention_dim=1024,
            use_linear_projection=True,
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=2,
        )  # fmt: skip
    return SimpleNamespace(unet=unet, vae=vae, factor=8, profile=ModelProfile(),
                           tokenizer=SimpleNamespace(model_max_length=77))  # fmt: skip


def layout(keyframes: int, frames_kept: float) -> EditLayout:
    slimming = {
        g: Slimming(g, np.empty(0), np.empty((keyframes, round(frames_kept * g.n)), np.int32), 0, 1.0) for g in SD_GRIDS
    }
    return EditLayout(np.arange(keyframes), slimming, Correspondence(np.empty(0), {}, {}))


@pytest.mark.thorough
def test_the_paper_settings_need_what_is_known_of_them(sd21: Backbone) -> None:
    """1,000 frames of 384x672, 48 keyframes: 79 PFLOP of inversion, 16 of keyframes, 71 of propagation."""
    passes = count_passes(sd21, 672, 384)
    assert passes.whole == pytest.approx(0.792e12, rel=0.01) and passes.until_features == pytest.approx(0.6e12, rel=0.1)
    config = resolve_edit(PRESETS["paper"][1], ModelProfile(), PlanConfig())
    work = stage_work(sd21, passes, layout(48, 20), config, 1000, 1000)
    assert work["invert"] / 1e15 == pytest.approx(79, rel=0.02)
    assert work["keyframes"] / 1e15 == pytest.approx(16, rel=0.05)
    assert work["propagation"] / 1e15 == pytest.approx(71, rel=0.05)


def test_guidance_and_the_source_count_as_passes(sd21: Backbone) -> None:
    passes = Passes(whole=100, until_conv=40, until_features=70, propagated=60, encode=5, decode=7)
    plain = FilledEdit(
        steps=10, inversion_steps=20, guidance=1.0, guided_from=0.0, guided=1.0, injection_attention=0.0,
        injection_conv=0.5, fidelity=0.0, tolerance=0.0, propagation="output", detail=0.0, agreements=0,
    )  # fmt: skip
    own = layout(2, 1)
    work = stage_work(sd21, passes, own, plain, 24, 12)
    assert work == {
        "encode": 120, "features": 1680, "invert": 12 * 19 * 100, "keyframes": 2 * (1000 + 5 * 40),
        "propagation": 10 * (600 + 5 * 40), "agreement": 0, "decode source": 0, "decode frames": 84,
    }  # fmt: skip
    change = stage_work(sd21, passes, own, replace(plain, guidance=2.0, propagation="change", detail=1.0), 24, 12)
    assert change["keyframes"] == 2 * 3000 and change["propagation"] == 10 * (1200 + 1000)
    assert change["decode source"] == change["decode frames"] == 84
    assert stage_work(sd21, passes, own, replace(plain, agreements=3), 24, 12)["agreement"] == 3 * 12 * (7 + 2 * 5)
    assert extended_attention_work(sd21, {g: g.n for g in SD_GRIDS}) == 0


def test_the_clock_tells_keyframes_from_the_rest() -> None:
    times: list[float] = []
    clock = Clock(torch.device("cpu"), now=lambda: times[-1])
    clock.frames, clock.keyframes = 10, 3
    with clock:
        for done, elapsed in ((0, 0.0), (3, 5.0), (8, 7.0), (10, 8.0), (13, 14.0)):
            times.append(elapsed)
            clock.report(Progress("edit", done, 20, elapsed))
    spent = clock.stages
    assert (spent["keyframes"].seconds, spent["keyframes"].share) == (11.0, 1.0)
    assert (spent["propagation"].seconds, spent["propagation"].share) == (3.0, 0.5)
    assert spent["edit"].seconds == 14.0 and spent["edit"].host_bytes > 0


def test_the_clock_tells_agreement_from_the_steps() -> None:
    times: list[float] = []
    clock = Clock(torch.device("cpu"), now=lambda: times[-1])
    clock.frames, clock.keyframes, clock.agreeing = 10, 3, frozenset({1})
    with clock:
        for done, elapsed in ((0, 0.0), (3, 5.0), (10, 8.0), (20, 12.0), (23, 18.0), (30, 19.0)):
            times.append(elapsed)
            clock.report(Progress("edit", done, 30, elapsed))
    spent = {name: (stage.seconds, stage.share) for name, stage in clock.stages.items() if name != "edit"}
    assert spent == {"keyframes": (11.0, 1.0), "propagation": (4.0, 1.0), "agreement": (4.0, 1.0)}


def test_the_film_moves_and_is_cut(tmp_path: Path) -> None:
    film = make_film(tmp_path, 12, 64, 48)
    steps = np.abs(np.diff(film.frames.astype(int), axis=0)).mean((1, 2, 3))
    assert film.frames.shape == (12, 48, 64, 3) and len(film) == 12
    assert steps[5] > 2 * np.delete(steps, 5).max() > 0


def run(path: Path, *arguments: str) -> dict:
    main(["--arch", "embedded", "--device", "cpu", "--size", "64x64", "--json", str(path), *arguments])
    return json.loads(path.read_text())


@pytest.mark.thorough
def test_the_command(tmp_path: Path) -> None:
    command = ("--frames", "6", "--keyframes", "2", "--steps", "1", "--cache", str(tmp_path / "cache"))
    results = run(tmp_path / "all.json", *command)
    assert set(measure.STAGES) <= set(results["stages"]) and results["keyframes"] == 2
    for name in ("invert", "keyframes", "propagation", "decode frames"):
        stage = results["stages"][name]
        assert stage["seconds"] > 0 and stage["share_done"] == 1 and stage["share_of_matrix"] > 0
    assert results["total"]["frames_per_second"] > 0 and results["deviation"] > 0
    left = sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*"))
    # Rounded as it is written.
    assert results["cache_gib"] * GIB >= 0.999 * (left + 6 * 64 * 64 * 3) > 6 * 64 * 64 * 3


@pytest.mark.thorough
def test_a_region_is_counted_by_its_crop(tmp_path: Path) -> None:
    command = ("--frames", "4", "--keyframes", "2", "--steps", "1", "--size", "256x192")
    small = ("--region", "0.01", "--crop", "small")
    whole, part = run(tmp_path / "whole.json", *command), run(tmp_path / "part.json", *command, *small)
    assert part["crop"] == {"width": 128, "height": 128, "share": 0.3333} and "crop" not in whole
    for name in ("invert", "keyframes", "propagation", "decode frames"):
        assert whole["stages"][name]["needed_tflop"] > 2.9 * part["stages"][name]["needed_tflop"] > 0
    assert part["stages"]["encode"]["needed_tflop"] > whole["stages"]["encode"]["needed_tflop"]


@pytest.mark.thorough
def test_stages_end_the_run(tmp_path: Path) -> None:
    some = ("--frames", "6", "--keyframes", "2", "--stages", "encode", "features")
    results = run(tmp_path / "some.json", *some)
    assert results["stages"]["features"]["share_done"] == 1
    assert "edit" not in results["stages"] and "edit_seconds" not in results


def test_the_paper_preset_keeps_its_ratio_of_steps() -> None:
    plan, edit = measure.make_configs(parse(["--preset", "paper", "--steps", "4", "--prune", "0.5", "--json", "x"]))
    assert (edit.steps, edit.inversion_steps, plan.prune, plan.kv_frames) == (4, 8, 0.5, None)
