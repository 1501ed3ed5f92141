"""The safety checker, on pipelines with random weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.progress import Monitor
from helpers.models.pipelines import save_checker
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


def test_a_safety_checker_in_half_precision_alone_is_loaded(tiny_folder: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("sd1"), tmp_path / "checked")
    save_checker(folder, threshold=0.25)
    whole = load_safety_checker(str(folder), "cpu")
    path = folder / "safety_checker" / "model.safetensors"
    half = {name: tensor.half() for name, tensor in load_file(path).items()}
    path.unlink()
    save_file(half, path.with_name("model.fp16.safetensors"), {"format": "pt"})
    checker = load_safety_checker(str(folder), "cpu")
    assert whole is not None and checker is not None
    for one, other in zip(checker.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other.half().float())
    frames = np.zeros((2, 24, 32, 3), dtype=np.uint8)
    assert checker.unsafe(frames, Monitor()).shape == (2,)


@pytest.mark.parametrize("name", ["concept_embeds", "visual_projection.weight", "vision_model.pre_layrnorm.weight"])
@pytest.mark.parametrize(("value", "said"), [(None, "lacks"), (torch.nan, "is not finite in")])
def test_a_safety_checker_that_lacks_what_it_compares_with_is_refused(
    name: str, value: float | None, said: str, tiny_folder: Any, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_folder("sd1"), tmp_path / "checked")
    save_checker(folder, threshold=0.0)
    path = folder / "safety_checker" / "model.safetensors"
    tensors = load_file(path)
    (key,) = [key for key in tensors if key.endswith(name)]
    spoiled = tensors.pop(key)
    if value is not None:
        tensors[key] = torch.full_like(spoiled, value)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(AdaFlowError, match=f"the safety checker of .* cannot be loaded .*{said} .*complete the chec"):
        load_safety_checker(str(folder), "cpu")


def test_too_little_memory_for_the_check_is_said_in_a_sentence(tiny_folder: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("sd1"), tmp_path / "checked")
    save_checker(folder, threshold=0.0)
    checker = load_safety_checker(str(folder), "cpu")
    assert checker is not None

    def forward(**_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    checker.model.forward = forward
    with pytest.raises(AdaFlowError, match="pass over the frames does not fit the device's free memory; close what"):
        checker.unsafe(np.zeros((2, 24, 32, 3), dtype=np.uint8), Monitor())


def test_at_home_an_edit_is_neither_checked_nor_marked(tiny_folder: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("sd1"), tmp_path / "checked")
    save_checker(folder, -2.0)
    assert Engines("cpu").load(str(folder))[1] is None and Engines("cpu", public=True).load(str(folder))[1] is not None
