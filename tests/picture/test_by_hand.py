"""Frames edited by hand: what was changed in them follows the source, and nothing else changes without a prompt."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adaflow_core.cli.arguments import parser
from adaflow_core.cli.main import main
from adaflow_core.config import EditConfig, PlanConfig, resolve_edit, resolve_plan
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.timeline import PromptRange, Timeline
from adaflow_core.model.backbone import Backbone
from adaflow_core.motion.flow import flow_between
from adaflow_core.picture.by_hand import ByHand, changed_region, read_pictures
from adaflow_core.picture.changes import Given, carry_changes, hardly_changed
from adaflow_core.picture.region import Region
from adaflow_core.picture.region.carry import Source
from adaflow_core.progress import Monitor, Progress, in_threads
from adaflow_core.report.export import edit_command
from adaflow_core.storage.cache import Cache
from adaflow_core.storage.digests import quick_digest
from adaflow_core.types import Plan
from adaflow_core.video.decode import decode_video
from adaflow_core.video.write import write_video
from helpers.plans import small_plan

QUICK = EditConfig(steps=2, smoothing=0.0)
SOURCE, PROMPT = "a red ball", "a blue ball, watercolour"


def textured(T: int, speed: int = 2, size: int = 96) -> np.ndarray:
    """[T, size, size, 3] a textured picture that moves to the right."""
    rng = np.random.default_rng(5)
    wide = rng.integers(0, 255, (size // 6, size // 3, 3)).astype(np.uint8)
    wide = np.asarray(Image.fromarray(wide).resize((2 * size, size), Image.Resampling.BICUBIC))
    return np.stack([wide[:, 40 - speed * t : 40 - speed * t + size] for t in range(T)])


def carried(frames: np.ndarray, cuts: list[int], pictures: dict[int, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    flow = np.stack([flow_between(*frames[t : t + 2]) for t in range(len(frames) - 1)]).astype(np.float16)
    told: list[Progress] = []
    with Monitor(told.append).stage("carry", 2 * len(frames)) as stage:
        found = carry_changes(Source(frames, flow), np.array(cuts), pictures, stage)
    assert max(progress.done for progress in told) == told[-1].done == told[-1].total
    return found


def striped(frame: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
    """A frame with vertical stripes in a box."""
    changed = frame.copy()
    changed[box][:, ::6] = (255, 255, 255)
    changed[box][:, 3::6] = (0, 0, 0)
    return changed


def test_a_change_moves_with_what_it_is_on() -> None:
    frames = textured(9)
    true = np.stack([striped(frame, np.s_[30:60, 36 + 2 * t : 66 + 2 * t]) for t, frame in enumerate(frames)])
    made, known = carried(frames, [], {4: true[4]})
    assert (made[4] == true[4]).all() and (known[4] == 255).all()
    for t in (0, 2, 6, 8):
        box = np.s_[t, 34:56, 40 + 2 * t : 62 + 2 * t]
        errors = [np.abs(film[box].astype(int) - true[box]).mean() for film in (made, frames)]
        assert errors[0] < errors[1] / 5 and known[box].mean() > 200
        far = np.s_[t, 80:, :]
        assert (made[far] == frames[far]).all()


def test_between_two_given_frames_one_goes_over_into_the_other() -> None:
    frames = textured(9, speed=0)
    bright, dark = (np.clip(frames[0].astype(int) + add, 0, 255).astype(np.uint8) for add in (40, -40))
    made, _ = carried(frames, [], {0: bright, 8: dark})
    levels = made.mean(axis=(1, 2, 3))
    assert (np.diff(levels) < 0).all() and (made[0] == bright).all() and (made[8] == dark).all()


@pytest.mark.parametrize("given", [(4,), (1, 7), (3, 8, 10)])
def test_ways_are_gone_in_threads_with_the_same_bytes(given: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.concatenate([textured(9), 255 - textured(5)])
    pictures = {t: striped(frames[t], np.s_[30:60, 30:60]) for t in given}
    made = []
    for threads in (1, 4):
        monkeypatch.setattr("adaflow_core.progress.THREADS", threads)
        monkeypatch.setattr("adaflow_core.picture.region.ways.in_threads", partial(in_threads, threads=threads))
        made.append(carried(frames, [9], pictures))
    for one, other in zip(*made, strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_crosses_a_cut() -> None:
    frames = np.concatenate([textured(4), 255 - textured(4)])
    made, known = carried(frames, [4], {1: striped(frames[1], np.s_[30:60, 30:60])})
    assert (made[4:] == frames[4:]).all() and not known[4:].any() and (made[3] != frames[3]).any()


@pytest.fixture(scope="module")
def engine(tiny_backbone: Callable[[str], Backbone], tmp_path_factory: pytest.TempPathFactory) -> AdaFlow:
    return AdaFlow(tiny_backbone("sd1"), Cache(tmp_path_factory.mktemp("by-hand")))


@pytest.fixture(scope="module")
def plan(engine: AdaFlow, drawn_frames: np.ndarray) -> Plan:
    return engine.plan(drawn_frames, PlanConfig(keyframes=4, source_prompt=SOURCE))


@pytest.fixture(scope="module")
def given(plan: Plan) -> tuple[int, np.ndarray]:
    """A keyframe and what was made of it by hand."""
    keyframe = int(plan.layout.keyframes[1])
    return keyframe, striped(np.asarray(plan.video.frames[keyframe]), np.s_[20:44, 20:44])


@pytest.mark.parametrize("prompt", ["", SOURCE])
def test_without_a_prompt_only_the_change_goes_through_the_film(
    engine: AdaFlow, plan: Plan, given: tuple[int, np.ndarray], prompt: str
) -> None:
    keyframe, picture = given
    edited = engine.edit(plan, prompt, QUICK, by_hand=ByHand({keyframe: picture}))
    source = plan.video.frames
    changed = (edited.frames != source).any(axis=-1)
    assert changed[keyframe, 24:40, 24:40].mean() > 0.3 and not changed[:, :4].any()
    near = np.abs(edited.frames[keyframe].astype(int) - picture)[22:42, 22:42].mean()
    assert near < 0.5 * np.abs(source[keyframe].astype(int) - picture)[22:42, 22:42].mean()
    beside = keyframe + 1 if keyframe < 11 else keyframe - 1
    assert changed[beside].any()
    assert edited.report["by_hand"] == ByHand({keyframe: picture}).as_json()


def test_with_a_prompt_the_picture_is_held_to_and_what_is_not_known_is_edited(
    engine: AdaFlow, plan: Plan, given: tuple[int, np.ndarray]
) -> None:
    keyframe, picture = given
    by_hand = ByHand({keyframe: picture})
    config = EditConfig(steps=2, smoothing=0.0, focus=0.0)
    with engine._job(plan, PROMPT, config, None, None, None, by_hand) as job:
        assert job.by_hand is not None
        place = job.by_hand.place(None, engine.backbone.factor, 0.0)
    assert not place[keyframe].any() and place.max() > 0.5
    edited = engine.edit(plan, PROMPT, config, by_hand=by_hand)
    alone = engine.edit(plan, PROMPT, config)
    errors = [np.abs(film.frames[keyframe].astype(int) - picture).mean() for film in (edited, alone)]
    assert errors[0] < errors[1] / 2
    assert alone.report["by_hand"] is None


@pytest.mark.parametrize("prompt", [f"{SOURCE}, watercolour", PROMPT])
def test_where_the_edit_has_no_place_of_its_own_the_source_keeps_its_structure(
    engine: AdaFlow, plan: Plan, given: tuple[int, np.ndarray], prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not known of the change by hand is then no place where a thing takes another's."""
    monkeypatch.setattr("adaflow_core.engine.edit_place.find_place", lambda *_: None)
    with engine._job(plan, prompt, EditConfig(steps=2, focus=1.0), None, None, None, ByHand(dict([given]))) as job:
        assert job.config.structure == 1.0
    with engine._job(plan, prompt, EditConfig(steps=2, focus=1.0), None, None) as job:
        assert job.config.structure == 0.0


