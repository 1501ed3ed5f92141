"""Video in and out on real files made here: what is written comes back, and every bad file is named."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.film.timeline import PromptRange
from adaflow_core.progress import Monitor
from adaflow_core.video.decode import decode_video, from_frames, probe, thumbnails
from adaflow_core.video.types import parse_range, parse_size, working_size
from adaflow_core.video.write import check_output, write_video
from helpers.films import film, make, number, psnr, without_frames
from helpers.plans import small_plan
from helpers.videos.odd_files import audio_only

NTSC = Fraction(24000, 1001)


# --- sizes and ranges -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ((512, 512), 256, (256, 256)),
        ((1280, 720), 256, (448, 256)),
        ((1920, 1080), 512, (896, 512)),
        ((1080, 1920), 512, (512, 896)),
        ((640, 480), 256, (344, 256)),  # 320 would be 6 % off
        ((320, 240), 512, (704, 512)),
        ((100, 100), 200, (192, 192)),
        ((1000, 100), 64, (640, 64)),
    ],
)
def test_working_size(source: tuple[int, int], target: int, expected: tuple[int, int]) -> None:
    assert working_size(*source, target) == expected


def test_the_size_that_is_advised_for_a_wide_film_is_taken() -> None:
    for width in range(2000, 9000, 101):
        with pytest.raises(AdaFlowError, match="give a size of") as refused:
            working_size(width, width // 20, 512)
        advised = int(re.search(r"size of (\d+) at most", str(refused.value))[1])  # type: ignore[index]
        assert max(working_size(width, width // 20, advised)) <= 4096


def test_working_size_keeps_the_aspect() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        width, height = (int(side) for side in rng.integers(400, 2000, 2))
        target = int(rng.choice([192, 256, 384, 512, 768]))
        w, h = working_size(width, height, target)
        assert min(w, h) == target
        assert w % 8 == h % 8 == 0
        assert abs(w / h / (width / height) - 1) < 0.042


def test_stamps_count_as_settings_do() -> None:
    """What a picture says is what --keyframe-image, --mask-frame, ranges and the page's sliders take."""
    assert small_plan().video.stamp(3) == "0.30 s, frame 3"
    video = small_plan(start=100).video
    assert video.stamp(3) == "0.30 s (10.30 s), frame 3 (103)"
    for frame in range(20):
        seconds = float(video.stamp(frame).split(" s")[0])
        asked = PromptRange(0, 0, "a ball", seconds=(seconds, seconds + 0.1))
        assert asked.in_frames(video).start == frame
    times = [10.0 + 0.1 * t if t < 10 else 11.0 + 0.3 * (t - 10) for t in range(21)]  # ten a second, then three
    assert replace(video, times=tuple(times)).stamp(12) == "1.60 s (11.60 s), frame 12 (112)"


def test_parse_size_and_range() -> None:
    assert parse_size("896x512") == (896, 512)
    assert parse_size(" 64 X 4096 ") == (64, 4096)
    assert parse_range("2:5") == slice(2, 5)
    assert parse_range(":5") == slice(None, 5)
    assert parse_range("5:") == slice(5, None)
    assert parse_range(":") == slice(None, None)
    assert parse_range("-8:-2") == slice(-8, -2)
    assert parse_range("3:-2") == slice(3, -2)


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: parse_size("512"), "WIDTHxHEIGHT"),
        (lambda: parse_size("512x"), "WIDTHxHEIGHT"),
        (lambda: parse_size("500x300"), "496x304"),
        (lambda: parse_size("0x64"), "64x64"),
        (lambda: parse_range("5"), "FIRST:END"),
        (lambda: parse_range("a:b"), "FIRST:END"),
        (lambda: parse_range("1:9:2"), "FIRST:END"),
        (lambda: parse_range("5:5"), "END must come after"),
        (lambda: parse_range("-2:-5"), "END must come after"),
        (lambda: parse_range(":0"), "END must come after"),
        (lambda: working_size(640, 480, 16), "between 64 and 4096"),
        (
            lambda: working_size(1600, 32, 512),
            "25600 pixels, and 4096 are the most; give a size of 80 at most, or crop",
        ),
        (lambda: from_frames(np.zeros((2, 64, 64, 3), np.float32)), "uint8"),
        (lambda: from_frames(np.zeros((0, 64, 64, 3), np.uint8)), "at least 1"),
        (lambda: from_frames(np.zeros((2, 64, 70, 3), np.uint8)), "72x64"),
        (lambda: from_frames(np.zeros((2, 64, 64, 3), np.uint8), fps=0), "above 0"),
        (lambda: from_frames([]), "one or more"),
        (lambda: from_frames([Image.new("RGB", (64, 64)), Image.new("RGB", (64, 72))]), "one size"),
        (lambda: check_output("film.avi"), ".mp4"),
    ],
)
def test_errors_of_arguments(call: Callable[[], object], part: str) -> None:
    with pytest.raises(AdaFlowError) as caught:
        call()
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


