"""A stretch of a finished edit again: what lies outside keeps every byte, and what is held is held."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adaflow_core.cli.main import main
from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.editing.checkpoint import frames_digest
from adaflow_core.editing.editor import Editor
from adaflow_core.engine import AdaFlow
from adaflow_core.engine.edit_job import EditJob
from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.film.known import is_kept, part_keys
from adaflow_core.film.retake import NEIGHBOURS, seam_frames, surroundings
from adaflow_core.film.timeline import PromptRange, Timeline, stretches
from adaflow_core.model.backbone import Backbone
from adaflow_core.picture.by_hand import ByHand
from adaflow_core.picture.over import NOTHING, Asked
from adaflow_core.picture.region import Region
from adaflow_core.progress import Monitor, Progress
from adaflow_core.storage.cache import Cache
from adaflow_core.team.team import Team
from adaflow_core.types import EditResult, Held, Inversion, Plan, Segments
from adaflow_core.video.decode import from_frames

QUICK = EditConfig(steps=2, stride=1)
PROMPT, OTHER = "a blue ball", "a red ball, watercolour"
NO_CUTS = np.empty(0, np.int64)


def test_the_neighbours_of_a_stretch_are_the_keyframes_next_to_it_in_its_shot() -> None:
    starts = np.arange(0, 60, 6)
    segments = Segments(starts, starts + 2, np.array([12, 54]), 60)
    begin, stop, around, held = surroundings(segments, 30, 38)
    assert NEIGHBOURS == 1 and (begin, stop) == (26, 39)
    assert (held + begin).tolist() == [26, 38]
    assert (around.keyframes + begin).tolist() == [26, 32, 36, 38]
    assert (around.starts <= around.keyframes).all() and (around.keyframes < around.ends).all()
    # At a cut there is no neighbour; a stretch without a keyframe gets one.
    begin, stop, around, held = surroundings(segments, 12, 14)
    assert begin == 12 and (held + 12).tolist() == [14] and around.keyframes.tolist() == [0, 2]
    # Of the frames that the film's model edited, where there are such.
    assert surroundings(segments, 15, 18, np.array([12, 17, 20]))[2].keyframes.tolist() == [0, 3, 6]
    assert surroundings(segments, 15, 18, np.array([12, 20]))[2].keyframes.tolist() == [0, 2, 6]
    # What has none goes to the segment beside it, but not over a cut.
    joined = surroundings(segments, 16, 25, np.array([20]))[2]
    assert (joined.starts + 14).tolist() == [14, 16, 25] and (joined.keyframes + 14).tolist() == [14, 20, 26]
    assert 53 in surroundings(segments, 53, 60, np.array([56]))[2].keyframes + 50
    assert surroundings(segments, 0, 60)[:2] == (0, 60) and not len(surroundings(segments, 0, 60)[3])


def test_a_seam_is_as_long_as_its_jump_is_large() -> None:
    old = np.arange(0, 60, 2, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)  # moves by 2 a frame
    assert seam_frames(old, old) == 1
    assert [seam_frames(old, old + jump) for jump in (1, 2, 90)] == [2, 4, 10]
    assert seam_frames(old[:1], old[:1]) == 0


@pytest.fixture(scope="module")
def engine(tiny_backbone: Callable[[str], Backbone], tmp_path_factory: pytest.TempPathFactory) -> AdaFlow:
    return AdaFlow(tiny_backbone("sd1"), Cache(tmp_path_factory.mktemp("retakes")))


@pytest.fixture(scope="module")
def plan(engine: AdaFlow, drawn_frames: np.ndarray) -> Plan:
    return engine.plan(drawn_frames, PlanConfig(keyframes=4))


@pytest.fixture(scope="module")
def first(engine: AdaFlow, plan: Plan) -> EditResult:
    return engine.edit(plan, PROMPT, QUICK)


def test_only_the_stretch_changes(engine: AdaFlow, plan: Plan, first: EditResult) -> None:
    before = first.frames.copy()
    seen: list[Progress] = []
    take = engine.retake(plan, first, (4, 8), OTHER, QUICK, progress=seen.append)
    np.testing.assert_array_equal(take.frames[:4], before[:4])
    np.testing.assert_array_equal(take.frames[8:], before[8:])
    assert (take.frames[4:8] != before[4:8]).any()
    np.testing.assert_array_equal(first.frames, before)  # the takes lie side by side
    held = len(surroundings(plan.segments, 4, 8)[3])
    assert {p.total for p in seen if p.stage == "edit"} == {3 * (4 + held)}  # two steps, and agreement
    assert {p.total for p in seen if p.stage == "decode frames"} == {4}
    (row,) = json.loads(json.dumps(take.report["takes"]))
    assert (row["frames"], row["prompt"], row["seed"]) == ([4, 8], OTHER, 0) and not first.report["takes"]
    keyframes, edited = row["report"]["keyframes"], row["report"]["edited"]
    assert set(keyframes) <= set(plan.segments.keyframes.tolist()) and set(edited) <= set(range(4, 8))
    assert row["report"]["settings"]["structure"] is not None, "filled in"
    assert take.report["frames_digest"] != first.report["frames_digest"]


def test_nothing_is_carried_over_a_cut_that_no_range_named(engine: AdaFlow, drawn_frames: np.ndarray) -> None:
    """Where the film is the source's no end of a shot was edited; a take there must not reach over the cut."""
    film = np.concatenate([drawn_frames, 255 - drawn_frames])
    plan = engine.plan(film, PlanConfig(keyframes=4))
    assert plan.segments.cuts.tolist() == [12]
    config = replace(QUICK, stride=8)
    part = engine.edit_timeline(plan, Timeline((PromptRange(0, 4, PROMPT),), 0), config)
    take = engine.retake(plan, part, (9, 15), OTHER, config, source_prompt="a red ball")
    assert {11, 12} <= set(take.report["takes"][0]["report"]["edited"])


