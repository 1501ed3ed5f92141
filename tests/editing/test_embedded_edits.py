"""Inversion and back, and what the embedded model makes of its own clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.editing.inversion import invert, load_inversion
from adaflow_core.engine import AdaFlow
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.ddim import CLEAN, ddim_step, edit_timesteps
from adaflow_core.model.loading import EMBEDDED
from adaflow_core.progress import Monitor
from adaflow_core.report.scores import psnr
from adaflow_core.storage.cache import Cache
from helpers.made import shot_of

CLIPS = EMBEDDED.parent / "clips"
SHIPPED = pytest.mark.skipif(not EMBEDDED.exists(), reason="the embedded model is not in assets/")


def reconstruct(backbone: Backbone, latents: torch.Tensor, prompt: str, steps: int, folder: Path) -> torch.Tensor:
    """Inverted, then sampled back under the same prompt."""
    invert(
        backbone, latents.numpy(), prompt,
        steps=steps, inversion_steps=steps, rows=8, folder=folder, monitor=Monitor(),
    )  # fmt: skip
    found = load_inversion(folder, backbone, steps, prompt).latents[0]
    timesteps = [int(t) for t in edit_timesteps(backbone.schedule, steps)]
    states, x = backbone.embed(prompt).prompt_embeds, torch.from_numpy(found.astype(np.float32))
    for here, there in zip(timesteps, [*timesteps[1:], CLEAN], strict=True):
        x = ddim_step(backbone.schedule, x, backbone.predict(x, here, states), here, there)
    return x


@pytest.mark.parametrize(
    ("layout", "few", "many"),
    [
        pytest.param("sd1", 10, 80, marks=pytest.mark.thorough),
        pytest.param("sd2", 10, 40, marks=pytest.mark.thorough),
        ("v", 2, 10),
    ],
)
def test_inversion_and_back_comes_closer_with_smaller_steps(
    tiny_backbone: Callable[[str], Backbone], drawn_frames: np.ndarray, tmp_path: Path, layout: str, few: int, many: int
) -> None:
    backbone = tiny_backbone(layout)
    latents = backbone.encode(drawn_frames[:1])
    errors = []
    for steps in (few, many):
        folder = tmp_path / str(steps)
        folder.mkdir()
        found = reconstruct(backbone, latents, "a red ball", steps, folder)
        errors.append((found - latents).square().mean().sqrt().item())
    assert errors[1] < 0.7 * errors[0], errors


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> AdaFlow:
    return AdaFlow.from_pretrained("embedded", device="cpu", cache=Cache(tmp_path_factory.mktemp("embedded")))


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, str]:
    """[8, 256, 256, 3] uint8 of a scene that the model was not trained on, and its caption."""
    from scenes.captions import plain
    from scenes.render import render
    from scenes.world import sample

    batch = sample(1, seed=3, split="test", motion="drift")
    rgb = render(batch, torch.linspace(0, 0.5, 8), size=256).rgb[0]
    return (rgb.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy(), plain(batch)[0]


@SHIPPED
@torch.inference_mode()
def test_the_embedded_model_reconstructs_its_source(
    embedded: AdaFlow, scene: tuple[np.ndarray, str], tmp_path: Path
) -> None:
    frames, caption = scene
    backbone = embedded.backbone
    latents = backbone.encode(frames[::8])
    found = reconstruct(backbone, latents, caption, backbone.profile.steps, tmp_path)
    value = psnr(backbone.decode(latents), backbone.decode(found))
    print(f"inversion and back, {backbone.profile.steps} steps: {value:.1f} dB to the autoencoded source")
    assert value > 25


@SHIPPED
def test_the_embedded_model_edits_a_drawn_clip(embedded: AdaFlow, scene: tuple[np.ndarray, str]) -> None:
    frames, caption = scene
    frames = frames[::4, ::2, ::2]
    plan = embedded.plan(frames, PlanConfig(keyframes=1, source_prompt=caption))
    result = embedded.edit(plan, f"{caption}, watercolour", EditConfig(steps=4))
    assert result.frames.shape == frames.shape and result.warnings == ()
    # It stays the same scene, and it changes.
    assert 10 < psnr(frames, result.frames) < 35


@SHIPPED
def test_the_embedded_model_keeps_the_light_of_what_it_recolours(embedded: AdaFlow) -> None:
    """Held to the edit's place, a ball without its source's coarse light turned white."""
    part: dict[str, Any] = {"frames": slice(5, 7), "size": (128, 128)}
    plan = embedded.plan(CLIPS / "ball.mp4", PlanConfig(keyframes=1, source_prompt="a red ball in a meadow"), **part)
    found = embedded.edit(plan, "a blue ball in a meadow", EditConfig(focus=1.0)).frames
    source = np.asarray(plan.video.frames)
    ball = (source[..., 0] > 150) & (source[..., 1] < 80)
    red, _, blue = found[ball].astype(float).mean(axis=0)
    assert ball.mean() > 0.02 and blue > red + 50


@SHIPPED
def test_nothing_corresponds_across_a_cut(embedded: AdaFlow) -> None:
    part: dict[str, Any] = {"frames": slice(16, 32), "size": (128, 128)}
    source = np.asarray(embedded.plan(CLIPS / "duck.mp4", PlanConfig(), **part).video.frames)
    cut = 1 + int(np.abs(np.diff(source.astype(np.int16), axis=0)).mean(axis=(1, 2, 3)).argmax())
    for config in (PlanConfig(keyframes=2), PlanConfig(keyframes=1), PlanConfig(keyframes=4), PlanConfig()):
        plan = embedded.plan(CLIPS / "duck.mp4", config, **part)
        segments = plan.segments
        assert segments.cuts.tolist() == [cut] and cut in segments.starts
        shots = shot_of(segments, np.arange(16))
        for slots in plan.layout.correspondence.slots.T:
            assert (shot_of(segments, segments.keyframes[slots]) == shots).all()
    notes = embedded.plan(CLIPS / "duck.mp4", PlanConfig(keyframes=1), **part).notes
    assert "2 shots need one each" in " ".join(notes)


@pytest.mark.thorough
@SHIPPED
def test_even_distances_are_said(embedded: AdaFlow) -> None:
    even = embedded.plan(CLIPS / "ball.mp4", PlanConfig(keyframes=4), size=(128, 128))
    assert np.ptp(np.diff(even.segments.keyframes)) <= 1 and "even distances" in " ".join(even.notes)
    uneven = embedded.plan(CLIPS / "burst.mp4", PlanConfig(keyframes=4), size=(128, 128))
    assert np.ptp(np.diff(uneven.segments.keyframes)) > 1 and not uneven.notes