# --- round trips ------------------------------------------------------------------------------------


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    frames = film(30)
    path = write_video(tmp_path / "new" / "a.mp4", frames, NTSC, metadata={"title": "A film"})
    info = probe(path)
    assert (info.width, info.height, info.frames, info.fps) == (192, 128, 30, NTSC)
    assert (info.codec, info.rotation, info.has_audio) == ("h264", 0, False)
    assert info.seconds == pytest.approx(30 / NTSC, abs=1e-3)
    back = decode_video(path, size=(192, 128))
    assert back.fps == NTSC and len(back) == 30 and back.size == (192, 128)
    assert psnr(back.frames, frames) > 38
    assert abs(back.frames.mean((0, 1, 2)) - frames.mean((0, 1, 2))).max() < 0.6  # no shift of colours
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.pix_fmt, context.colorspace, context.color_range) == ("yuv420p", 1, 1)
        assert container.metadata["title"] == "A film"
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # faststart
    assert [file.name for file in path.parent.iterdir()] == ["a.mp4"]


def test_resizing_matches_an_ideal_filter(tmp_path: Path) -> None:
    path = make(tmp_path / "big.mp4", 2, size=(768, 512), options={"crf": "4"})
    back = decode_video(path, size=(192, 128)).frames[0]
    ideal = np.asarray(Image.fromarray(film(1, 768, 512)[0]).resize((192, 128), Image.Resampling.LANCZOS))
    assert psnr(back[8:], ideal[8:]) > 36  # below the squares, whose edges ring


def test_odd_sizes_gain_a_row_and_a_column(tmp_path: Path) -> None:
    frames = film(4, 191, 127)
    path = write_video(tmp_path / "odd.mp4", frames, Fraction(10))
    assert (probe(path).width, probe(path).height) == (192, 128)
    assert psnr(decode_video(path, size=(192, 128)).frames[:, :127, :191], frames) > 36


