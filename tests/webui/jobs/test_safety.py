"""The safety checker, on pipelines with random weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.progress import Monitor
from helpers.pipelines import save_checker
from webui.jobs.engines import Engines
from webui.jobs.safety import load_safety_checker


def test_the_safety_checker_agrees_with_its_own_on_single_frames(tiny_folder: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("sd1"), tmp_path / "checked")
    assert load_safety_checker(str(folder), "cpu") is None and load_safety_checker("embedded", "cpu") is None
    frames = np.random.default_rng(0).integers(0, 256, (19, 24, 32, 3), dtype=np.uint8)
    frames[::2] //= 9
    before = frames.copy()
    save_checker(folder, threshold=0.0)
    checker = load_safety_checker(str(folder), "cpu")
    assert checker is not None
    # A threshold between the scores of the frames, so that some are held back.
    with torch.inference_mode():
        pixels = [checker.processor(images=[frame], return_tensors="pt").pixel_values for frame in frames]
        looks = [checker.model.visual_projection(checker.model.vision_model(pixel)[1]) for pixel in pixels]
        scores = torch.cat([torch.cosine_similarity(look, checker.model.concept_embeds).amax()[None] for look in looks])
    save_checker(folder, threshold=float(scores.median()))
    checker = load_safety_checker(str(folder), "cpu")
    expected = [bool(checker.model(clip_input=pixel, images=[np.zeros(1)])[1][0]) for pixel in pixels]
    found = checker.unsafe(frames, Monitor())
    assert found.tolist() == expected and 0 < found.sum() < len(found)
    np.testing.assert_array_equal(frames, before)
    with pytest.raises(Stopped):
        checker.unsafe(frames, Monitor(stop=lambda: True))


def test_a_safety_checker_that_cannot_be_loaded_is_not_passed_over(tiny_folder: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("sd1"), tmp_path / "checked")
    save_checker(folder, threshold=0.0)
    weights = folder / "safety_checker" / "model.safetensors"
    torch.save({}, weights.with_name("pytorch_model.bin"))
    for spoil in (lambda: weights.write_bytes(b"nothing"), weights.unlink):
        spoil()
        with pytest.raises(AdaFlowError, match="safety checker"):
            load_safety_checker(str(folder), "cpu")


def test_at_home_an_edit_is_neither_checked_nor_marked(tiny_folder: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("sd1"), tmp_path / "checked")
    save_checker(folder, -2.0)
    assert Engines("cpu").load(str(folder))[1] is None and Engines("cpu", public=True).load(str(folder))[1] is not None
