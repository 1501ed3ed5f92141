"""An edit delivered at the source's size: sharp where the source is, without its ghosts, its own bytes elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from av.video.reformatter import VideoReformatter

from adaflow_core.cli.main import main
from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.errors import AdaFlowError
from adaflow_core.picture import full_size
from adaflow_core.picture.enlarge import OFF, TILE, Grid, lay_over
from adaflow_core.picture.full_size import FullSize, deliver_edit, source_size
from adaflow_core.picture.region.mask import feathered
from adaflow_core.planning.analysis import source_video
from adaflow_core.progress import Monitor
from adaflow_core.report.export import edit_command
from adaflow_core.storage.cache import Cache
from adaflow_core.types import EditResult
from adaflow_core.video.decode import decode_video, from_frames
from adaflow_core.video.pixels import FILTER
from adaflow_core.video.types import Video
from helpers.films import film, make, number, psnr, without_frames
from scenes.clips import scene
from scenes.render import render

FULL, WORKING = 384, 96


def smaller(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """As decoding makes it."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return VideoReformatter().reformat(frame, width, height, "rgb24", interpolation=FILTER).to_ndarray()


@pytest.fixture(scope="module")
def drawn() -> Callable[[str], tuple[np.ndarray, np.ndarray]]:
    """File of a bundled clip -> a frame [512, 512, 3] of it, and its true edit."""
    entries = {entry["file"]: entry for entry in json.loads(Path("assets/clips/clips.json").read_text())}

    def pictures(file: str) -> tuple[np.ndarray, np.ndarray]:
        before = scene(entries[file])
        rows = before, before.replace(**{entries[file]["attribute"]: entries[file]["value"]})
        drawn = [render(row, torch.tensor([0.4]), FULL).rgb[0, 0].permute(1, 2, 0) for row in rows]
        source, truth = ((rgb * 255).round().byte().numpy() for rgb in drawn)
        return source, truth

    return pictures


@pytest.mark.parametrize(("file", "gain"), [("ball.mp4", 10), ("star.mp4", 6), ("balloon.mp4", 3)])
def test_an_edit_is_sharper_than_one_that_is_enlarged(
    drawn: Callable[[str], tuple[np.ndarray, np.ndarray]], file: str, gain: float
) -> None:
    source, truth = drawn(file)
    small, edited = (smaller(picture, WORKING, WORKING) for picture in (source, truth))
    made = lay_over(source, small, edited)
    plain = cv2.resize(edited, (FULL, FULL), interpolation=cv2.INTER_LANCZOS4)
    assert psnr(made, truth) > psnr(plain, truth) + gain


def test_what_the_edit_leaves_alone_is_the_sources_own(
    drawn: Callable[[str], tuple[np.ndarray, np.ndarray]],
) -> None:
    source, truth = drawn("ball.mp4")
    small, edited = (smaller(picture, WORKING, WORKING) for picture in (source, truth))
    near = cv2.dilate((small != edited).any(axis=-1).astype(np.uint8), np.ones((5, 5), np.uint8))
    far = cv2.resize(near, (FULL, FULL), interpolation=cv2.INTER_NEAREST) == 0
    assert 0.2 < far.mean() < 0.95
    assert (lay_over(source, small, edited)[far] == source[far]).all()
    assert (lay_over(source, small, small) == source).all()


@pytest.mark.parametrize("feather", [0, 2])
def test_beyond_a_regions_feather_every_pixel_is_the_sources(
    drawn: Callable[[str], tuple[np.ndarray, np.ndarray]], feather: int
) -> None:
    source, _ = drawn("ball.mp4")
    height, width = 302, 322  # of which no pixel of the working size covers a whole number
    source = source[:height, :width]
    small = smaller(source, WORKING, WORKING)
    weights = feathered(np.hypot(*(np.indices((WORKING, WORKING)) - 40.5)) < 20, feather)
    share = weights[..., None] / 255
    edited = (small + share * (np.array([200.0, 30, 30]) - small)).round().astype(np.uint8)
    made = lay_over(source, small, edited, weights)
    rows, columns = (((np.arange(n) + 0.5) * WORKING / n).astype(int) for n in (height, width))
    outside = weights[rows][:, columns] == 0
    assert (made[outside] == source[outside]).all()
    assert (lay_over(source, small, edited)[outside] != source[outside]).any(), "where no region bounds it"
    middle = made[100:140, 110:150]
    assert np.abs(middle.astype(int) - [200, 30, 30]).max() < 3


