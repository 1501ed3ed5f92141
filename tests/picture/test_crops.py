"""An edit of a small region passes a crop of the picture through the model, and comes out as any other edit does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adaflow_core.cli.main import main
from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.timeline import PromptRange, Timeline
from adaflow_core.model.backbone import Backbone
from adaflow_core.picture.by_hand import ByHand
from adaflow_core.picture.region import Region
from adaflow_core.picture.region.window import CONTEXT, LARGEST, find_window
from adaflow_core.progress import Progress
from adaflow_core.storage.cache import Cache
from adaflow_core.types import EditResult, Plan
from adaflow_core.video.write import write_video

QUICK = EditConfig(steps=2, inversion_steps=2, focus=1.0, chunk=4)
PROMPT = "a blue ball, watercolour"
T, SIDE = 7, 192
BOX = np.zeros((T, SIDE, SIDE), bool)
for t in range(T):
    BOX[t, 40:60, 20 + 14 * t : 44 + 14 * t] = True
REGION = Region(masks=BOX, feather=4)
WHOLE = replace(REGION, crop="never")
NOWHERE = np.empty(0, np.int64)


@pytest.fixture(scope="module")
def engine(tiny_backbone: Callable[[str], Backbone], tmp_path_factory: pytest.TempPathFactory) -> AdaFlow:
    backbone = tiny_backbone("sd1")
    small = replace(backbone, profile=replace(backbone.profile, size=128))
    return AdaFlow(small, Cache(tmp_path_factory.mktemp("crops")))


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    """[T, SIDE, SIDE, 3] uint8: a thing drifts through a drawn scene."""
    from scenes.render import render
    from scenes.world import sample

    rgb = render(sample(1, seed=0, split="test", motion="drift"), torch.linspace(0, 1, T), size=SIDE).rgb[0]
    return (rgb.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()


@pytest.fixture(scope="module")
def plan(engine: AdaFlow, film: np.ndarray) -> Plan:
    return engine.plan(film, PlanConfig(keyframes=3, source_prompt="a red ball"))


def timeline(engine: AdaFlow, plan: Plan, region: Region, *ranges: tuple[int, int]) -> EditResult:
    prompts = tuple(PromptRange(start, end, f"{PROMPT} {start}") for start, end in ranges or [(0, T)])
    return engine.edit_timeline(plan, Timeline(prompts, crossfade=0), QUICK, region=region)


def box(frames: int, y: np.ndarray | int, x: np.ndarray | int, side: int, shape: tuple[int, int]) -> np.ndarray:
    """[frames, H, W] uint8: a square that is inside, its corner at (y, x)."""
    out = np.zeros((frames, *shape), np.uint8)
    for t, (top, left) in enumerate(np.broadcast(np.broadcast_to(y, frames), np.broadcast_to(x, frames))):
        out[t, top : top + side, left : left + side] = 255
    return out


def test_a_window_holds_the_region_with_what_surrounds_it_and_moves_calmly() -> None:
    frames, shape = 60, (384, 672)
    rng = np.random.default_rng(0)
    x = np.linspace(0, 570, frames).astype(int) + rng.integers(0, 9, frames)
    mask = box(frames, 100, x, 90, shape)
    mask[20:30] = 0  # it is behind something
    window = find_window(mask, NOWHERE, 256)
    assert window is not None and window.size == (256, 256) and window.share < 0.26
    width, height = window.size
    for t, (top, left) in enumerate(window.corners):
        assert top % 8 == left % 8 == 0 and 0 <= top <= 384 - height and 0 <= left <= 672 - width
        if mask[t].any():
            assert top <= 100 - CONTEXT and top + height >= 190 + CONTEXT
            assert left <= max(0, x[t] - CONTEXT) and min(672, x[t] + 90 + CONTEXT) <= left + width
    steps = np.diff(window.corners, axis=0)
    assert (steps[:, 0] == 0).all() and (steps[:, 1] >= 0).all() and steps.max() <= 16


def test_a_window_jumps_at_a_cut_only() -> None:
    x = np.where(np.arange(20) < 9, 40, 500)
    window = find_window(box(20, 150, x, 60, (384, 672)), np.array([9]), 256)
    assert window is not None
    assert np.flatnonzero(np.abs(np.diff(window.corners[:, 1])) > 0).tolist() == [8]


@pytest.mark.parametrize(
    ("side", "shape", "least", "size"),
    [
        (100, (512, 512), 256, (256, 256)),
        (40, (512, 512), 256, (256, 256)),  # no smaller than asked for
        (40, (512, 512), 200, (256, 256)),
        (200, (512, 512), 256, (320, 320)),
        (330, (512, 512), 256, None),  # nearly all of it
        (60, (256, 256), 128, (128, 128)),
        (60, (256, 256), 256, None),  # a frame that is small already
        (100, (176, 900), 128, (192, 176)),  # as high as a frame whose side is no multiple
    ],
)
def test_the_window_is_as_large_as_it_must_be(
    side: int, shape: tuple[int, int], least: int, size: tuple[int, int] | None
) -> None:
    window = find_window(box(3, 48, 48, side, shape), NOWHERE, least)
    assert (window and window.size) == size
    if window is not None:
        assert window.share <= LARGEST and window.as_json()["width"] == window.size[0]


def test_a_shot_without_the_region_and_one_with_it_are_cropped_together() -> None:
    mask = box(8, 100, 100, 56, (512, 512))
    mask[:3] = 0
    window = find_window(mask, np.array([3]), 128)
    assert window is not None and window.size == (128, 128) and len(window.corners) == 8


def test_outside_the_feather_every_byte_is_the_sources_and_the_report_says_the_crop(
    engine: AdaFlow, plan: Plan
) -> None:
    mask, source = engine.region(plan, REGION), plan.video.frames
    assert mask.window is not None and mask.window.size == (128, 128)
    assert engine.region(plan, WHOLE).window is None
    result = engine.edit(plan, PROMPT, QUICK, region=REGION)
    outside = mask.weights == 0
    assert result.frames.shape == source.shape and (result.frames[outside] == source[outside]).all()
    assert (result.frames[BOX] != source[BOX]).any(axis=-1).mean() > 0.5
    assert result.report["crop"] == {"width": 128, "height": 128, "share": 0.4444}
    assert (result.report["width"], result.report["height"]) == (SIDE, SIDE)
    whole = engine.edit(plan, PROMPT, QUICK, region=WHOLE)
    assert whole.report["crop"] is None and (whole.frames != result.frames).any()


def test_what_the_model_was_trained_at_is_the_least_unless_a_small_crop_is_asked_for(
    engine: AdaFlow, plan: Plan, tmp_path: Path
) -> None:
    inside = np.zeros((T, SIDE, SIDE), bool)
    inside[:, 84:100, 84:100] = True
    sizes = {}
    for crop in ("auto", "small", "never"):
        window = engine.region(plan, Region(masks=inside, feather=0, crop=crop)).window
        sizes[crop] = window and window.size
    assert sizes == {"auto": (128, 128), "small": (128, 128), "never": None}
    wide = AdaFlow(replace(engine.backbone, profile=replace(engine.profile, size=SIDE)), Cache(tmp_path))
    planned = wide.plan(plan.video, plan.config)
    found = [wide.region(planned, Region(masks=inside, feather=0, crop=crop)).window for crop in ("auto", "small")]
    assert found[0] is None and found[1] is not None and found[1].size == (128, 128)


def test_a_draft_shows_the_keyframes_of_the_edit_that_goes_on_from_it(
    engine: AdaFlow, film: np.ndarray, tmp_path: Path
) -> None:
    engine = AdaFlow(engine.backbone, Cache(tmp_path))
    plan = engine.plan(film, PlanConfig(keyframes=3, source_prompt="a red ball"))
    calm = replace(QUICK, agreements=0, smoothing=0.0)
    draft = engine.draft(plan, PROMPT, calm, region=REGION)
    seen: list[Progress] = []
    result = engine.edit(plan, PROMPT, calm, region=REGION, progress=seen.append)
    np.testing.assert_array_equal(draft.frames, result.frames[draft.keyframes])
    assert draft.report["crop"] == result.report["crop"] and result.report["keyframes"] == draft.keyframes.tolist()
    inverted = [p for p in seen if p.stage == "invert"]
    assert inverted[0].total * len(draft.keyframes) == inverted[-1].skipped * len(result.report["edited"])


@pytest.mark.thorough
def test_an_edit_is_the_edit_of_a_timeline_with_one_range_and_a_new_engine_repeats_it(
    engine: AdaFlow, plan: Plan, film: np.ndarray, tmp_path: Path
) -> None:
    again = AdaFlow(engine.backbone, Cache(tmp_path))
    planned = again.plan(film, plan.config)
    edited = again.edit(planned, f"{PROMPT} 0", QUICK, region=REGION)
    ranged = timeline(engine, plan, REGION)
    np.testing.assert_array_equal(edited.frames, ranged.frames)
    assert edited.report["settings"]["edit"] == ranged.report["settings"]["edit"], "with what was filled in"


def test_timelines_and_takes_keep_to_it(engine: AdaFlow, plan: Plan) -> None:
    outside, source = engine.region(plan, REGION).weights == 0, plan.video.frames
    before = timeline(engine, plan, REGION, (0, 3), (3, 7))
    assert before.report["stretches"][1]["crop"] == before.report["crop"] and before.report["crop"]
    take = engine.retake(plan, before, (2, 5), "a pink ball", QUICK, region=REGION)
    for film in (before, take):
        assert film.frames.shape == source.shape and (film.frames[outside] == source[outside]).all()
    inside = BOX[2:5]
    assert (take.frames[2:5][inside] != before.frames[2:5][inside]).any()
    np.testing.assert_array_equal(take.frames[5:], before.frames[5:])


def test_what_was_changed_by_hand_is_edited_in_a_crop_too(engine: AdaFlow, plan: Plan) -> None:
    picture = plan.video.frames[3].copy()
    picture[44:56, 66:82] = 250, 20, 20
    by_hand = ByHand({3: picture})
    result = engine.edit(plan, "", QUICK, by_hand=by_hand)
    assert result.report["crop"] == {"width": 128, "height": 128, "share": 0.4444}
    change = np.abs(result.frames[3].astype(int) - picture).mean(axis=-1)
    assert change[46:54, 68:80].mean() < np.abs(plan.video.frames[3].astype(int) - picture)[46:54, 68:80].mean()
    with_region = engine.edit(plan, PROMPT, QUICK, by_hand=by_hand, region=REGION)
    outside = engine.region(plan, REGION).weights == 0
    assert (with_region.frames[outside] == plan.video.frames[outside]).all()


def test_structure_and_light_are_judged_by_whole_frames(engine: AdaFlow, plan: Plan) -> None:
    jobs = []
    for prompt in (PROMPT, "a red ball, watercolour"):
        for region in (REGION, WHOLE):
            with engine._job(plan, prompt, QUICK, None, None, region) as job:
                jobs.append(job)
    for crop, whole in (jobs[:2], jobs[2:]):
        assert crop.config == whole.config and crop.key != whole.key
    assert jobs[0].config.coarse is not None
    assert (jobs[2].config.coarse, jobs[2].config.structure) == (0.5, 1.0)  # a style


@pytest.mark.thorough
def test_the_command_line_says_what_is_edited_and_its_project_repeats_it(
    film: np.ndarray, tiny_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("ADAFLOW_CACHE", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(tiny_folder("sd1"), tmp_path / "model"))
    (folder / "adaflow.json").write_text(json.dumps({"size": 192}))
    clip = write_video(tmp_path / "clip.mp4", film, Fraction(12))
    mask, project, report = (tmp_path / name for name in ("mask.png", "film.json", "report.json"))
    Image.fromarray(BOX[3].astype(np.uint8) * 255).save(mask)
    line = ["--model", str(folder), "--frames", "3:5", "--keyframes", "1", "--steps", "1", "--report", str(report)]
    line += ["--source-prompt", "a red ball", "--prompt", PROMPT, "--out", str(tmp_path / "out.mp4")]
    assert main(["edit", str(clip), *line, "--mask", str(mask)]) == 0
    assert "region: Whole frames pass through the model." in capsys.readouterr().err
    asked = ["--mask", str(mask), "--crop", "small", "--project", str(project)]
    assert main(["edit", str(clip), *line, *asked]) == 0
    assert "region: A crop of 128x128 passes through the model, 44 % of the picture. Fo" in capsys.readouterr().err
    first = json.loads(report.read_text())
    assert first["crop"] == {"width": 128, "height": 128, "share": 0.4444} and first["region"]["crop"] == "small"
    assert main(["edit", "--project", str(project), *line[-2:], "--report", str(report)]) == 0
    assert json.loads(report.read_text())["frames_digest"] == first["frames_digest"]


def test_a_project_of_before_crops_repeats_its_film(tmp_path: Path) -> None:
    painted = Region({0: BOX[0]})
    data = json.loads(json.dumps(painted.as_json(tmp_path)))
    assert Region.from_json(data, tmp_path).crop == "auto" and not [flag for flag in painted.flags if "crop" in flag]
    del data["crop"]
    assert Region.from_json(data, tmp_path).crop == "never" and "--crop=never" in WHOLE.flags
    with pytest.raises(AdaFlowError, match="crop is 'always'; choose auto, small, never"):
        replace(REGION, crop="always")
