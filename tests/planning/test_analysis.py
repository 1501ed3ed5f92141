"""What plans start from: frames kept by their content, and features that words weigh."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adaflow_core.config import PlanConfig
from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone
from adaflow_core.planning.analysis import source_features, source_video
from adaflow_core.progress import Monitor
from adaflow_core.storage.cache import Cache
from adaflow_core.video.decode import from_frames
from helpers.films import make


def test_a_copy_under_another_name_is_called_by_its_own(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    holiday = make(tmp_path / "holiday.mkv", 3, pixels="yuv420p10le")
    for path in (holiday, Path(shutil.copy(holiday, tmp_path / "copy.mkv")), holiday):
        video = source_video(path, cache, size=64, frame_range=None, fps=24, monitor=Monitor())
        assert video.notes == (f"{path.name} has 10 bits a colour; it comes out with 8",)


@pytest.mark.parametrize("prompt", ["", " ", "\n"])
def test_importance_by_prompt_needs_a_word(
    prompt: str, tiny_backbone: Callable[[str], Backbone], tmp_path: Path
) -> None:
    video, latents = from_frames(np.zeros((2, 64, 64, 3), np.uint8)), np.zeros((2, 4, 8, 8), np.float32)
    config = PlanConfig(source_prompt=prompt, importance="prompt")
    with pytest.raises(AdaFlowError, match="needs a source prompt that says what is in the video"):
        source_features(tiny_backbone("sd1"), video, latents, config, Cache(tmp_path), Monitor())
