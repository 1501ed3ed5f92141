"""Single files in the original layout give the same model as the folder that they were made of."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.files import single
from adaflow_core.model.files.parts import ModelParts
from adaflow_core.model.files.single import _tried_prediction, clip_tokenizer
from adaflow_core.model.loading import load_backbone
from helpers.models.originals import narrow, save_single

KINDS = [(False, "epsilon"), pytest.param(True, "epsilon", marks=pytest.mark.thorough), (True, "v_prediction")]
pipeline = cache(narrow)


def load(path: Path, **settings: Any) -> Backbone:
    return load_backbone(str(path), device="cpu", dtype="float32", **settings)


@pytest.mark.parametrize(("second", "prediction"), KINDS)
def test_a_single_file_is_the_model_that_it_was_made_of(second: bool, prediction: str, tmp_path: Path) -> None:
    pipe = narrow(second, tmp_path / "folder", prediction)
    marks = {"modelspec.prediction_type": "epsilon"} if second and prediction == "epsilon" else {}
    whole = load(tmp_path / "folder")
    found = load(save_single(pipe, tmp_path / "model.safetensors", **marks))
    assert found.schedule.prediction == whole.schedule.prediction == prediction
    assert found.profile == whole.profile and found.profile.size == (768 if prediction == "v_prediction" else 512)
    assert torch.equal(found.schedule.alphas_cumprod, whole.schedule.alphas_cumprod)
    states = whole.embed("a photo of a cat").prompt_embeds
    assert torch.equal(found.embed("a photo of a cat").prompt_embeds, states)
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(found.predict(latents, 500, states), whole.predict(latents, 500, states))
    for part in ("unet", "vae", "text_encoder"):
        pairs = zip(getattr(found, part).parameters(), getattr(whole, part).parameters(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
    assert found.fingerprint == whole.fingerprint


@pytest.mark.parametrize(
    ("extra", "beside", "prediction", "spacing"),
    [
        ({"global_step": torch.tensor(875_000)}, "", "epsilon", "leading"),
        ({"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, "", "v_prediction", "trailing"),
        ({}, 'params:\n  parameterization: "v"\n  zsnr: true\n', "v_prediction", "trailing"),
    ],
)
def test_what_a_file_says_of_its_schedule(
    extra: dict[str, torch.Tensor], beside: str, prediction: str, spacing: str, tmp_path: Path
) -> None:
    second = "global_step" in extra
    path = save_single(pipeline(second), tmp_path / "model.safetensors", extra)
    if beside:
        path.with_suffix(".yaml").write_text(beside)
    schedule = load(path).schedule
    assert (schedule.prediction, schedule.spacing) == (prediction, spacing)
    assert (schedule.alphas_cumprod[-1] == 0) == (spacing == "trailing")


@pytest.mark.parametrize(("extra", "beside"), [({"ztsnr": torch.zeros(0)}, ""), ({}, "params:\n  zsnr: true\n")])
def test_epsilon_on_a_schedule_that_ends_in_pure_noise_is_refused(
    extra: dict[str, torch.Tensor], beside: str, tmp_path: Path
) -> None:
    path = save_single(pipeline(False), tmp_path / "model.safetensors", extra)
    if beside:
        path.with_suffix(".yaml").write_text(beside)
    with pytest.raises(AdaFlowError, match=r"ends in pure noise, .* say so in a \.yaml of the same name"):
        load(path)
    path.with_suffix(".yaml").write_text(f'{beside}  parameterization: "v"\n')
    assert load(path).schedule.prediction == "v_prediction"


def test_what_clip_has_beside_its_text_encoder_is_left_out(tmp_path: Path) -> None:
    pipe, text = pipeline(False), "cond_stage_model.transformer."
    extra = {f"{text}text_projection.weight": torch.ones(64, 64), f"{text}logit_scale": torch.tensor(4.6)}
    plain = load(save_single(pipe, tmp_path / "plain.safetensors"))
    assert load(save_single(pipe, tmp_path / "more.safetensors", extra)).fingerprint == plain.fingerprint


def test_a_file_without_an_autoencoder_takes_one_that_is_named(tmp_path: Path) -> None:
    pipe = narrow(False, tmp_path / "folder")
    whole = save_single(pipe, tmp_path / "whole.safetensors")
    tensors = load_file(whole)
    bare = tmp_path / "bare.safetensors"
    save_file({name: value for name, value in tensors.items() if not name.startswith("first_stage_model.")}, bare)
    with pytest.raises(AdaFlowError, match="holds no autoencoder; give one with --vae"):
        load(bare)
    parts = ModelParts(str(bare), vae=str(tmp_path / "folder" / "vae"))
    named = load_backbone(parts, device="cpu", dtype="float32")
    assert named.fingerprint == load(whole).fingerprint and named.profile.size == 512
    changed(bare, **{"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(32, 9, 3, 3)})
    with pytest.raises(AdaFlowError, match="is an inpainting model"):
        load_backbone(parts, device="cpu", dtype="float32")


@pytest.mark.parametrize(("channels", "said"), [(9, "an inpainting model"), (5, "a depth-to-image model")])
def test_the_kind_is_known_before_weights_are_read(
    channels: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_single(pipeline(False), tmp_path / "model.safetensors")
    changed(path, **{"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(32, channels, 3, 3)})

    def read(*_: Any) -> None:
        raise AssertionError("weights are read")

    monkeypatch.setattr(single, "read_tensors", read)
    monkeypatch.setattr(single, "fill", read)
    with pytest.raises(AdaFlowError, match=said):
        load(path)


def test_a_trained_epsilon_model_is_known_by_what_it_returns_for_noise() -> None:
    from diffusers import StableDiffusionPipeline

    from adaflow_core.model.loading import EMBEDDED

    pipe = StableDiffusionPipeline.from_pretrained(EMBEDDED, safety_checker=None)
    assert _tried_prediction(pipe) == "epsilon"
    whole = pipe.unet.forward

    def velocity(noisy: torch.Tensor, timestep: int, states: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        """What the same model would return if it predicted v."""
        alpha = pipe.scheduler.alphas_cumprod[timestep]
        epsilon = whole(noisy, timestep, states, return_dict=False)[0]
        clean = (noisy - (1 - alpha) ** 0.5 * epsilon) / alpha**0.5
        return (alpha**0.5 * epsilon - (1 - alpha) ** 0.5 * clean,)

    pipe.unet.forward = velocity
    assert _tried_prediction(pipe) == "v_prediction"


def test_the_tokenizer_is_clips() -> None:
    # As published with CLIP's and Stable Diffusion 1.5's own tokenizer.
    assert clip_tokenizer()("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    padded = clip_tokenizer("!")("a cat", padding="max_length").input_ids
    assert len(padded) == 77 and padded[:6] == [49406, 320, 2368, 49407, 0, 0]


def changed(path: Path, **changes: torch.Tensor | None) -> None:
    tensors = load_file(path) | {k.replace("__", "."): v for k, v in changes.items()}
    save_file({k: v for k, v in tensors.items() if v is not None}, path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(32, 9, 3, 3)}, ["an inpainting model"]),
        ({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(32, 8, 3, 3)}, ["an instruction model"]),
        ({"conditioner.embedders.1.model.ln_final.bias": torch.zeros(4)}, ["Stable Diffusion XL"]),
        ({"model.diffusion_model.label_emb.0.0.weight": torch.zeros(4)}, ["takes more than a prompt, as unCLIP's"]),
        ({"model.diffusion_model.motion_modules.0.weight": torch.zeros(4)}, ["a video model"]),
        ({"model.diffusion_model.out.2.bias": None}, ["unet", "lacks conv_out.bias"]),
        ({"first_stage_model.decoder.conv_out.weight": None}, ["vae", "lacks decoder.conv_out.weight"]),
        ({"model.diffusion_model.out.2.bias": torch.full((4,), torch.nan)}, ["unet", "not finite", "conv_out.bias"]),
        ({"cond_stage_model.transformer.text_model.final_layer_norm.bias": None}, ["text_encoder", "final_layer_norm"]),
        ({"model.diffusion_model.out.2.weight": torch.zeros(4, 32, 1, 1)}, ["does not fit", "conv_out.weight"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_file_that_is_no_such_model_is_named(
    changes: dict[str, torch.Tensor | None], said: list[str], tmp_path: Path
) -> None:
    path = save_single(pipeline(False), tmp_path / "model.safetensors")
    changed(path, **changes)
    with pytest.raises(AdaFlowError) as problem:
        load(path)
    for words in [*said, str(path)]:
        assert words in str(problem.value)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"], "--lora"),
        (["emb_params"], "--embedding"),
        (["decoder.conv_in.weight", "encoder.conv_in.weight"], "--vae"),
        (["double_blocks.0.img_attn.qkv.weight"], "Flux"),
        (["model.diffusion_model.joint_blocks.0.x_block.mlp.fc1.weight"], "Stable Diffusion 3"),
        (["blocks.0.self_attn.norm_k.weight"], "a video model"),
        (["down_blocks.0.resnets.0.conv1.weight"], "the folder of the whole"),
        (["something.weight"], "no checkpoint of Stable Diffusion"),
    ],
)
def test_another_kind_of_file_is_named_with_what_to_do(names: list[str], said: str, tmp_path: Path) -> None:
    save_file({name: torch.zeros(2, 2) for name in names}, tmp_path / "other.safetensors")
    with pytest.raises(AdaFlowError, match=said):
        load(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n", "git lfs pull"),
        ("m.ckpt", b"PK\x03\x04 and so on", "pickle"),
        ("m.safetensors", b"PK\x03\x04 and so on", "pickle"),
        ("m.safetensors", b"<!doctype html> a page of an error", "damaged"),
        ("m.safetensors", b"", "damaged"),
    ],
)
def test_a_file_that_is_no_file_of_weights_is_named(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AdaFlowError, match=said) as problem:
        load(tmp_path / name)
    assert name in str(problem.value)


def test_half_a_download_is_named(tmp_path: Path) -> None:
    path = save_single(pipeline(False), tmp_path / "model.safetensors")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(AdaFlowError, match=r"model\.safetensors holds .* incomplete; fetch it again"):
        load(path)