def test_memory_map_and_digest(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", 21)
    seen: list[tuple[int, int]] = []
    monitor = Monitor(lambda progress: seen.append((progress.done, progress.total)))
    mapped = decode_video(path, size=(96, 64), out=tmp_path / "frames.npy", monitor=monitor)
    held = decode_video(path, size=(96, 64))
    assert isinstance(mapped.frames, np.memmap) and not mapped.frames.flags.writeable
    assert np.array_equal(mapped.frames, held.frames)
    assert mapped.digest == held.digest
    assert seen[0] == (0, 21) and seen[-1] == (21, 21) and len(seen) == 4
    assert monitor.seconds["decode"] > 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.mp4", "frames.npy"]
    assert from_frames(held.frames, held.fps).digest == held.digest
    assert from_frames(held.frames, 25).digest != held.digest
    assert from_frames(held.frames[1:], held.fps).digest != held.digest


def test_from_pil() -> None:
    frames = film(3)
    video = from_frames([Image.fromarray(frame) for frame in frames], fps=29.97)
    assert np.array_equal(video.frames, frames)
    assert video.fps == Fraction(2997, 100).limit_denominator(1001)
    assert video.source is None


# --- kinds of files ---------------------------------------------------------------------------------

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "h264.mp4": ("libx264", {}),
    "h264.mkv": ("libx264", {}),
    "h264.ts": ("libx264", {}),
    "vp9.webm": ("libvpx-vp9", {"options": {"deadline": "realtime", "cpu-used": "8"}}),
    "gif.gif": ("gif", {"pixels": "rgb8", "rate": Fraction(20)}),
    "hevc10.mp4": (
        "libx265",
        {"pixels": "yuv420p10le", "options": {"preset": "ultrafast", "x265-params": "log-level=none"}},
    ),
    "mpeg4-b.avi": ("mpeg4", {"options": {"bf": "2", "b": "2000000"}}),
    "prores.mov": ("prores_ks", {"pixels": "yuv422p10le"}),
    "av1.mp4": ("libsvtav1", {"options": {"preset": "12", "crf": "20"}}),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_its_frames_in_order(name: str, tmp_path: Path) -> None:
    codec, options = KINDS[name]
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder {codec}")
    scheduling = os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else None
    path = make(tmp_path / name, 40, codec, **options)
    # A browser that a later test starts would take every core.
    assert scheduling is None or os.sched_getscheduler(0) == scheduling
    rate = options.get("rate", Fraction(24))
    info = probe(path)
    assert (info.width, info.height) == (192, 128)
    assert abs(info.frames - 40) <= 1 and info.fps == rate
    video = decode_video(path, size=(96, 64))
    assert [number(frame) for frame in video.frames] == list(range(40))
    part = decode_video(path, size=(96, 64), frames=slice(27, 33))  # found by seeking
    assert part.start == 27 and np.array_equal(part.frames, video.frames[27:33])


def test_frame_ranges(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", 60, options={"g": "12", "bf": "3"})
    for text, expected in {"0:3": [0, 1, 2], "58:": [58, 59], ":2": [0, 1], "-3:-1": [57, 58]}.items():
        video = decode_video(path, size=(96, 64), frames=parse_range(text))
        assert [number(frame) for frame in video.frames] == expected
        assert video.start == expected[0] and video.source == path
    for begin in range(0, 60, 7):
        video = decode_video(path, size=(96, 64), frames=slice(begin, begin + 1))
        assert number(video.frames[0]) == begin
    with pytest.raises(AdaFlowError, match="0:60"):
        decode_video(path, size=(96, 64), frames=slice(60, 70))


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied(rotation: int, tmp_path: Path) -> None:
    path = make(tmp_path / "phone.mp4", 3, rotation=rotation)
    info = probe(path)
    assert (info.width, info.height) == ((192, 128) if rotation == 180 else (128, 192))
    assert info.rotation == -rotation % 360  # the matrix turns counterclockwise
    back = decode_video(path, size=(info.width, info.height)).frames[0]
    assert psnr(back, np.rot90(film(1)[0], rotation // 90)) > 30
    assert thumbnails(path, 2, 64)[1].shape[1:3] == (64, 96 if rotation == 180 else 43)


def test_anamorphic_pixels_become_square(tmp_path: Path) -> None:
    info = probe(make(tmp_path / "wide.mp4", 3, aspect=Fraction(4, 3)))
    assert (info.width, info.height) == (256, 128)


def test_varying_rate_keeps_frames_and_duration(tmp_path: Path) -> None:
    times = [t * 40 if t < 10 else 400 + (t - 10) * 120 for t in range(30)]
    path = make(tmp_path / "vfr.mp4", 30, times=times, rate=Fraction(1000))
    video = decode_video(path, size=(96, 64))
    assert [number(frame) for frame in video.frames] == list(range(30))
    assert len(video) / video.fps == pytest.approx(probe(path).seconds, rel=0.01)
    assert video.fps < 15
    assert number(decode_video(path, size=(96, 64), frames=slice(17, 18)).frames[0]) == 17


@pytest.mark.parametrize(
    ("size", "matrix"),
    [
        ((736, 720), "ITU709"), ((1280, 534), "ITU709"), ((608, 1080), "ITU709"), ((720, 576), "ITU601"),
        ((854, 480), "ITU601"),
    ],
)  # fmt: skip
def test_what_declares_no_matrix_has_that_of_its_size(size: tuple[int, int], matrix: str, tmp_path: Path) -> None:
    red = np.zeros((*size[::-1], 3), np.uint8) + np.array([200, 40, 30], np.uint8)
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        frame = av.VideoFrame.from_ndarray(red, format="rgb24").reformat(format="yuv420p", dst_colorspace=matrix)
        frame.colorspace = 2
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    whole = (size[0] // 8 * 8, size[1] // 8 * 8)
    for wanted in ((64, 64), whole):  # at the working size, and as a delivery at the source's size reads it
        assert abs(decode_video(path, size=wanted).frames[0].astype(int) - red[0, 0]).max() <= 4


def test_a_file_cut_short_gives_what_it_has(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", film(60), Fraction(24))
    data = whole.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) * 2 // 3])
    video = decode_video(cut, size=(96, 64), out=tmp_path / "cut.npy")
    assert 5 < len(video) < 60
    shown = [number(frame) for frame in video.frames]
    assert shown[: len(video) - 4] == list(range(len(video) - 4))  # a frame near the cut may lack its reference
    assert np.load(tmp_path / "cut.npy").shape == video.frames.shape
    assert video.digest == decode_video(cut, size=(96, 64)).digest


def test_frames_that_cannot_be_read_move_no_others(tmp_path: Path) -> None:
    """A range holds the file's frames of these numbers, as far as they can be read, and says what is missing."""
    for name, codec, pixels in (("a.mp4", "libx264", "yuv420p"), ("a.avi", "mjpeg", "yuvj420p")):
        options = {"g": "10", "bf": "0", "sc_threshold": "0"} if codec == "libx264" else None
        path = without_frames(make(tmp_path / name, 60, codec, pixels=pixels, options=options), 20, 30)
        for begin, end in [(0, 60), (10, 40), (15, 25), (25, 50), (30, 40)]:
            video = decode_video(path, size=(96, 64), frames=slice(begin, end))
            left = [frame for frame in range(begin, end) if not 20 <= frame < 30]
            assert [number(frame) for frame in video.frames] == left
            assert [video.number(t) for t in range(len(video))] == left
            assert [round(24 * video.seconds(t)) for t in range(len(video))] == left
            assert bool(video.notes) == (len(left) < end - begin)
        part = decode_video(path, size=(96, 64)).part(18, 30)
        assert part.start == 18 and part.number(2) == 30
        assert part.stamp(2) == "0.50 s (1.25 s), frame 2 (30)"
        with pytest.raises(AdaFlowError, match=r"no frame from 20 to 29 of a\.... can be read"):
            decode_video(path, size=(96, 64), frames=slice(20, 30))
        numbers, pictures = thumbnails(path, 7)
        assert numbers.tolist() == [number(picture) for picture in pictures]


@pytest.mark.parametrize("rotation", [0, 180])  # decord's way; PyAV's, which knows rotation
def test_thumbnails(rotation: int, tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", 50, options={"g": "12"}, rotation=rotation)
    numbers, pictures = thumbnails(path, 6, height=64)
    assert numbers.tolist() == [0, 10, 20, 29, 39, 49]
    assert pictures.shape == (6, 64, 96, 3)
    assert [number(np.rot90(picture, rotation // 90)) for picture in pictures] == numbers.tolist()
    assert len(thumbnails(path, 500)[0]) == 50


# --- what can go wrong ------------------------------------------------------------------------------


def bad_file(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.mp4"
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("not a video\n" * 500)
    elif kind == "letters":
        path = path.with_suffix(".txt")  # FFmpeg would draw it
        path.write_text("not a video\n" * 500)
    elif kind == "playlist":
        make(folder / "part.ts", 3)
        path = path.with_suffix(".m3u8")  # FFmpeg would open what it names
        path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\npart.ts\n#EXT-X-ENDLIST\n")
    elif kind == "picture":
        path = path.with_suffix(".png")
        Image.new("RGB", (64, 64)).save(path)
    elif kind == "sound":
        path = audio_only(folder)
    elif kind == "header":
        whole = write_video(folder / "whole.mp4", film(30), Fraction(24)).read_bytes()
        path.write_bytes(whole[: whole.index(b"mdat") + 8])
    elif kind == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(20_000))
    return path


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("missing", "does not exist"),
        ("folder", "is a folder without pictures"),
        ("empty", "is empty"),
        ("text", "not a video"),
        ("letters", "not a video"),
        ("playlist", "not a video"),
        ("picture", "not a video"),
        ("noise", "not a video"),
        ("sound", "no video stream"),
        ("header", "no readable frame"),
    ],
)
def test_bad_files_are_named_with_the_remedy(kind: str, part: str, tmp_path: Path) -> None:
    path = bad_file(kind, tmp_path)
    for read in (probe, lambda p: decode_video(p, size=(64, 64)), lambda p: thumbnails(p, 3)):
        with pytest.raises(AdaFlowError) as caught:
            read(path)
        message = str(caught.value)
        assert part in message and path.name in message and "; " in message and "\n" not in message


def test_a_wrong_size_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", 3)
    for size in ((100, 64), (64, 0), (8192, 64)):
        with pytest.raises(AdaFlowError, match="multiples of 8"):
            decode_video(path, size=size)


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AdaFlowError, match="choose another folder"):
        write_video(tmp_path / "file" / "a.mp4", film(2), Fraction(10))
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(AdaFlowError, match="is a folder"):
        write_video(tmp_path / "folder.mp4", film(2), Fraction(10))
    assert check_output(tmp_path / "x" / "y.mp4") == tmp_path / "x" / "y.mp4"
    assert list((tmp_path / "x").iterdir()) == []


def stopping(calls: int) -> Monitor:
    left = iter(range(calls))
    return Monitor(stop=lambda: next(left, None) is None)


@pytest.mark.parametrize("calls", [0, 3, 30])
def test_stopping_leaves_no_file(calls: int, tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", 40)
    with pytest.raises(Stopped):
        decode_video(path, size=(96, 64), out=tmp_path / "frames.npy", monitor=stopping(calls))
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]


def test_stopping_or_failing_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", film(3), Fraction(10))
    before = path.read_bytes()
    with pytest.raises(Stopped):
        write_video(path, film(40), Fraction(10), monitor=stopping(4))
    with pytest.raises((ValueError, AdaFlowError)):
        write_video(path, film(4).astype(np.float32), Fraction(10))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]
