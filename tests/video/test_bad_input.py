"""Odd input gives a correct result or one sentence that names the remedy: never a traceback, a hang or a crash."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from adaflow_core import video as video_io
from adaflow_core.cli.main import main
from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.engine import AdaFlow
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.loading import EMBEDDED
from adaflow_core.storage.cache import Cache
from helpers.films import film, make, number, psnr
from helpers.videos import odd_files as odd

ROOT = Path(__file__).resolve().parents[2]
ALL = list(range(odd.COUNT))
CLIP = EMBEDDED.parent / "clips" / "ball.mp4"
Make = Callable[[Path], Path]


@pytest.fixture(scope="module")
def engine(tiny_backbone: Callable[[str], Backbone], tmp_path_factory: pytest.TempPathFactory) -> AdaFlow:
    return AdaFlow(tiny_backbone("sd1"), Cache(tmp_path_factory.mktemp("cache")))


def one_sentence(message: str) -> bool:
    return "\n" not in message and "Traceback" not in message and len(message) < 400 and "; " in message


# --- files ------------------------------------------------------------------------------------------

GOOD: dict[str, tuple[Make, list[int] | int, tuple[int, int]]] = {  # file, frame numbers or their count, upright size
    "one frame": (odd.one_frame, [0], (192, 128)),
    "odd sides, yuv444": (odd.odd_sides_in_yuv444, ALL, (191, 127)),
    "16x16": (odd.sixteen_pixels, odd.COUNT, (16, 16)),
    "8K": (odd.eight_k, 2, (7680, 4320)),
    "rotated": (odd.upright, odd.COUNT, (128, 192)),
    "varying rate, mp4": (odd.varying_mp4, ALL, (192, 128)),
    "varying rate, mkv": (odd.varying_mkv, ALL, (192, 128)),
    "10-bit HEVC": (odd.hevc_10_bit, ALL, (192, 128)),
    "AV1": (odd.av1, ALL, (192, 128)),
    "VP9 in WebM": (odd.vp9_webm, ALL, (192, 128)),
    "ProRes in MOV": (odd.prores_mov, ALL, (192, 128)),
    "GIF": (odd.gif, ALL, (192, 128)),
    "interlaced": (odd.interlaced, odd.COUNT, (192, 128)),
    "pictures": (odd.pictures, ALL, (192, 128)),
    "3 hours declared, mkv": (odd.three_hours_mkv, ALL, (192, 128)),
    "3 hours declared, mp4": (odd.three_hours_mp4, ALL, (192, 128)),
    "wrong count in the header": (odd.wrong_count_avi, ALL, (192, 128)),
    "cut at 60 %": (partial(odd.cut, 0.6), 0, (192, 128)),
    "cut at 90 %": (partial(odd.cut, 0.9), 0, (192, 128)),
}


@pytest.mark.parametrize("name", GOOD)
def test_odd_files_are_planned(name: str, engine: AdaFlow, tmp_path: Path) -> None:
    make_file, expected, size = GOOD[name]
    path = make_file(tmp_path)
    info = video_io.probe(path)
    assert (info.width, info.height) == size
    plan = engine.plan(path, PlanConfig(keyframes=1), size=(96, 64) if size[0] > size[1] else (64, 96))
    notes = " ".join(plan.notes)
    if isinstance(expected, list):
        assert [number(frame) for frame in plan.video.frames] == expected
    if name.startswith("cut"):
        assert 0 < len(plan.video) < odd.COUNT and ("is damaged" in notes) == (len(plan.video) < info.frames)
        count = info.frames
    else:
        count = expected if isinstance(expected, int) else len(expected)
        assert len(plan.video) == info.frames == count
    assert info.seconds == pytest.approx(count / info.fps, rel=0.05)


def test_a_rotated_video_is_upright(tmp_path: Path) -> None:
    frames = video_io.decode_video(odd.upright(tmp_path), size=(128, 192)).frames
    assert psnr(frames[3], np.rot90(film(4)[3])) > 30


def test_a_varying_rate_keeps_the_duration(tmp_path: Path) -> None:
    for path in (odd.varying_mp4(tmp_path), odd.varying_mkv(tmp_path)):
        video = video_io.decode_video(path, size=(96, 64))
        assert (len(video) - 1) / video.fps == pytest.approx(odd.VARYING[-1] / 1000, rel=0.1)
        assert video.times is not None and video.times[:-1] == pytest.approx(np.array(odd.VARYING) / 1000, abs=2e-3)
        part = video_io.decode_video(path, size=(96, 64), frames=slice(2, 9))
        written = video_io.write_video(tmp_path / "out.mp4", part.frames, part.fps, times=part.times)
        again = video_io.decode_video(written, size=(96, 64))
        later = np.array(odd.VARYING[2:9]) / 1000 - 0.08
        assert again.times is not None and again.times[:-1] == pytest.approx(later, abs=2e-3)
        assert [number(frame) for frame in again.frames] == ALL[2:9]
    assert video_io.decode_video(odd.vp9_webm(tmp_path), size=(96, 64)).times is None


def test_interlaced_frames_lose_their_combs(tmp_path: Path) -> None:
    frames = video_io.decode_video(odd.interlaced(tmp_path), size=(192, 128)).frames[2:10]
    assert comb_of(frames) < 120 and len(np.unique(frames[:, 52, :, 1].argmax(axis=1))) > 4


def comb_of(frames: np.ndarray) -> int:
    """How far lines are from those around them, in the middle of frames [T, 128, 192, 3]; 2 * 219 in a whole comb."""
    middle = frames[:, 32:96, :, 1].astype(np.int32)
    return int(np.abs(2 * middle[:, 1:-1] - middle[:, :-2] - middle[:, 2:]).max())


def test_interlaced_frames_after_others_lose_their_combs_wherever_the_range_begins(tmp_path: Path) -> None:
    path = odd.partly_interlaced(tmp_path)
    whole = video_io.decode_video(path, size=(192, 128))
    assert len(whole) == odd.COUNT and whole.times is None and comb_of(whole.frames[1:-1]) < 120
    shown = [int((frame[60, :, 1] > 128).argmax()) for frame in whole.frames]
    assert shown == pytest.approx([16 * t % 160 for t in range(odd.COUNT)], abs=6), "in their order"
    for begin in (3, 8):
        part = video_io.decode_video(path, size=(192, 128), frames=slice(begin, None))
        assert len(part) == odd.COUNT - begin and part.times is None
        same = 0 if begin == 3 else 1  # an interlaced first frame has none before it to be compared with
        assert np.array_equal(part.frames[same:], whole.frames[begin + same :])


BAD: dict[str, tuple[Make, str]] = {
    "empty": (odd.empty, "copy or download it again"),
    "text": (odd.text, "not a video"),
    "header only": (odd.header_only, "no readable frame"),
    "header cut": (odd.header_cut, "convert it"),
    "zero frames": (odd.zero_frames, "; choose"),
    "audio only": (odd.audio_only, "no video stream"),
    "wrong count in the table": (odd.wrong_count_mp4, "convert it"),
    "endless table": (odd.endless_mp4, "convert it"),
    "a line": (odd.a_line, "200 times the shorter one"),
    "pictures of two sizes": (odd.unlike_pictures, "one size"),
    "a broken picture": (odd.broken_picture, "take it out"),
    "a folder without pictures": (odd.empty_folder, "without pictures"),
    "missing": (lambda folder: folder / "no.mp4", "does not exist"),
    "a name that is too long": (lambda folder: folder / ("x" * 5000), "check the path"),
    "a null character": (lambda folder: folder / "a\0b.mp4", "check the path"),
    "a device": (lambda _: Path("/dev/zero"), "a device" if Path("/dev/zero").exists() else "does not exist"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_end_with_one_sentence(name: str, engine: AdaFlow, tmp_path: Path) -> None:
    make_file, part = BAD[name]
    path = make_file(tmp_path)
    with pytest.raises(AdaFlowError) as caught:
        engine.plan(path, PlanConfig(keyframes=1))
    assert part in str(caught.value) and one_sentence(str(caught.value)), str(caught.value)
    assert not list(engine.cache.root.glob("*/.building-*"))


@pytest.mark.parametrize(("command", "name"), [("plan", "zero frames"), ("edit", "a device")])
def test_the_program_ends_with_status_2(command: str, name: str, tmp_path: Path) -> None:
    make_file, part = BAD[name]
    out = tmp_path / ("out" if command == "plan" else "out.mp4")
    arguments = [command, str(make_file(tmp_path)), "--out", str(out)]
    arguments += ["--prompt", "a ball"] if command == "edit" else []
    done = subprocess.run(
        [sys.executable, "-m", "adaflow_core", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("adaflow: error: ") and part in done.stderr and done.stderr.count("\n") == 1


# --- prompts ----------------------------------------------------------------------------------------

needs_embedded = pytest.mark.skipif(not EMBEDDED.exists(), reason="the embedded model is not in assets/")


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> AdaFlow:
    return AdaFlow.from_pretrained("embedded", device="cpu", cache=Cache(tmp_path_factory.mktemp("embedded-cache")))


@needs_embedded
@pytest.mark.parametrize(
    ("prompt", "warning"),
    [
        ("a blue ball " * 4000, "too long"),
        ("x" * 50_000, "does not know: xxx"),
        ("a blue ball \N{BALLOON}", "\N{BALLOON}"),
        ("\N{BALLOON}\N{ROCKET}", "knows no word"),
        ("كرة زرقاء في مرج", "knows no word"),
        ("\u202ea blue ball\u202c", ""),
        ("Zauberwort", "knows no word"),
        ("a blue ball \udce9", ""),  # of a command line in another encoding
        ("a\0ball", ""),
    ],
)
def test_odd_prompts_are_edited_and_warned_of(prompt: str, warning: str, embedded: AdaFlow) -> None:
    frames = film(2, 64, 64)
    plan = embedded.plan(frames, PlanConfig(keyframes=1, prune=0.5))
    result = embedded.edit(plan, prompt, EditConfig(steps=1, detail=0.0))
    told = " ".join(result.warnings)
    assert result.frames.shape == frames.shape and warning in told and len(told) < 1500
    assert bool(told) == bool(warning)


# --- settings in JSON -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ('{"plan": {"prune": NaN}}', "prune is nan"),
        ('{"plan": {"prune": Infinity}}', "prune is inf"),
        ('{"plan": {"prune": 1e999}}', "prune is inf"),
        ('{"plan": {"prune": -0.1}}', "between 0 and 1"),
        ('{"plan": {"keyframes": 2.5}}', "whole number"),
        ('{"plan": {"max_segment": 0}}', "max_segment"),
        ('{"plan": {"scales": 4}}', "a list"),
        ('{"plan": {"scales": [3]}}', "scales"),
        ('{"plan": {"scales": [[1]]}}', "scales"),
        ('{"plan": {"blend": "yes"}}', "true or false"),
        ('{"plan": {"source_prompt": 5}}', "a text"),
        ('{"plan": {"method": ["joint"]}}', "method"),
        ('{"edit": {"steps": 0}}', "steps"),
        ('{"edit": {"steps": true}}', "steps"),
        ('{"edit": {"steps": "20"}}', "steps"),
        ('{"edit": {"guidance": NaN}}', "guidance is nan"),
        ('{"edit": {"seed": -1}}', "seed"),
        ('{"edit": {"seed": 1e30}}', "seed"),
        ('{"edit": {"negative_prompt": []}}', "a text"),
        ('{"edit": {"detail": null}}', "detail"),
        ('{"edit": {"colour": 1}}', "colour"),
        ('{"edit": 5}', "edit"),
        ("[]", "report"),
        ("{}", "report"),
        ("", "report"),
        ("\0", "report"),
        ("[" * 100_000, "report"),
        ('{"edit": {"seed": ' + "9" * 10_000 + "}}", "report"),
    ],
)
def test_bad_settings_are_named(settings: str, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "settings.json"
    path.write_text(settings)
    out = tmp_path / "edit.mp4"
    assert main(["edit", str(CLIP), "--prompt", "a ball", "--settings", str(path), "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("adaflow: error: ") and part in told and told.count("\n") == 1 and len(told) < 500


def test_settings_that_are_not_there_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(CLIP), "--settings", str(tmp_path / "no.json"), "--out", str(tmp_path / "plan")]) == 2
    assert "check the path" in capsys.readouterr().err


@pytest.mark.thorough
@needs_embedded
def test_a_reports_settings_repeat_the_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAFLOW_CACHE", str(tmp_path / "cache"))
    clip = make(tmp_path / "a.mp4", 3, size=(64, 64))
    shared = [str(clip), "--prompt", "a ball", "--size", "64x64", "--device", "cpu"]
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    flags = ["--steps", "2", "--seed", "7", "--keyframes", "2", "--prune", "0.5", "--source-prompt", "a car"]
    assert main(["edit", *shared, *flags, "--report", str(first), "--out", str(tmp_path / "1.mp4")]) == 0
    again = ["--settings", str(first), "--report", str(second), "--out", str(tmp_path / "2.mp4")]
    assert main(["edit", *shared, *again]) == 0
    settings = [json.loads(path.read_text())["settings"] for path in (first, second)]
    assert settings[0] == settings[1] and settings[0]["plan"]["source_prompt"] == "a car"
    assert (tmp_path / "1.mp4").read_bytes() == (tmp_path / "2.mp4").read_bytes()