def test_every_door_takes_it(engine: AdaFlow, plan: Plan, given: tuple[int, np.ndarray]) -> None:
    by_hand, keyframes = ByHand(dict([given])), plan.layout.keyframes
    edited = engine.edit(plan, PROMPT, QUICK, by_hand=by_hand)
    film = engine.edit_timeline(plan, Timeline((PromptRange(0, 12, PROMPT),)), QUICK, by_hand=by_hand)
    assert (film.frames == edited.frames).all() and film.report["by_hand"] == by_hand.as_json()
    draft, calm = engine.draft(plan, PROMPT, QUICK, by_hand=by_hand), replace(QUICK, agreements=0)
    assert (draft.frames == engine.edit(plan, PROMPT, calm, by_hand=by_hand).frames[keyframes]).all()
    take = engine.retake(plan, film, (4, 7), "a pink ball", QUICK, by_hand=by_hand)
    assert (take.frames[:4] == film.frames[:4]).all() and (take.frames[7:] == film.frames[7:]).all()
    alone = engine.edit(plan, "", QUICK, by_hand=by_hand)
    spelt = engine.edit(plan, f" {SOURCE.upper()}.", QUICK, by_hand=by_hand)
    assert spelt.bounds is not None and alone.bounds is not None and (spelt.bounds == alone.bounds).all()
    assert alone.bounds is not None and (alone.frames[alone.bounds == 0] == plan.video.frames[alone.bounds == 0]).all()
    takes = [engine.retake(plan, alone, (4, 7), shown, QUICK, by_hand=by_hand) for shown in (SOURCE, "a pink ball")]
    assert takes[0].bounds is not None and takes[1].bounds is None, "of which one is held to what was changed"
    mask = np.zeros((12, 64, 64), bool)
    mask[:, 20:44, 20:44] = True
    region = Region(masks=mask, feather=2)
    outside = engine.region(plan, region).weights == 0
    inside = engine.edit(plan, PROMPT, QUICK, region=region, by_hand=by_hand)
    assert (inside.frames[outside] == plan.video.frames[outside]).all()