def test_a_thing_that_is_gone_leaves_no_outline() -> None:
    y, x = np.mgrid[0:FULL, 0:FULL]
    ground = np.stack([90 + 20 * np.sin(x / 60), 120 + 20 * np.sin(y / 50), np.full_like(x, 60)], -1)
    stripes = ((x // 3) % 2 * 120 + 60)[..., None].repeat(3, -1)  # too fine for the working size
    inside = ((x - 192) ** 2 + (y - 192) ** 2 < 90**2)[..., None]
    source, truth = (picture.astype(np.uint8) for picture in (np.where(inside, stripes, ground), ground))
    made = lay_over(source, smaller(source, WORKING, WORKING), smaller(truth, WORKING, WORKING))
    worst = np.abs(made.astype(int) - truth).max(axis=-1)
    assert np.percentile(worst, 99.9) < 12


@pytest.mark.parametrize(
    ("size", "off"),
    [((768, 432), 0), ((421, 333), 8)],  # pixels of both sizes begin together every 8 or 27 pixels, and nowhere inside
)
def test_parts_are_enlarged_as_the_whole_is(size: tuple[int, int], off: int, monkeypatch: pytest.MonkeyPatch) -> None:
    width, height = size
    source = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    source = cv2.GaussianBlur(source, (0, 0), 2)
    small = smaller(source, 192, 128)
    edited = small.copy()
    edited[20:110, 30:100] = 255 - edited[20:110, 30:100]
    bounds = np.zeros((128, 192), np.uint8)
    bounds[15:100, 25:110] = 255
    monkeypatch.setattr("adaflow_core.picture.enlarge.TILE", 100)
    made, bounded = lay_over(source, small, edited), lay_over(source, small, edited, bounds)
    monkeypatch.setattr("adaflow_core.picture.enlarge.TILE", 10_000)
    monkeypatch.setattr("adaflow_core.picture.enlarge.MARGIN", 64)
    whole, bounded_whole = lay_over(source, small, edited), lay_over(source, small, edited, bounds)
    for one, other in ((made, whole), (bounded, bounded_whole)):
        apart = np.abs(one.astype(int) - other)
        assert apart.max() <= off and apart.mean() < 0.05
    assert (bounded != made).any()
    rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in ((height, 128), (width, 192)))
    outside = ((bounds == 0) & (small == edited).all(axis=-1))[rows][:, columns]
    assert (bounded[outside] == source[outside]).all()


@pytest.mark.parametrize(("small", "full"), [(512, 2160), (512, 2158), (512, 1078), (896, 3839), (896, 1916)])
def test_no_tile_is_much_larger_than_it_should_be(small: int, full: int) -> None:
    """Tiles fit a core's cache, and four frames are made at once."""
    grid = Grid(small, full)
    cuts = [grid.cut(tile.start, tile.stop) for tile in grid.tiles]
    assert [cut.full.start for cut in cuts[1:]] + [full] == [cut.full.stop for cut in cuts] and cuts[0].full.start == 0
    sides = [near.full.stop - near.full.start for near in map(grid.with_margin, cuts)]
    assert max(sides) < 1.7 * TILE
    for cut in cuts:
        assert abs(cut.small.start * full / small - cut.full.start) <= OFF and cut.small.start % 2 == 0


def planned(path: Path, tmp_path: Path, frames: slice | None = None, size: tuple[int, int] = (192, 128)) -> Video:
    cache = Cache(tmp_path / "cache")
    return source_video(path, cache, size=size, usual=64, frame_range=frames, fps=24, monitor=Monitor())


def edit_of(video: Video, change: int = 0) -> EditResult:
    frames = np.array(video.frames)
    frames[:, 64:, :64] = np.minimum(frames[:, 64:, :64].astype(int) + change, 255)
    return EditResult.of(video, frames, {}, ())


def laid_over(video: Video, result: EditResult) -> list[np.ndarray]:
    size = source_size(video)
    assert size is not None
    return list(FullSize(video, result.frames, size, Monitor()))


def test_frames_are_those_of_the_plan(tmp_path: Path) -> None:
    source = make(tmp_path / "a.mp4", 24, size=(384, 256), audio="aac")
    video = planned(source, tmp_path, slice(5, 15))
    result = edit_of(video, 60)
    written = deliver_edit(tmp_path / "out.mp4", result, video)
    assert (written.size, written.deliver) == ((384, 256), "source")
    again = decode_video(written.path, size=(384, 256))
    numbers = [sum(int(frame[8, 16 * bit + 8].mean() > 128) << bit for bit in range(8)) for frame in again.frames]
    assert numbers == list(range(5, 15))
    original = decode_video(source, size=(384, 256), frames=slice(5, 15))
    assert again.fps == original.fps
    assert psnr(again.frames[:, :, 160:], original.frames[:, :, 160:]) > 38
    brighter = again.frames[:, 160:240, 16:112].astype(int) - original.frames[:, 160:240, 16:112]
    assert 50 < brighter.mean() < 65
    with av.open(str(written.path)) as container:
        assert container.streams.audio


def test_an_edit_that_changes_nothing_is_the_source(tmp_path: Path) -> None:
    source = make(tmp_path / "a.mp4", 6, size=(386, 254))
    video = planned(source, tmp_path)
    with_own_size = decode_video(source, size=(384, 256))
    made = laid_over(video, edit_of(video))
    assert [frame.shape for frame in made] == [(254, 386, 3)] * 6
    assert psnr(np.stack([cv2.resize(f, (384, 256)) for f in made]), with_own_size.frames) > 30
    again = laid_over(video, edit_of(video))
    assert all((a == b).all() for a, b in zip(made, again, strict=True))


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"rotation": 90, "size": (384, 256)}, (256, 384)),
        ({"aspect": Fraction(4, 3), "size": (384, 256)}, (512, 256)),
        ({"times": [0, 40, 100, 400, 440, 900], "size": (384, 256)}, (384, 256)),
    ],
)
def test_odd_sources_come_out_as_at_the_working_size(
    tmp_path: Path, options: dict[str, object], size: tuple[int, int]
) -> None:
    source = make(tmp_path / "a.mp4", 6, **options)  # type: ignore[arg-type]
    video = planned(source, tmp_path, size=(128, 192) if size[0] < size[1] else (192, 128))
    result = edit_of(video, 60)
    working = decode_video(result.save(tmp_path / "working.mp4"), size=video.size)
    written = deliver_edit(tmp_path / "out.mp4", result, video)
    full = decode_video(written.path, size=video.size)
    assert written.size == size
    assert full.times == working.times and full.fps == working.fps
    assert psnr(full.frames, working.frames) > 28


