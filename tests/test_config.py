"""Settings check themselves; presets and profiles fill in what is left open."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adaflow_core.config import (
    PRESETS,
    ConfigError,
    EditConfig,
    ModelProfile,
    PlanConfig,
    resolve_edit,
    resolve_plan,
)


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda: PlanConfig(prune=1.5), ["prune", "1.5", "between 0 and 1"]),
        (lambda: PlanConfig(prune=float("nan")), ["prune", "nan"]),
        (lambda: PlanConfig(prune=0.5, kv_frames=4), ["prune and kv_frames"]),
        (lambda: PlanConfig(keyframes=0), ["keyframes", "0"]),
        (lambda: PlanConfig(keyframes=2.5), ["keyframes", "whole number"]),  # type: ignore[arg-type]
        (lambda: PlanConfig(scales=(3,)), ["scales", "1, 2, 4, 8"]),
        (lambda: PlanConfig(scales=()), ["scales"]),
        (lambda: PlanConfig(method="best"), ["method", "adaflow"]),  # type: ignore[arg-type]
        (lambda: EditConfig(steps=0), ["steps", "between 1 and 1000"]),
        (lambda: EditConfig(steps=10, inversion_steps=15), ["multiple of steps (10)"]),
        (lambda: EditConfig(guidance=0.5), ["guidance"]),
        (lambda: EditConfig(fidelity=2), ["fidelity"]),
        (lambda: EditConfig(seed=-1), ["seed"]),
    ],
)
def test_a_bad_value_is_named_with_its_range(build, names) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError) as caught:
        build()
    assert all(name in str(caught.value) for name in names)


def test_the_model_fills_in_what_is_left_open() -> None:
    profile = ModelProfile(steps=20, inversion_steps=40, guidance=8, negative="source", prune=0.3)
    edit = resolve_edit(EditConfig(), profile, "a ball")
    assert (edit.steps, edit.inversion_steps, edit.guidance) == (20, 40, 8)
    assert edit.negative_prompt == "a ball"
    # A user's own steps keep the profile's ratio.
    edit = resolve_edit(EditConfig(steps=5, guidance=3, negative_prompt=""), profile, "a ball")
    assert (edit.inversion_steps, edit.guidance, edit.negative_prompt) == (10, 3, "")
    assert resolve_plan(PlanConfig(), profile, "cpu").prune == 0.3
    assert resolve_plan(PlanConfig(kv_frames=20), profile, "cuda").prune is None
    assert [resolve_plan(PlanConfig(), profile, device).max_keyframes for device in ("cuda", "cpu")] == [96, 32]


def test_the_paper_preset_holds_the_published_settings() -> None:
    plan, edit = PRESETS["paper"]
    assert (plan.similarity, plan.window_similarity, plan.kv_frames, plan.resample) == (0.75, 0.6, 20, True)
    assert (plan.blend, plan.importance, plan.max_segment) == (False, "uniform", 400)
    assert (edit.inversion_steps, edit.steps, edit.guidance) == (100, 50, 7.5)
    assert (edit.injection_attention, edit.injection_conv) == (0.8, 0.8)


def test_a_profile_with_a_misspelt_setting_is_refused(tmp_path: Path) -> None:
    assert ModelProfile.load(tmp_path) is None
    (tmp_path / "adaflow.json").write_text(json.dumps({"gidance": 3}))
    with pytest.raises(ConfigError, match="gidance"):
        ModelProfile.load(tmp_path)