def test_another_picture_is_another_edit_and_the_same_one_is_carried_once(
    engine: AdaFlow, plan: Plan, given: tuple[int, np.ndarray]
) -> None:
    keyframe, picture = given
    stages: list[str] = []
    keys = set()
    for pictures in ({keyframe: picture}, {keyframe: 255 - picture}, {keyframe + 1: picture}, {keyframe: picture}):
        stages.clear()
        by_hand = ByHand(pictures)
        report = lambda progress: stages.append(progress.stage)  # noqa: E731
        with engine._job(plan, PROMPT, QUICK, report, None, None, by_hand) as job:
            keys.add(job.key)
    assert len(keys) == 3 and "carry the keyframes by hand" not in stages


@pytest.mark.parametrize(
    ("pictures", "says"),
    [
        ({12: np.zeros((64, 64, 3), np.uint8)}, "the video has the frames 0 to 11"),
        ({0: np.zeros((64, 32, 3), np.uint8)}, "give one of the same shape"),
        ({0: np.zeros((64, 64), np.uint8)}, "3 colours"),
        ({0: Path("nowhere.png")}, "nowhere.png"),
    ],
)
def test_what_is_no_frame_of_the_video_is_refused(
    engine: AdaFlow, plan: Plan, pictures: dict[int, np.ndarray | Path], says: str
) -> None:
    with pytest.raises(AdaFlowError, match=says):
        engine.edit(plan, PROMPT, QUICK, by_hand=ByHand(pictures))


def test_a_keyframe_that_is_as_it_was_needs_a_prompt(engine: AdaFlow, plan: Plan) -> None:
    same = ByHand({3: np.asarray(plan.video.frames[3])})
    with pytest.raises(AdaFlowError, match="as they were"):
        engine.edit(plan, "", QUICK, by_hand=same)
    with pytest.raises(AdaFlowError, match="no keyframe was given"):
        ByHand({})
    with pytest.raises(AdaFlowError, match="the prompt is empty"):
        engine.edit(plan, "", QUICK)
    unsaid = replace(plan, config=replace(plan.config, source_prompt=""))
    with pytest.raises(AdaFlowError, match="give the plan a source prompt"):  # before the edit runs
        engine.edit(unsaid, "", QUICK, by_hand=same)