def test_frames_that_cannot_be_read_are_left_out_at_full_size_too(tmp_path: Path) -> None:
    options = {"g": "4", "bf": "0", "sc_threshold": "0"}
    source = without_frames(make(tmp_path / "a.mp4", 16, options=options, size=(384, 256)), 4, 8)
    video = planned(source, tmp_path)
    assert video.numbers == (0, 1, 2, 3, *range(8, 16))
    assert deliver_edit(tmp_path / "out.mp4", edit_of(video), video).deliver == "source"
    full = decode_video(tmp_path / "out.mp4", size=(384, 256))
    assert [number(frame[:128, :192]) for frame in full.frames] == list(video.numbers)


def test_a_source_that_is_no_larger_is_delivered_at_the_working_size(tmp_path: Path) -> None:
    source = make(tmp_path / "a.mp4", 3)  # 192x128
    video = planned(source, tmp_path)
    written = deliver_edit(tmp_path / "out.mp4", edit_of(video), video)
    assert (written.size, written.deliver) == ((192, 128), "working")
    assert written.notes == ()
    damaged = replace(edit_of(video), source=tmp_path / "gone.mp4")
    assert "without the sound of gone.mp4" in deliver_edit(tmp_path / "e.mp4", damaged, video).notes[0]
    drawn = from_frames(film(3), 24)
    assert deliver_edit(tmp_path / "b.mp4", edit_of(drawn), drawn).deliver == "working"
    large = planned(make(tmp_path / "c.mp4", 3, size=(384, 256)), tmp_path)
    asked = deliver_edit(tmp_path / "d.mp4", edit_of(large), large, "working")
    assert (asked.size, asked.deliver) == ((192, 128), "working")


