"""Images are written once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from webui.served_images import serve_image


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