def test_what_the_neighbours_show_matters_and_what_lies_beyond_does_not(
    engine: AdaFlow, plan: Plan, first: EditResult
) -> None:
    begin, _, _, held = surroundings(plan.segments, 9, 12)
    assert begin > 0
    taken = engine.retake(plan, first, (9, 12), OTHER, QUICK).frames
    for frame, matters in ((begin + held[0], True), (begin - 1, False)):
        frames = first.frames.copy()
        frames[frame] = 255 - frames[frame]
        other = engine.retake(plan, replace(first, frames=frames), (9, 12), OTHER, QUICK).frames
        assert (other[9:] != taken[9:]).any() == matters


def test_held_keyframes_stay_and_the_first_takes_own_give_the_first_take(
    tiny_backbone: Callable[[str], Backbone], engine: AdaFlow, plan: Plan
) -> None:
    job = EditJob.of(engine.backbone, engine.cache, plan, PROMPT, replace(QUICK, steps=4), Monitor())
    inversion: Inversion = job.invert()[0]
    prompts = (job.source, job.negative, job.positive, job.config, Monitor())
    path: list[torch.Tensor] = []

    class Recording(Editor):
        def _keyframes(self, x, step, stage, preview):  # type: ignore[no-untyped-def]
            path.append(x[plan.layout.keyframes].clone())
            super()._keyframes(x, step, stage, preview)

    whole, _ = Recording(engine.backbone, *prompts).run(inversion, job.latents, job.layouts())
    ids = plan.layout.keyframes[[0, -1]]
    latents = torch.stack(path)[:, [0, -1]].numpy()
    held = Held(ids, latents, job.positive.prompt_embeds.expand(2, -1, -1))
    editor = Editor(engine.backbone, *prompts, None, held, slice(4, 9))
    again, _ = editor.run(inversion, job.latents, job.layouts())
    torch.testing.assert_close(again[4:9], whole[4:9], atol=1e-3, rtol=0)
    assert not torch.allclose(again[0], whole[0]) or 0 in ids  # what is neither held nor asked for is not edited