@pytest.mark.thorough
def test_the_command_line_takes_it_and_its_project_repeats_it(
    tiny_folder: Callable[[str], Path], drawn_clip: Path, drawn_frames: np.ndarray, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("ADAFLOW_CACHE", str(tmp_path / "cache"))
    clip = Path(shutil.copy(drawn_clip, tmp_path / "clip.mp4"))
    picture, project = tmp_path / "frame.png", tmp_path / "film.json"
    Image.fromarray(striped(drawn_frames[5], np.s_[20:44, 20:44])).save(picture)
    line = ["--model", str(tiny_folder("sd1")), "--size", "64x64", "--keyframes", "3", "--steps", "2"]
    line += ["--source-prompt", SOURCE, "--keyframe-image", f"5={picture}", "--out", str(tmp_path / "out.mp4")]
    report = tmp_path / "report.json"
    assert main(["edit", str(clip), *line, "--project", str(project), "--report", str(report)]) == 0
    first = json.loads(report.read_text())
    assert first["prompt"] == SOURCE and [row["frame"] for row in first["by_hand"]] == [5]
    assert json.loads(project.read_text())["by_hand"][0]["file"] == "frame.png"
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in (clip, picture, project):
        shutil.move(path, moved)
    again = ["--out", str(tmp_path / "again.mp4"), "--report", str(report), "--model", str(tiny_folder("sd1"))]
    assert main(["edit", "--project", str(moved / "film.json"), *again]) == 0
    assert json.loads(report.read_text())["frames_digest"] == first["frames_digest"]
    Image.fromarray(drawn_frames[5]).save(moved / "frame.png")
    assert main(["edit", "--project", str(moved / "film.json"), *again]) == 2


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--keyframe-image", "frame.png"], "as in 12=frame.png"),
        (["--keyframe-image", "3=nowhere.png", "--source-prompt", "a ball"], "nowhere.png"),
        (["--keyframe-image", "3={picture}"], "needs --source-prompt"),
        (["--keyframe-image", "3={picture}", "--keyframe-image", "3={picture}"], "one for each frame"),
    ],
)
def test_flags_that_say_no_keyframe_are_refused(
    drawn_clip: Path, tmp_path: Path, flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "frame.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(picture)
    given = [flag.format(picture=picture) for flag in flags]
    assert main(["edit", str(drawn_clip), "--out", str(tmp_path / "out.mp4"), *given]) == 2
    assert says in capsys.readouterr().err


def test_the_command_that_is_shown_names_them(engine: AdaFlow, tmp_path: Path) -> None:
    usual = PlanConfig()
    plan, edit = resolve_plan(usual, engine.profile, "cpu"), resolve_edit(EditConfig(), engine.profile, usual)
    by_hand = ByHand({7: tmp_path / "a frame.png", 2: np.zeros((64, 64, 3), np.uint8)})
    text = edit_command(
        "a.mp4", "b", plan, edit, engine.profile, model="embedded", device="cpu", over=by_hand.flags
    )  # fmt: skip
    read = parser().parse_args(shlex.split(text)[3:])
    assert read.keyframe_image == [(2, Path("keyframe-2.png")), (7, tmp_path / "a frame.png")]


def test_a_picture_may_come_as_people_have_it(plan: Plan, given: tuple[int, np.ndarray], tmp_path: Path) -> None:
    keyframe, picture = given
    Image.fromarray(picture).save(tmp_path / "hand.png")
    for each in (str(tmp_path / "hand.png"), tmp_path / "hand.png", Image.fromarray(picture), picture):
        found = read_pictures(ByHand({np.int64(keyframe): each}), plan.video)
        assert list(found) == [keyframe] and (found[keyframe] == picture).all()


def test_what_a_jpeg_file_misses_is_not_changed_by_hand(tmp_path: Path) -> None:
    """At the edges of a frame it misses by more than what counts as changed; only what was painted does."""
    frames = textured(1, size=128)
    plan, (frame,) = small_plan(), frames
    plan = replace(plan, video=replace(plan.video, frames=frames))
    file, box = tmp_path / "hand.jpg", (slice(40, 56), slice(40, 56))
    Image.fromarray(frame).save(file, quality=75)
    assert Given(0, frame, np.asarray(Image.open(file))).changed.mean() > 0.2
    with pytest.raises(AdaFlowError, match="as they were"):
        changed_region(plan, read_pictures(ByHand({0: file}), plan.video))
    painted = frame.copy()
    painted[box] = (255, 0, 255)
    Image.fromarray(painted).save(file, quality=75)
    region = changed_region(plan, read_pictures(ByHand({0: file}), plan.video))
    assert region is not None
    mask = region.painted[0]
    assert mask[box].all() and mask.mean() < 0.05, "16 of 128 pixels each way are 0.016"


@pytest.mark.parametrize("name", ["hand.png", "hand.jpg"])
def test_what_making_a_picture_smaller_changes_is_not_changed_by_hand(name: str, tmp_path: Path) -> None:
    """A frame is grabbed from the video's file at its own size, painted in and given back."""
    clip = write_video(tmp_path / "clip.mp4", textured(6, size=384), Fraction(12))
    video = decode_video(clip, size=(128, 128), frames=slice(2, 6))
    video = replace(video, file_digest=quick_digest(clip))
    plan, own = replace(small_plan(), video=video), decode_video(clip, size=(384, 384)).frames[3]
    painted = own.copy()
    painted[120:168, 120:168] = (255, 0, 255)
    for picture in (own, painted):
        Image.fromarray(picture).save(tmp_path / name, quality=90)
        pictures = read_pictures(ByHand({1: tmp_path / name}), video)
        if picture is own:
            assert (pictures[1] == video.frames[1]).all()
    region = changed_region(plan, pictures)
    assert region is not None
    box, mask = np.s_[40:56, 40:56], region.painted[1]
    assert mask[box].all() and mask.mean() < 0.05, "16 of 128 pixels each way are 0.016"
    assert (pictures[1][64:] == video.frames[1][64:]).all()
    if name.endswith("png"):
        assert (pictures[1][44:52, 44:52] == (255, 0, 255)).all(), "nothing of the source shines through"
        fade = np.clip(40 - np.abs(np.arange(384) - 192) / 2, 0, None).astype(np.int16)[:, None]
        soft = np.clip(own + fade[..., None], 0, 255).astype(np.uint8)
        Image.fromarray(soft).save(tmp_path / name)
        change = read_pictures(ByHand({1: tmp_path / name}), video)[1].astype(int) - video.frames[1]
        edge = change.mean(axis=(1, 2))
        assert edge.max() > 20 and np.abs(np.diff(edge)).max() < 4, "a soft stroke has no rim"

    clip.write_bytes(clip.read_bytes() + b"0")
    monitor = Monitor()
    assert (read_pictures(ByHand({1: painted}), video, monitor)[1][64:] != video.frames[1][64:]).any()
    assert (
        "is not what it was when the edit was planned, so what scaling does to the picture of frame 1 may"
        in monitor.notes[0]
    )


@pytest.mark.parametrize(
    ("pictures", "says"),
    [
        ({3: np.zeros((64, 64, 3))}, "frame 3 is float64 .* give uint8"),
        ({3: np.zeros((64, 64, 3), np.float32)}, "colours of 0 to 255"),
        ({3: np.zeros((64, 64, 3), np.uint16)}, "frame 3 is uint16"),
        ({3: np.full((64, 64, 3), 300)}, "frame 3 is int64"),
        ({3: Image.new("I;16", (64, 64))}, "8 bits"),
        ({3: None}, "no picture"),
        ({3: ""}, "empty path"),
        ({3.5: np.zeros((64, 64, 3), np.uint8)}, "for frame 3.5; give its number"),
        ({"3": np.zeros((64, 64, 3), np.uint8)}, "for frame '3'; give its number"),
        ([np.zeros((64, 64, 3), np.uint8)], "without its frame; give a dict"),
        (np.zeros((64, 64, 3), np.uint8), "without its frame; give a dict"),
    ],
)
def test_what_would_come_out_otherwise_is_refused_at_once(pictures: Any, says: str) -> None:
    with pytest.raises(AdaFlowError, match=says):
        ByHand(pictures)


@pytest.mark.parametrize("data", [[{}], [{"frame": 0}], 5, [7], [{"frame": "first", "file": None}]])
def test_keyframes_of_a_project_that_lack_a_part_are_told(data: Any, tmp_path: Path) -> None:
    with pytest.raises(AdaFlowError, match="what is by hand of the project lacks a part, or has a wrong one"):
        ByHand.from_json(data, tmp_path)


def test_an_edit_that_changed_next_to_nothing_is_told() -> None:
    source = textured(3)
    assert hardly_changed(source, source)
    thing = source.copy()
    thing[:, 40:46, 40:46] ^= 255
    assert not hardly_changed(thing, source)
    noisy = np.clip(source.astype(int) + 3, 0, 255).astype(np.uint8)
    assert hardly_changed(noisy, source), "what the model's own reconstruction changes is not seen"
    inside = np.zeros(source.shape[:3], np.uint8)
    inside[:, 30:90, 30:90] = 255
    one = source.copy()
    one[:, 40:43, 40] ^= 255
    assert hardly_changed(one, source, inside) and not hardly_changed(thing, source, inside[:, 36:60, 36:60])
