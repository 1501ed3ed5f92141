"""Images are written once; which videos browsers play."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adaflow_core.video.decode import probe
from helpers.films import make
from webui.served_images import is_playable, serve_image


def test_a_picture_that_is_shown_again_is_not_written_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: serve_image(picture), range(32)))
    (path,) = map(Path, paths)
    before = path.stat()
    assert serve_image(picture) == str(path) and serve_image(255 - picture) != str(path)
    after = path.stat()
    assert before.st_ino == after.st_ino and before.st_ctime_ns < after.st_ctime_ns  # the same file, young again
    assert len(list(path.parent.iterdir())) == 2
    assert np.asarray(Image.open(serve_image(picture, "png"))).tolist() == picture.tolist()


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "played"),
    [
        ("a.mp4", "libx264", "yuv420p", True), ("a.mp4", "libx264", "yuvj420p", True),
        ("a.mp4", "libx264", "yuv420p10le", False), ("a.mp4", "libx264", "yuv422p", False),
        ("a.mp4", "libx264", "yuv444p", False), ("a.webm", "libvpx-vp9", "yuv420p", True),
        ("a.mkv", "libx264", "yuv420p", False),
    ],
)  # fmt: skip
def test_what_browsers_play(name: str, codec: str, pixels: str, played: bool, tmp_path: Path) -> None:
    info = probe(make(tmp_path / name, 2, codec, pixels=pixels, size=(64, 48)))
    assert info.pixels == pixels and is_playable(info) == played
    assert not is_playable(replace(info, path=Path("a.mov")))
