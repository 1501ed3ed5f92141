"""What plans start from: frames kept by their content, and features that words weigh."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adaflow_core.config import PlanConfig
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone
from adaflow_core.planning import analysis
from adaflow_core.planning.analysis import check_edit_of, source_features, source_video
from adaflow_core.progress import Monitor
from adaflow_core.storage.cache import Cache
from adaflow_core.types import EditResult
from adaflow_core.video.decode import from_frames
from adaflow_core.video.types import Video
from helpers.films import film as drawn
from helpers.films import make


def test_a_copy_under_another_name_is_called_by_its_own(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    holiday = make(tmp_path / "holiday.mkv", 3, pixels="yuv420p10le")
    for path in (holiday, Path(shutil.copy(holiday, tmp_path / "copy.mkv")), holiday):
        video = source_video(path, cache, size=64, usual=64, frame_range=None, fps=24, monitor=Monitor())
        assert video.notes == (f"{path.name} has 10 bits a colour; it comes out with 8",)


def test_frames_that_were_read_in_another_way_are_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = make(tmp_path / "a.mp4", 3), Cache(tmp_path / "cache")
    for version, entries in ((analysis.DECODING, 1), (analysis.DECODING, 1), (analysis.DECODING + 1, 2)):
        monkeypatch.setattr(analysis, "DECODING", version)
        chosen(path, cache)
        assert len(list((tmp_path / "cache/frames").glob("*/frames.npy"))) == entries


def test_a_folder_of_pictures_has_the_rate_that_is_given(tmp_path: Path) -> None:
    folder, cache = tmp_path / "pictures", Cache(tmp_path / "cache")
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (64, 64), (80 * number, 0, 0)).save(folder / f"{number}.png")
    usual, faster, again = (chosen(folder, cache, fps=fps) for fps in (24, 30, 24))
    assert (usual.fps, faster.fps, again.fps) == (24, 30, 24) and faster.times is None
    assert usual.digest == again.digest != faster.digest and faster.seconds(3) == 0.1
    assert chosen(make(tmp_path / "a.mp4", 3), cache, fps=99).fps != 99, "a file has its own"
    with pytest.raises(AdaFlowError, match="fps is 0"):
        chosen(folder, cache, fps=0)


@pytest.mark.parametrize("prompt", ["", " ", "\n"])
def test_importance_by_prompt_needs_a_word(
    prompt: str, tiny_backbone: Callable[[str], Backbone], tmp_path: Path
) -> None:
    video, latents = from_frames(np.zeros((2, 64, 64, 3), np.uint8)), np.zeros((2, 4, 8, 8), np.float32)
    config = PlanConfig(source_prompt=prompt, importance="prompt")
    with pytest.raises(AdaFlowError, match="needs a source prompt that says what is in the video"):
        source_features(tiny_backbone("sd1"), video, latents, config, Cache(tmp_path), Monitor())


def chosen(video: Any, cache: Cache, **asked: Any) -> Video:
    asked = {"size": None, "usual": 64, "frame_range": None, "fps": 24} | asked
    return source_video(video, cache, monitor=Monitor(), **asked)


@pytest.fixture
def film() -> np.ndarray:
    return drawn(6, 128, 96)


def test_size_and_range_hold_for_frames_as_for_files(film: np.ndarray, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    images = [Image.fromarray(frame) for frame in film]
    whole = from_frames(film)
    for given in (film, list(film), images, iter(images), (image for image in images), torch.from_numpy(film), whole):
        video = chosen(given, cache, size=(64, 64), frame_range=slice(2, -1))
        assert video.frames.shape == (3, 64, 64, 3) and video.fps == 24
        assert video.digest == chosen(film[2:5], cache, size=(64, 64)).digest, "named by its content"
    assert chosen(whole, cache) is whole and chosen(film, cache).digest == whole.digest
    assert chosen(film[:, :90, :100], cache, size=64).size == (72, 64), "what is resized may have any size"
    like = np.asarray(images[2].resize((64, 64), Image.Resampling.BICUBIC))
    assert np.abs(video.frames[0].astype(int) - like).mean() < 4
    later = chosen(replace(whole, start=10, source=Path("a.mp4")), cache, frame_range=slice(2, 4))
    assert (later.start, later.source, later.part_of) == (12, Path("a.mp4"), None), "its sound begins later too"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"frame_range": slice(0, 6, 2)}, "without a step"),
        ({"frame_range": slice(0.0, 4.0)}, "whole numbers"),
        ({"frame_range": (0, 4)}, "give the range as a slice"),
        ({"frame_range": slice(9, 12)}, "has the frames 0:6"),
        ({"size": "64x64"}, "give .width, height. in pixels"),
        ({"size": (64.5, 64)}, "give .width, height. in pixels"),
        ({"size": (70, 64)}, "multiples of 8"),
    ],
)
def test_a_wrong_size_or_range_is_told_in_a_sentence(
    film: np.ndarray, tmp_path: Path, asked: dict[str, Any], says: str
) -> None:
    for given in (film, make(tmp_path / "film.mp4", 6, size=(128, 96))):
        with pytest.raises(AdaFlowError, match=says):
            chosen(given, Cache(tmp_path / "cache"), **asked)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Image.new("RGB", (64, 64)), "one picture; give a list"),
        ([Image.new("I;16", (64, 64))], "8 bits"),
        (torch.zeros(2, 3, 64, 64), r"float32 \(2, 3, 64, 64\); give uint8 \[T, H, W, 3\]"),
        ([np.zeros((64, 64, 3))], r"frame 0 of the video is float64"),
        (None, "the video is NoneType; give a path"),
        ([1, 2], "no picture"),
    ],
)
def test_what_is_no_video_is_told_in_a_sentence(given: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(AdaFlowError, match=says):
        chosen(given, Cache(tmp_path))


@pytest.mark.parametrize("fps", [float("nan"), float("inf"), "fast", None, 1e-9, 1e4])
def test_a_rate_is_a_number(fps: Any, film: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(AdaFlowError, match="fps is"):
        chosen(film, Cache(tmp_path), fps=fps)


def test_an_edit_belongs_to_its_video(film: np.ndarray) -> None:
    video, other = from_frames(film), from_frames(255 - film)
    for report in ({}, {"source_digest": video.digest}):
        check_edit_of(video, EditResult.of(video, film, report, ()))
    with pytest.raises(AdaFlowError, match="6 frames of 128x96 and the planned video 5 of 128x96; give the plan"):
        check_edit_of(from_frames(film[:5]), EditResult.of(video, film, {}, ()))
    with pytest.raises(AdaFlowError, match="an edit of another video"):
        check_edit_of(other, EditResult.of(video, film, {"source_digest": video.digest}, ()))
