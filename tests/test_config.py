"""Settings check themselves; presets and profiles fill in what is left open."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest

from adaflow_core.config import (
    PRESETS,
    ConfigError,
    EditConfig,
    FilledEdit,
    ModelProfile,
    PlanConfig,
    edit_of,
    resolve_edit,
    resolve_plan,
    settings_dict,
    settings_of,
)
from adaflow_core.errors import AdaFlowError
from adaflow_core.storage.cache import cache_key


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (lambda: PlanConfig(prune=1.5), ["prune", "1.5", "between 0 and 1"]),
        (lambda: PlanConfig(prune=float("nan")), ["prune", "nan"]),
        (lambda: PlanConfig(prune=0.5, kv_frames=4), ["prune and kv_frames"]),
        (lambda: PlanConfig(keyframes_at="3,x"), ["keyframes_at", "'3,x'", "such as 3,10,17"]),
        (lambda: PlanConfig(keyframes_at="3", method="per-frame"), ["per-frame", "leave out keyframes_at"]),
        (lambda: PlanConfig(keyframes=0), ["keyframes", "0"]),
        (lambda: PlanConfig(keyframes=2.5), ["keyframes", "whole number"]),  # type: ignore[arg-type]
        (lambda: PlanConfig(scales=(3,)), ["scales", "1, 2, 4, 8"]),
        (lambda: PlanConfig(scales=()), ["scales"]),
        (lambda: PlanConfig(method="best"), ["method", "adaflow"]),  # type: ignore[arg-type]
        (lambda: EditConfig(steps=0), ["steps", "between 1 and 250"]),
        (lambda: EditConfig(steps=10, inversion_steps=15), ["multiple of steps (10)"]),
        (lambda: EditConfig(guidance=0.5), ["guidance"]),
        (lambda: EditConfig(fidelity=2), ["fidelity"]),
        (lambda: EditConfig(seed=-1), ["seed"]),
        (lambda: EditConfig(seed=True), ["seed is True", "between 0"]),
        (lambda: EditConfig(low_memory="no"), ["low_memory is 'no'; it must be true or false"]),  # type: ignore[arg-type]
        (lambda: EditConfig(negative_prompt=3), ["negative_prompt is 3; it must be a text"]),  # type: ignore[arg-type]
        (lambda: PlanConfig(scales=2), ["scales is 2; it must be a list such as [1, 2, 4]"]),  # type: ignore[arg-type]
        (lambda: PlanConfig(sampled=None), ["sampled is None; it must lie between 0 and 1"]),  # type: ignore[arg-type]
    ],
)
def test_a_bad_value_is_named_with_its_range(build, names) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError) as caught:
        build()
    assert all(name in str(caught.value) for name in names)


@pytest.mark.parametrize("config", [PlanConfig, EditConfig])
def test_every_field_is_a_row_of_the_table(config: type) -> None:
    table = settings_of(config)
    assert list(table) == [field.name for field in fields(config)]
    for setting in table.values():
        assert setting.help and not setting.help.endswith("."), f"{setting.name}: a phrase says what it is"
        assert not setting.effect or setting.effect.endswith("."), f"{setting.name}: a sentence says what it does"
        # A flag that is left out means the default: it is how a command says None.
        assert not setting.optional or setting.default is None, setting.name
        if setting.kind in (int, float) and not setting.several:
            assert setting.low is not None and setting.high is not None, f"{setting.name} has no range"
            for bound in (setting.low, setting.high):
                assert config(**{setting.name: bound}) is not None
            for beyond in (setting.low - 1, setting.high + max(1, setting.high)):
                with pytest.raises(ConfigError, match=f"^{setting.name} is "):
                    config(**{setting.name: beyond})


def test_a_field_that_is_no_row_of_the_table_is_refused() -> None:
    @dataclass(frozen=True)
    class Bare:
        steps: int = 3

    with pytest.raises(TypeError, match=r"Bare\.steps.*setting"):
        settings_of(Bare)


def test_whatever_the_model_has_a_value_for_is_filled_in() -> None:
    own = {"guidance": 3.0, "guided": 0.2, "injection_attention": 0.3, "injection_conv": 0.4,
           "fidelity": 0.6, "tolerance": 0.7, "coarse": 0.8}  # fmt: skip
    chosen = {"prune": 0.1, "similarity": 0.2, "window_similarity": 0.3, "residual": 0.4}
    profile = ModelProfile(**own, **chosen)  # type: ignore[arg-type]
    assert own.items() <= vars(resolve_edit(EditConfig(), profile, PlanConfig())).items()
    assert chosen.items() <= vars(resolve_plan(PlanConfig(), profile, "cpu")).items()
    kept = EditConfig(**dict.fromkeys(own, 1.0))  # type: ignore[arg-type]
    assert all(getattr(resolve_edit(kept, profile, PlanConfig()), name) == 1 for name in own)


def test_the_model_fills_in_what_is_left_open() -> None:
    profile = ModelProfile(steps=20, inversion_steps=40, guidance=8, negative="source", prune=0.3)
    plan = PlanConfig(source_prompt="a ball")
    edit = resolve_edit(EditConfig(), profile, plan)
    assert (edit.steps, edit.inversion_steps, edit.guidance) == (20, 40, 8)
    assert edit.negative_prompt == "a ball"
    # A user's own steps keep the profile's ratio.
    edit = resolve_edit(EditConfig(steps=5, guidance=3, negative_prompt=""), profile, plan)
    assert (edit.inversion_steps, edit.guidance, edit.negative_prompt) == (10, 3, "")
    # Frames agree the less often the fewer steps there are, and never where each is edited alone.
    often = [resolve_edit(EditConfig(steps=steps), ModelProfile(), plan).agreements for steps in (4, 10, 12, 25, 50)]
    assert often == [1, 1, 2, 3, 3] and resolve_edit(EditConfig(), replace(profile, agreements=0), plan).agreements == 0
    assert resolve_edit(EditConfig(), profile, PlanConfig(method="per-frame")).agreements == 0
    assert resolve_plan(PlanConfig(), profile, "cpu").prune == 0.3
    assert resolve_plan(PlanConfig(kv_frames=20), profile, "cuda").prune is None
    redrawn = resolve_plan(PlanConfig(resample=True), profile, "cpu")
    assert resolve_edit(EditConfig(stride=8), profile, redrawn).stride == 1  # other frames are keyframes at each step
    assert [resolve_plan(PlanConfig(), profile, device).max_keyframes for device in ("cuda", "cpu")] == [96, 32]


@pytest.mark.parametrize(
    ("profile", "steps", "inversion_steps", "fidelity"),
    [
        (ModelProfile(), 12, 12, 0.5),
        (ModelProfile(steps=10, inversion_steps=20, fidelity=0.9), 10, 20, 0.9),
        (ModelProfile(steps=20, inversion_steps=40, fidelity=0.3), 12, 24, 0.3),
    ],
)
def test_the_fast_preset_takes_no_more_steps_than_the_model(
    profile: ModelProfile, steps: int, inversion_steps: int, fidelity: float
) -> None:
    plan, fast = PRESETS["fast"]
    edit = resolve_edit(fast, profile, plan)
    assert (edit.steps, edit.inversion_steps, edit.fidelity) == (steps, inversion_steps, fidelity)
    assert (edit.agreements, edit.stride) == (profile.agreements_for(steps, plan), 8)
    assert resolve_edit(edit, profile, plan) == edit, "as its report repeats it"
    edit = resolve_edit(replace(fast, steps=30, fidelity=1.0), profile, plan)
    assert (edit.steps, edit.inversion_steps, edit.fidelity) == (30, profile.inversion_steps_for(30), 1.0)
    asked = [resolve_edit(replace(fast, steps=number), profile, plan).fidelity for number in (4, profile.steps)]
    assert asked == [min(profile.fidelity, 0.5), profile.fidelity], "half in fewer steps than the model's own"


def test_the_paper_preset_holds_the_published_settings() -> None:
    plan, edit = PRESETS["paper"]
    assert (plan.similarity, plan.window_similarity, plan.kv_frames, plan.resample) == (0.75, 0.6, 20, True)
    assert (plan.blend, plan.importance, plan.max_segment) == (False, "uniform", 400)
    assert (edit.inversion_steps, edit.steps, edit.guidance) == (100, 50, 7.5)
    assert (edit.injection_attention, edit.injection_conv) == (0.8, 0.8)


def test_a_report_of_an_older_version_means_what_it_did() -> None:
    written = settings_dict(*PRESETS["default"])["edit"]
    newer = {"stride": 1, "agreements": 0, "guided_from": 0.0, "coarse": 1.0, "max_steps": None}
    for names in (list(newer), ["guided_from", "coarse"], ["max_steps"]):
        older = {name: value for name, value in written.items() if name not in names}
        assert edit_of(older) == EditConfig(**{name: newer[name] for name in names})
    assert edit_of({"steps": 5}) == EditConfig(steps=5)  # by hand: what it does not say is as usual


def test_guidance_has_a_beginning_and_an_end() -> None:
    config = FilledEdit(steps=10, guidance=7.0, guided_from=0.2, guided=0.6)
    assert list(config.guided_steps) == list(replace(config, guided_from=None).guided_steps) == [2, 3, 4, 5]
    assert not replace(config, guidance=1.0).guided_steps and not replace(config, guided_from=0.8).guided_steps


def test_a_profile_of_an_older_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "adaflow.json").write_text(json.dumps({"guidance": 3.0, "cut": 0.5}))
    assert ModelProfile.load(tmp_path) == ModelProfile(guidance=3.0)


def test_a_profile_with_a_misspelt_setting_is_refused(tmp_path: Path) -> None:
    assert ModelProfile.load(tmp_path) is None
    (tmp_path / "adaflow.json").write_text(json.dumps({"gidance": 3}))
    with pytest.raises(ConfigError, match="gidance"):
        ModelProfile.load(tmp_path)


def test_what_is_true_or_false_is_read_as_it_is_written() -> None:
    row = settings_of(EditConfig)["low_memory"]
    assert [row.parse(row.as_text(value)) for value in (True, False)] == [True, False]
    assert row.parse("false") is False
    with pytest.raises(AdaFlowError, match="low_memory is 'no'; it must be true or false"):
        row.parse("no")


def test_equal_settings_are_one_in_the_cache_however_they_were_given() -> None:
    def key(config: PlanConfig | EditConfig) -> str:
        return cache_key(**asdict(config))

    assert EditConfig(guidance=7).guidance == 7 and isinstance(EditConfig(guidance=7).guidance, float)
    assert key(EditConfig(guidance=7, detail=1, focus=None)) == key(EditConfig(guidance=7.0, detail=1.0))
    assert key(PlanConfig(scales=(1.0, 2))) == key(PlanConfig(scales=[True, 2]))  # type: ignore[arg-type]
    assert isinstance(EditConfig(steps=7).steps, int)


def test_numbers_may_be_those_of_numpy() -> None:
    config = EditConfig(seed=np.int64(7), focus=np.float32(0.5), low_memory=np.bool_(True))
    assert (config.seed, config.focus, config.low_memory) == (7, 0.5, True)
    assert (type(config.seed), type(config.focus), type(config.low_memory)) == (int, float, bool)
    assert PlanConfig(keyframes=np.int32(3), scales=np.array([1, 2])).scales == (1, 2)
    with pytest.raises(ConfigError, match="seed is -1; it must lie between"):
        EditConfig(seed=np.int64(-1))


def test_an_empty_choice_is_called_empty() -> None:
    with pytest.raises(ConfigError, match=r"^scales is empty; choose one or more of 1, 2, 4, 8$"):
        PlanConfig(scales=())