def test_a_source_that_is_gone_or_another_is_named(tmp_path: Path) -> None:
    source = make(tmp_path / "a.mp4", 6, size=(384, 256))
    video = planned(source, tmp_path)
    result = edit_of(video)
    make(source, 5, size=(384, 256))
    with pytest.raises(AdaFlowError, match=r"not what it was.*working size"):
        deliver_edit(tmp_path / "out.mp4", result, video)
    unknown = replace(video, file_digest="")
    with pytest.raises(AdaFlowError, match="ends after 5 of 6 frames"):
        deliver_edit(tmp_path / "out.mp4", result, unknown)
    source.unlink()
    with pytest.raises(AdaFlowError, match=r"gone.*working size"):
        deliver_edit(tmp_path / "out.mp4", result, video)
    assert not list(tmp_path.glob("*out*"))


def test_the_sound_of_a_file_that_came_in_the_sources_place_is_not_taken(tmp_path: Path) -> None:
    source = make(tmp_path / "a.mp4", 6, size=(384, 256), audio="aac")
    video = planned(source, tmp_path)
    result = edit_of(video)

    def sounds(path: Path) -> bool:
        with av.open(str(path)) as container:
            return bool(container.streams.audio)

    assert sounds(deliver_edit(tmp_path / "before.mp4", result, video, "working").path)
    make(source, 9, size=(384, 256), audio="aac")
    written = deliver_edit(tmp_path / "after.mp4", result, video, "working")
    assert written.notes == (f"{source} is not what it was when the edit was planned; written without its sound",)
    assert not sounds(written.path)
    with pytest.warns(UserWarning, match="without its sound"):
        assert not sounds(result.save(tmp_path / "saved.mp4"))


def test_ten_bits_come_out_as_eight_and_that_is_said(tmp_path: Path) -> None:
    source = make(tmp_path / "a.mov", 3, "prores_ks", pixels="yuv422p10le", size=(384, 256))
    video = planned(source, tmp_path)
    assert any("10 bits" in note and "8" in note for note in video.notes)
    assert laid_over(video, edit_of(video, 60))[0].dtype == np.uint8


@pytest.fixture
def exact(tiny_folder: Callable[[str], Path]) -> list[str]:
    return [
        "--model", str(tiny_folder("sd1")), "--device=cpu", "--dtype=float32", "--size=64x64", "--frames=0:2",
        "--steps=2", "--keyframes=2",
    ]  # fmt: skip


def test_files_are_delivered_at_the_sources_size_by_the_command_line(tmp_path: Path, exact: list[str]) -> None:
    source = make(tmp_path / "a.mp4", 6)
    out, report = tmp_path / "out.mp4", tmp_path / "report.json"
    command = ["edit", str(source), "--prompt", "a ball", "--out", str(out), f"--report={report}", *exact]
    assert main(command) == 0
    assert full_size.probe(out).width == 192
    assert json.loads(report.read_text())["deliver"] == "source"
    assert json.loads(report.read_text())["delivered_size"] == [192, 128]


def test_an_edit_is_not_lost_with_its_source(
    tmp_path: Path, exact: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = make(tmp_path / "a.mp4", 6), tmp_path / "out.mp4"

    def gone(video: Video) -> None:
        source.unlink()
        source_size(video)

    monkeypatch.setenv("ADAFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(full_size, "source_size", gone)
    assert main(["edit", str(source), "--prompt", "a ball", "--out", str(out), *exact]) == 0
    assert "working size" in capsys.readouterr().err
    assert full_size.probe(out).width == 64
    (state,) = (tmp_path / "cache" / "edits").iterdir()
    assert state.suffix == ".zip", "with the source back, the same command has only to deliver it"


def test_the_command_says_the_size(tiny_backbone: Callable[[str], object]) -> None:
    profile = tiny_backbone("sd1").profile  # type: ignore[attr-defined]

    def command(deliver: str) -> str:
        return edit_command(
            "a.mp4", "a ball", PlanConfig(), EditConfig(), profile, model="embedded", device="cpu", deliver=deliver
        )

    assert "--deliver=working" in command("working") and "--deliver" not in command("source")


def test_an_edit_of_another_video_is_not_delivered_over_it(tmp_path: Path) -> None:
    video, other = from_frames(film(3), 24), from_frames(255 - film(3), 24)
    result = edit_of(video)
    for wrong, report in ((from_frames(film(4), 24), {}), (other, {"source_digest": video.digest})):
        with pytest.raises(AdaFlowError, match="give the plan that was edited"):
            deliver_edit(tmp_path / "out.mp4", replace(result, report=report), wrong)
    assert not list(tmp_path.iterdir())
