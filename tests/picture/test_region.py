"""An edit keeps to its region: what is outside keeps every byte, whichever door it came through."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from adaflow_core.cli.arguments import parser
from adaflow_core.cli.main import main
from adaflow_core.config import EditConfig, PlanConfig, resolve_edit, resolve_plan
from adaflow_core.engine import AdaFlow
from adaflow_core.engine.edit_job import EditJob
from adaflow_core.engine.edit_report import EditRun
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.timeline import PromptRange, Timeline
from adaflow_core.model.backbone import Backbone
from adaflow_core.picture.region import Region, RegionMask, files
from adaflow_core.picture.region.mask import check_aspect, feathered, fitted, read_masks, read_painted
from adaflow_core.picture.region.track import region_mask
from adaflow_core.progress import Monitor
from adaflow_core.report.export import edit_command
from adaflow_core.report.overlays import region_view
from adaflow_core.storage.cache import Cache
from adaflow_core.types import EditResult, Plan
from adaflow_core.video.decode import from_frames
from adaflow_core.video.types import working_size
from helpers.videos.odd_files import ffmpeg

QUICK = EditConfig(steps=2, focus=1.0)
PROMPT = "a blue ball, watercolour"


def box(top: int = 16, left: int = 16, side: int = 24) -> np.ndarray:
    mask = np.zeros((64, 64), bool)
    mask[top : top + side, left : left + side] = True
    return mask


BOX = np.stack([box(left=10 + t) for t in range(12)])
REGION = Region(masks=BOX, feather=4)


@pytest.fixture(scope="module")
def engine(tiny_backbone: Callable[[str], Backbone], tmp_path_factory: pytest.TempPathFactory) -> AdaFlow:
    return AdaFlow(tiny_backbone("sd1"), Cache(tmp_path_factory.mktemp("regions")))


@pytest.fixture(scope="module")
def plan(engine: AdaFlow, drawn_frames: np.ndarray) -> Plan:
    return engine.plan(drawn_frames, PlanConfig(keyframes=4, source_prompt="a red ball"))


def whole(engine: AdaFlow, plan: Plan, config: EditConfig, region: Region | None) -> EditResult:
    """The edit of all frames; kept in the cache, unlike that of `edit`."""
    return engine.edit_timeline(plan, Timeline((PromptRange(0, 12, PROMPT),)), config, region=region)


@pytest.mark.parametrize("focus", [0.0, 1.0])
def test_outside_the_feather_every_byte_is_the_sources(engine: AdaFlow, plan: Plan, focus: float) -> None:
    mask = engine.region(plan, REGION)
    assert (mask.weights[BOX] == 255).all() and 0 < (mask.weights == 0).mean() < 1
    config = EditConfig(steps=2, focus=focus)
    result = whole(engine, plan, config, REGION)
    outside, source = mask.weights == 0, plan.video.frames
    assert (result.frames[outside] == source[outside]).all() and (result.bounds == mask.weights).all()
    assert (result.frames[BOX] != source[BOX]).any(axis=-1).mean() > 0.5
    assert result.report["region"] == REGION.as_json() and whole(engine, plan, config, None).report["region"] is None
    if not focus:  # latents are free, so that nothing tells the region's edit from the whole frame's
        assert (result.frames[BOX] == whole(engine, plan, config, None).frames[BOX]).all()


def test_an_edit_is_the_edit_of_a_timeline_with_one_range(engine: AdaFlow, plan: Plan) -> None:
    edited = engine.edit(plan, PROMPT, QUICK, region=REGION)
    assert (edited.frames == whole(engine, plan, QUICK, REGION).frames).all()
    assert (edited.bounds == engine.region(plan, REGION).weights).all(), "as delivery keeps to it"


def test_drafts_timelines_and_takes_keep_to_it(engine: AdaFlow, plan: Plan) -> None:
    outside, source = engine.region(plan, REGION).weights == 0, plan.video.frames
    draft = engine.draft(plan, PROMPT, QUICK, region=REGION)
    assert (draft.frames[outside[draft.keyframes]] == source[draft.keyframes][outside[draft.keyframes]]).all()
    film = whole(engine, plan, QUICK, REGION)
    take = engine.retake(plan, film, (4, 7), "a pink ball", QUICK, region=REGION)
    assert (take.frames[outside] == source[outside]).all() and (take.frames[5] != film.frames[5]).any()


def test_a_report_names_the_files_that_were_given_now(engine: AdaFlow, plan: Plan, tmp_path: Path) -> None:
    """Frames of the same mask under another name are in the cache, with a report that names the file of then."""
    named = []
    for name in ("first.png", "second.png"):
        Image.fromarray(BOX[0]).save(tmp_path / name)
        report = whole(engine, plan, QUICK, Region({0: tmp_path / name}, feather=4)).report
        named.append(Path(report["region"]["painted"][0]["file"]).name)
    assert named == ["first.png", "second.png"]


def test_another_region_is_another_edit(engine: AdaFlow, plan: Plan) -> None:
    jobs = []
    for region in (None, REGION, Region(masks=BOX, feather=5), Region(masks=~BOX, feather=4)):
        with engine._job(plan, PROMPT, QUICK, None, None, region) as job:
            jobs.append(job.key)
    assert len(set(jobs)) == 4


def test_a_painted_frame_is_carried_and_kept_in_the_cache(engine: AdaFlow, plan: Plan) -> None:
    region = Region({3: BOX[3]}, feather=0)
    stages: list[str] = []
    mask = engine.region(plan, region, progress=lambda progress: stages.append(progress.stage))
    assert "carry the region" in stages and ((mask.weights[3] == 255) == BOX[3]).all()
    assert (mask.weights > 0).any(axis=(1, 2)).all()
    stages.clear()
    same = Region({3: BOX[3].astype(np.uint8) * 9}, feather=0)
    again = engine.region(plan, same, progress=lambda progress: stages.append(progress.stage))
    assert not stages and again.digest == mask.digest
    views = region_view(plan, mask.weights)
    assert len(views) == 8 and views[0][0].shape[2] == 3 and views[0][1].endswith("frame 0")


def test_a_feather_falls_off_evenly() -> None:
    weights = feathered(box(), 4)
    assert weights[30, 16:44:1].tolist() == [255] * 24 + [204, 153, 102, 51]
    assert (feathered(box(), 0) == 255 * box()).all() and not feathered(np.zeros((8, 8), bool), 4).any()


def test_a_mask_of_another_size_is_resized_and_one_of_another_shape_refused() -> None:
    large = box().repeat(3, axis=0).repeat(3, axis=1)
    assert (fitted(large, (64, 64)) == box()).all()
    with pytest.raises(AdaFlowError, match="64x32 and the video 64x64; give one of the same shape"):
        fitted(box()[:32], (64, 64))


@pytest.mark.parametrize(
    ("region", "says"),
    [
        (Region({0: np.zeros((64, 64))}), "the mask of frame 0 is empty"),
        (Region({0: np.ones((64, 64))}), "covers all of it"),
        (Region({12: box()}), "the video has the frames 0 to 11"),
        (Region(masks=np.zeros((12, 64, 64))), "empty in all frames"),
        (Region(masks=np.ones((12, 64, 64))), "cover all of the video"),
        (Region(masks=BOX[:4]), "4 masks for 12 frames"),
        (Region(words="green ball"), "'green ball' is not in the source prompt 'a red ball'"),
        (Region(words="ed ball"), "is not in the source prompt"),
        (Region({0: Path("nowhere.png")}), "there is no nowhere.png"),
    ],
)
def test_what_is_no_region_is_refused(engine: AdaFlow, plan: Plan, region: Region, says: str) -> None:
    with pytest.raises(AdaFlowError, match=says):
        engine.region(plan, region)


def test_words_need_a_source_prompt(engine: AdaFlow, drawn_frames: np.ndarray) -> None:
    with pytest.raises(AdaFlowError, match="say what is in the video"):
        engine.region(engine.plan(drawn_frames, PlanConfig(keyframes=4)), Region(words="ball"))


@pytest.mark.parametrize("asked", [{}, {"painted": {0: box()}, "words": "ball"}, {"words": " "}])
def test_a_region_is_said_in_one_way(asked: dict[str, Any]) -> None:
    with pytest.raises(AdaFlowError, match="give one of these"):
        Region(**asked)
    with pytest.raises(AdaFlowError, match="feather is 300"):
        Region(words="ball", feather=300)


def with_a_bad_frame(path: Path, count: int, bad: int) -> Path:
    """Masks of which each is a column further on; one packet is destroyed."""
    masks = np.zeros((count, 64, 96, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=24)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "rgb24"
        for t, mask in enumerate(masks):
            mask[:, 8 * t : 8 * t + 8] = 255
            frame = av.VideoFrame.from_ndarray(mask, format="rgb24")
            frame.pts, frame.time_base = t, Fraction(1, 24)
            for packet in stream.encode(frame):
                if t == bad:
                    whole, packet = packet, av.Packet(bytes(packet)[:20] + bytes(packet.size - 20))
                    packet.pts, packet.dts, packet.time_base = whole.pts, whole.dts, whole.time_base
                    packet.duration, packet.stream, packet.is_keyframe = whole.duration, stream, True
                container.mux(packet)
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("start", "frames", "bad"), [(0, 12, 3), (0, 8, 3), (4, 8, 4), (0, 12, 11), (4, 8, 11)])
def test_a_file_of_masks_with_a_bad_frame_is_refused(start: int, frames: int, bad: int, tmp_path: Path) -> None:
    video = replace(from_frames(np.zeros((frames, 64, 96, 3), np.uint8)), start=start)
    path = with_a_bad_frame(tmp_path / "masks.mov", 12, bad)
    with pytest.raises(AdaFlowError, match=rf"masks.mov is damaged: its frame {bad} cannot be read"):
        read_masks(path, video, Monitor())


def test_a_file_of_masks_serves_the_frames_of_a_shorter_film(tmp_path: Path) -> None:
    video = replace(from_frames(np.zeros((6, 64, 96, 3), np.uint8)), start=4)
    inside = read_masks(with_a_bad_frame(tmp_path / "masks.mov", 12, 1), video, Monitor())
    assert [int(np.flatnonzero(mask.any(axis=0))[0]) for mask in inside] == [8 * t for t in range(4, 10)]


def test_a_file_of_masks_goes_by_the_numbers_of_the_films_frames(tmp_path: Path) -> None:
    """Where frames of the film could not be read, the masks of these are passed over."""
    video = replace(from_frames(np.zeros((4, 64, 96, 3), np.uint8)), start=2, numbers=(2, 3, 6, 7))
    inside = read_masks(with_a_bad_frame(tmp_path / "masks.mov", 12, 11), video, Monitor())
    assert [int(np.flatnonzero(mask.any(axis=0))[0]) for mask in inside] == [16, 24, 48, 56]
    with pytest.raises(AdaFlowError, match="has 6 frames and the video 4, as some of its file cannot be read"):
        read_masks(with_a_bad_frame(tmp_path / "short.mov", 6, 5), video, Monitor())


def layer(shape: tuple[int, int], level: int, path: Path) -> Path:
    """A box [20:40, 30:60] of one grey level on a picture of `shape` that is transparent beside it."""
    picture = np.full((*shape, 4), 255, np.uint8)
    picture[..., 3] = 0
    picture[20:40, 30:60] = level, level, level, 255
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(picture).save(path)
    return path


def test_what_is_transparent_in_a_mask_is_outside(tmp_path: Path) -> None:
    video, box, monitor = from_frames(np.zeros((1, 64, 96, 3), np.uint8)), np.zeros((64, 96), bool), Monitor()
    box[20:40, 30:60] = True
    path, animation = layer((64, 96), 255, tmp_path / "masks/0.png"), tmp_path / "masks.webp"
    Image.open(path).save(animation, lossless=True)
    movie = ffmpeg(tmp_path / "masks.mov", "-i", str(path), "-c:v", "qtrle")
    for given in (path, Image.open(path)):
        assert np.array_equal(read_painted(Region({0: given}), video, monitor)[0], box)
    for masks in (tmp_path / "masks", animation, movie):
        assert np.array_equal(read_masks(masks, video, monitor), [box]), masks
    with pytest.raises(AdaFlowError, match="is empty; paint what the edit may change in white"):
        read_painted(Region({0: layer((64, 96), 20, tmp_path / "dark.png")}), video, monitor)


@pytest.mark.parametrize("source", [(1080, 576), (1920, 1024), (576, 1080), (1920, 1080), (640, 480), (854, 480)])
@pytest.mark.parametrize("target", [256, 320, 512])
def test_a_mask_may_have_the_size_of_the_file(source: tuple[int, int], target: int) -> None:
    check_aspect(source, working_size(*source, target), "a mask")


def save(mask: np.ndarray, path: Path) -> Path:
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    return path


@pytest.mark.thorough
def test_the_command_line_keeps_to_it_and_so_does_its_project(
    tiny_folder: Callable[[str], Path], drawn_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAFLOW_CACHE", str(tmp_path / "cache"))
    clip = Path(shutil.copy(drawn_clip, tmp_path / "clip.mp4"))
    mask, project = save(box(side=30).repeat(2, 0).repeat(2, 1), tmp_path / "mask.png"), tmp_path / "film.json"
    line = ["--model", str(tiny_folder("sd1")), "--size", "64x64", "--keyframes", "3", "--steps", "2"]
    line += ["--source-prompt", "a red ball", "--prompt", PROMPT, "--out", str(tmp_path / "out.mp4")]
    report = tmp_path / "report.json"
    named = ["--mask", str(mask), "--mask-frame", "2", "--feather", "3", "--project", str(project)]
    assert main(["edit", str(clip), *line, *named, "--report", str(report)]) == 0
    region = json.loads(report.read_text())["region"]
    assert region["feather"] == 3 and [row["frame"] for row in region["painted"]] == [2]
    digest = json.loads(report.read_text())["frames_digest"]
    # The project names its mask as it lies beside, and gives the same film elsewhere.
    assert json.loads(project.read_text())["region"]["painted"][0]["file"] == "mask.png"
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in (clip, mask, project):
        shutil.move(path, moved)
    again = ["--out", str(tmp_path / "again.mp4"), "--report", str(report), "--model", str(tiny_folder("sd1"))]
    assert main(["edit", "--project", str(moved / "film.json"), *again]) == 0
    assert json.loads(report.read_text())["frames_digest"] == digest
    save(box(), moved / "mask.png")
    assert main(["edit", "--project", str(moved / "film.json"), *again]) == 2
    # A mask that is in no file is in the project, and stays there when the project is written again.
    (moved / "mask.png").unlink()
    content = json.loads((moved / "film.json").read_text())
    content["region"] = Region({2: box(side=30)}, feather=3).as_json(moved)
    (moved / "film.json").write_text(json.dumps(content))
    film, unscored = (tmp_path / "again.mp4").read_bytes(), ["--out", str(tmp_path / "again.mp4"), *again[-2:]]
    assert main(["edit", "--project", str(moved / "film.json"), *unscored]) == 0
    assert (tmp_path / "again.mp4").read_bytes() == film
    assert json.loads((moved / "film.json").read_text())["region"] == content["region"]


def test_what_is_in_no_file_comes_back_from_its_project(tmp_path: Path) -> None:
    region = Region({0: box(), 5: box(40, 3)}, feather=2)
    read = Region.from_json(json.loads(json.dumps(region.as_json(tmp_path))), tmp_path)
    assert read.as_json() == region.as_json() and read.painted[5].dtype == bool
    assert np.array_equal(read.painted[5], box(40, 3))  # type: ignore[arg-type]
    assert "png" not in region.as_json()["painted"][0], "a report names it only"
    row = region.as_json(tmp_path)["painted"][0]
    other = region.as_json(tmp_path)["painted"][1]["png"]
    for wrong in (row | {"png": "no base64!"}, row | {"png": row["png"][:40]}, row | {"png": other}):
        with pytest.raises(AdaFlowError, match="the mask in the project"):
            files.found(wrong, tmp_path, "the mask")
    with pytest.raises(AdaFlowError, match="64x64 pixels and the video is edited at 32x32"):
        files.decoded(row, "the mask", (32, 32))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--mask-frame", "1"], "belong to a region"),
        (["--feather", "1"], "belong to a region"),
        (["--crop", "small"], "belong to a region"),
        (["--mask", "{mask}", "--region", "ball"], "give one of them"),
        (["--mask", "{mask}", "--mask", "{mask}"], "needs the number of its frame"),
        (["--mask", "nowhere.png"], "nowhere.png"),
        (["--region", ""], "argument --region: it is empty"),
        (["--region", " "], "argument --region: it is empty"),
        (["--mask", ""], "argument --mask: it is empty"),
    ],
)
def test_flags_that_say_no_region_are_refused(
    drawn_clip: Path, tmp_path: Path, flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = str(save(box(), tmp_path / "mask.png"))
    line = ["edit", str(drawn_clip), "--prompt", "a ball", "--out", str(tmp_path / "out.mp4")]
    assert main([*line, *(flag.format(mask=mask) for flag in flags)]) == 2
    assert says in capsys.readouterr().err


def test_the_command_that_is_shown_names_the_region(engine: AdaFlow, tmp_path: Path) -> None:
    mask = save(box(), tmp_path / "a mask.png")
    usual = PlanConfig()
    plan, edit = resolve_plan(usual, engine.profile, "cpu"), resolve_edit(EditConfig(), engine.profile, usual)
    for region in (Region({2: mask, 7: mask}, feather=3), Region(words="red ball"), Region(masks=tmp_path)):
        text = edit_command("a.mp4", "b", plan, edit, engine.profile, model="embedded", device="cpu", over=region.flags)
        read = parser().parse_args(shlex.split(text)[3:])
        assert read.mask_frame == sorted(region.painted) and read.region == (region.words or None)
        assert read.mask == ([mask, mask] if region.painted else [tmp_path] if region.masks is not None else [])


def test_masks_may_come_as_people_have_them(tmp_path: Path) -> None:
    path = save(box(), tmp_path / "mask.png")
    assert Region({2: str(path)}) == Region({np.int64(2): path}) == Region({2: path})
    assert Region(masks=str(tmp_path)) == Region(masks=tmp_path)
    grey = Image.fromarray(np.where(box(), 200, 100).astype(np.uint8))
    assert Region({0: grey}).as_json() == Region({0: box()}).as_json(), "bright is inside, as in a file"
    assert (
        Region(masks=list(BOX)).as_json()
        == Region(masks=torch.from_numpy(BOX)).as_json()
        == Region(masks=BOX).as_json()
    )


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"painted": [box()]}, "without its frame; give a dict"),
        ({"painted": box()}, "without its frame; give a dict"),
        ({"painted": {"0": box()}}, "for frame '0'; give its number"),
        ({"painted": {0: None}}, "frame 0 is NoneType, no picture"),
        ({"painted": {0: ""}}, "frame 0 is an empty path"),
        ({"masks": ""}, "is an empty path"),
        ({"masks": [box(), box()[:10]]}, "the masks cannot be read as an array"),
        ({"words": None}, "words is None"),
        ({"words": "ball", "feather": "8"}, "feather is '8'; it must be a whole number"),
        ({"words": "ball", "feather": None}, "feather is None; it must be a whole number"),
        ({"words": "ball", "feather": 8.5}, "feather is 8.5; it must be a whole number"),
        ({"words": "ball", "feather": 257}, "from 0 to 256, in pixels"),
    ],
)
def test_what_cannot_be_a_region_is_told_in_a_sentence(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(AdaFlowError, match=says):
        Region(**asked)


@pytest.mark.parametrize("data", [{}, [], {"painted": [{}], "masks": None}, {"painted": [], "masks": {}}])
def test_a_region_of_a_project_that_lacks_a_part_is_told(data: Any, tmp_path: Path) -> None:
    with pytest.raises(AdaFlowError, match="the region of the project lacks a part, or has a wrong one"):
        Region.from_json(data, tmp_path)


def test_what_is_over_the_picture_has_its_kind(engine: AdaFlow, plan: Plan) -> None:
    wrong: Any
    for wrong in ("red ball", BOX):
        with pytest.raises(AdaFlowError, match=r"the region is .*; give a Region"):
            engine.region(plan, wrong)
        with pytest.raises(AdaFlowError, match=r"the region is .*; give a Region"):
            engine.edit(plan, PROMPT, QUICK, region=wrong)
    wrong = {0: np.zeros((64, 64, 3), np.uint8)}
    with pytest.raises(AdaFlowError, match=r"by_hand is .*; give the keyframes as ByHand"):
        engine.edit(plan, PROMPT, QUICK, by_hand=wrong)


def left_alone(job: EditJob, **_: object) -> EditResult:
    """An edit that changes nothing."""
    run = EditRun(
        settings=job.config, edited=np.arange(1), seconds=0.0, stage_seconds={}, peak_memory_bytes=0,
        inversion_reused=False, resumed_at_step=1,
    )  # fmt: skip
    return job._result(np.array(job.plan.video.frames[job.part]), run, Path("no-such-file"))


def test_a_doubtful_region_and_an_edit_of_nothing_are_told(
    engine: AdaFlow, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaflow_core.picture.region.track.find_words", lambda *_: ({0: box()}, "it is in doubt"))
    region = Region(words="red")
    for _ in range(2):  # the second time it is in the cache
        assert engine.region(plan, region).doubt == "it is in doubt"
    monkeypatch.setattr(EditJob, "edit", left_alone)
    result = engine.edit(plan, PROMPT, QUICK, region=region)
    assert result.warnings[0] == "it is in doubt" and "next to nothing; see whether the region" in result.warnings[1]
    assert result.report["warnings"] == list(result.warnings) and result.report["source_digest"] == plan.video.digest
    assert "next to nothing; word the two prompts" in engine.edit(plan, PROMPT, QUICK).warnings[0]
    found: list[RegionMask] = []

    def once(*asked: Any) -> RegionMask:
        found.append(region_mask(*asked))
        return found[-1]

    monkeypatch.setattr("adaflow_core.picture.over.region_mask", once)
    ranges = (PromptRange(0, 4, "a cup"), PromptRange(6, 9, "a cube"))
    film = engine.edit_timeline(plan, Timeline(ranges), QUICK, region=region)
    assert len(found) == 1, "once for all ranges"
    assert [part["warnings"][0] for part in film.report["stretches"]] == ["it is in doubt"] * 2
    assert engine.edit(plan, "a red ball", QUICK).warnings == (), "it was to change nothing"