@pytest.mark.thorough
def test_takes_of_a_report_repeat_the_film(
    engine: AdaFlow, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeline = Timeline((PromptRange(0, 6, PROMPT), PromptRange(6, 10, OTHER)), crossfade=2)
    film = engine.edit_timeline(plan, timeline, QUICK)
    film = engine.retake(plan, film, (3, 8), "a ball rolls over snow", QUICK)
    film = engine.retake(plan, film, (4, 7), config=EditConfig(steps=3, stride=1))
    assert film.report["takes"][1]["prompt"] == "a ball rolls over snow"
    report = json.loads(json.dumps(film.report))
    elsewhere = AdaFlow(engine.backbone, Cache(tmp_path / "empty"))
    ranges = tuple(PromptRange(*row["frames"], row["prompt"]) for row in report["prompts"])
    settings = EditConfig(**report["settings"]["edit"])
    digests: list[int] = []

    def digest(frames: np.ndarray, *team: Team) -> str:
        digests.append(len(frames))
        return frames_digest(frames, *team)

    monkeypatch.setattr("adaflow_core.engine.film_job.frames_digest", digest)
    monkeypatch.setattr("adaflow_core.engine.film_job.lay_over", None)  # of takes, which are laid into the one film
    asked, planned, seen = Timeline(ranges, report["crossfade"]), elsewhere.plan(plan.video.frames, plan.config), set()
    again = elsewhere.replay(
        planned, asked, settings, report["takes"], progress=lambda p: seen.add(p.part) if p.stage == "edit" else None
    )
    assert digests == [len(plan.video)] and len(again.report["takes"]) == 2
    parts = stretches(asked, planned.segments.cuts, len(planned.video))
    keys = part_keys(planned, parts, settings, report["takes"], NOTHING.asked)
    assert seen == {0, 1, 2, 3} and all(is_kept(elsewhere.cache, key) for key in keys) and len(keys) == 4
    assert again.report["frames_digest"] == report["frames_digest"] == frames_digest(again.frames)


def test_a_take_is_asked_for_over_the_picture_as_its_film_was(
    engine: AdaFlow, plan: Plan, first: EditResult, tmp_path: Path
) -> None:
    """Else its area outside a region would be the source's, and its film could not be made again."""
    mask = np.zeros((64, 64), bool)
    mask[20:44, 20:44] = True
    Image.fromarray(mask).save(tmp_path / "mask.png")
    region = Region({0: tmp_path / "mask.png"}, feather=2)
    with pytest.raises(AdaFlowError, match="without a region"):
        engine.retake(plan, first, (4, 8), OTHER, QUICK, region=region)
    by_hand = ByHand({0: np.where(mask[..., None], np.uint8(200), plan.video.frames[0])})
    with pytest.raises(AdaFlowError, match="without keyframes by hand"):
        engine.retake(plan, first, (4, 8), OTHER, QUICK, by_hand=by_hand)
    film = engine.edit(plan, PROMPT, QUICK, region=region)
    with pytest.raises(AdaFlowError, match=r"with a region; give the take the same"):
        engine.retake(plan, film, (4, 8), OTHER, QUICK)
    with pytest.raises(AdaFlowError, match="with another region"):
        engine.retake(plan, film, (4, 8), OTHER, QUICK, region=replace(region, feather=3))
    moved = replace(region, painted={0: (tmp_path / "mask.png").rename(tmp_path / "moved.png")})
    take = engine.retake(plan, film, (4, 8), OTHER, QUICK, region=moved)
    outside = engine.region(plan, moved).weights == 0
    assert (take.frames[outside] == plan.video.frames[outside]).all() and (take.bounds == 0)[outside].all()

    def check(report: dict[str, Any], **over: Any) -> None:
        Asked(engine.backbone, engine.cache, plan, **over).check_film(report)

    report = json.loads(json.dumps(film.report))
    check({"prompt": PROMPT}), check(report, region=moved)  # an older version said nothing of it
    del report["region"]["crop"]
    check(report, region=replace(moved, crop="never"))
    with pytest.raises(AdaFlowError, match="with keyframes by hand; give"):
        check({"by_hand": by_hand.as_json()})


def test_warnings_are_told_of_the_frames_that_they_are_on(engine: AdaFlow, plan: Plan, first: EditResult) -> None:
    take = engine.retake(plan, first, (5, 7), "a red zeppelin", QUICK)
    (own,) = take.report["takes"][0]["report"]["warnings"]
    assert take.warnings == (f"frames 5:7: {own}",) and take.report["warnings"] == [f"frames 5:7: {own}"]
    assert engine.retake(plan, take, (6, 8), OTHER, QUICK).warnings == take.warnings, "some of it is left"
    over = engine.retake(plan, take, (5, 8), OTHER, QUICK)
    assert over.warnings == () and over.report["takes"][0]["report"]["warnings"] == [own]
    whole = engine.retake(plan, take, (0, 12), "a blue zeppelin", QUICK)
    assert whole.warnings == (own,)


def test_a_take_leaves_its_film_what_that_would_go_on_from(engine: AdaFlow, plan: Plan, tmp_path: Path) -> None:
    film = engine.edit(plan, PROMPT, replace(QUICK, seed=3))
    assert film.state is not None and film.state.is_file()
    take = engine.retake(plan, film, (5, 7), OTHER, QUICK)
    take.save(tmp_path / "take.mp4")
    assert film.state.is_file(), "the film is not written yet"


def test_a_stopped_retake_goes_on(engine: AdaFlow, plan: Plan, first: EditResult) -> None:
    seen: list[Progress] = []
    settings = EditConfig(steps=4, stride=1)
    with pytest.raises(Stopped):
        engine.retake(
            plan, first, (4, 8), OTHER, settings,
            progress=seen.append, stop=lambda: bool(seen) and seen[-1].stage == "edit" and seen[-1].done > 20,
        )  # fmt: skip
    seen.clear()
    stopped = engine.retake(plan, first, (4, 8), OTHER, settings, progress=seen.append)
    assert max(p.skipped for p in seen if p.stage == "edit") > 0
    fresh = AdaFlow(engine.backbone, Cache(engine.cache.root / "fresh")).retake(plan, first, (4, 8), OTHER, settings)
    np.testing.assert_array_equal(stopped.frames, fresh.frames)


def test_problems_name_their_remedy(engine: AdaFlow, plan: Plan, first: EditResult) -> None:
    with pytest.raises(AdaFlowError, match="from 0 on"):
        engine.retake(plan, first, (8, 14), OTHER, QUICK)
    with pytest.raises(AdaFlowError, match="give the plan that was edited"):
        engine.retake(plan, replace(first, frames=first.frames[:5]), (0, 4), OTHER, QUICK)
    resampled = replace(plan, config=replace(plan.config, resample=True))
    with pytest.raises(AdaFlowError, match="without resample"):
        engine.retake(resampled, first, (0, 4), OTHER, QUICK)
    part = engine.edit_timeline(plan, Timeline((PromptRange(0, 6, PROMPT),)), QUICK)
    with pytest.raises(AdaFlowError, match="give one that says what they should show") as caught:
        engine.retake(plan, part, (4, 8), None, QUICK)
    assert "--" not in str(caught.value), "it is told on the page and from Python too"
    wrong: Any
    for wrong in ((3.0, 8.0), slice(3, 8), 5, (1, 2, 3)):
        with pytest.raises(AdaFlowError, match=r"give its first frame and its end in whole numbers, as in \(30, 60\)"):
            engine.retake(plan, first, wrong, OTHER, QUICK)
        with pytest.raises(AdaFlowError, match="in whole numbers"):
            engine.forecast_retake(plan, wrong)
    for wrong in (None, 5, ["a blue ball"]):
        for ask in (engine.edit, engine.draft, engine.place):
            with pytest.raises(AdaFlowError, match=r"the prompt is .*give one text"):
                ask(plan, wrong)  # type: ignore[operator]


def test_an_edit_and_the_plan_of_another_video_are_not_mixed(engine: AdaFlow, plan: Plan, first: EditResult) -> None:
    turned = replace(plan, video=from_frames(plan.video.frames[::-1], plan.video.fps))
    short = replace(plan, video=plan.video.part(0, 5))
    for other in (turned, short):
        with pytest.raises(AdaFlowError, match="give the plan that was edited"):
            engine.score(other, first)
        with pytest.raises(AdaFlowError, match="give the plan that was edited"):
            engine.retake(other, first, (0, 4), OTHER, QUICK)


def test_ranges_and_a_retake_on_the_command_line(
    tiny_folder: Callable[[str], Path],
    drawn_clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ADAFLOW_CACHE", str(tmp_path / "cache"))
    project, exact = tmp_path / "film.json", ["--device", "cpu", "--dtype", "float32"]
    command = [
        "edit", str(drawn_clip), "--prompt", f"2:6 {PROMPT}", "--prompt", f"6:10 {OTHER}", "--crossfade", "2",
        "--model", str(tiny_folder("sd1")), "--size", "64x64", "--keyframes", "3", "--steps", "2",
        "--project", str(project), "--out", str(tmp_path / "edit.mp4"), *exact,
    ]  # fmt: skip
    assert main(command) == 0 and "for 2 ranges" in capsys.readouterr().err
    saved = json.loads(project.read_text())
    assert [row["frames"] for row in saved["prompts"]] == [[2, 6], [6, 10]] and saved["crossfade"] == 2
    retake = ["retake", str(project), "--frames", "7:9", "--prompt", PROMPT, "--out", str(tmp_path / "take.mp4")]
    assert main([*retake, *exact]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(tmp_path / "take.mp4") and printed.err.count("edit:") == 1  # the film was kept
    (take,) = json.loads(project.read_text())["takes"]
    assert (take["frames"], take["prompt"], take["settings"]["steps"]) == ([7, 9], PROMPT, 2)
    assert main(["edit", "--project", str(project), "--out", str(tmp_path / "again.mp4"), *exact]) == 0
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "take.mp4").read_bytes()
