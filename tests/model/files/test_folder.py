"""Folders in diffusers' format: which load, and what is said of those that do not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.loading import load_backbone

WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


@pytest.fixture
def copy(tiny_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A folder of SD 1.x's layout that a test may spoil."""
    return Path(shutil.copytree(tiny_folder("sd1"), tmp_path / "model"))


def load(folder: Path, **settings: Any) -> Backbone:
    return load_backbone(str(folder), device="cpu", **{"dtype": "float32"} | settings)


def configure(folder: Path, file: str, **values: Any) -> None:
    path = folder / file
    data = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))


def weights(folder: Path, part: str, **changes: torch.Tensor | None) -> None:
    """Change tensors of a part; None takes them away."""
    path = folder / part / f"{WEIGHTS[part]}.safetensors"
    tensors = load_file(path) | {name: value for name, value in changes.items()}
    save_file({k: v for k, v in tensors.items() if v is not None}, path, metadata={"format": "pt"})


def test_a_folder_with_nothing_but_the_fp16_variant_is_the_same_model(copy: Path, tiny_backbone: Any) -> None:
    for part, stem in WEIGHTS.items():
        (copy / part / f"{stem}.safetensors").rename(copy / part / f"{stem}.fp16.safetensors")
    assert load(copy).fingerprint == tiny_backbone("sd1").fingerprint


def test_shards_in_full_and_in_fp16_are_the_same_model(copy: Path, tiny_backbone: Any) -> None:
    from diffusers import UNet2DConditionModel

    whole = tiny_backbone("sd1").fingerprint
    unet = UNet2DConditionModel.from_pretrained(copy / "unet")
    for variant in (None, "fp16"):
        shutil.rmtree(copy / "unet")
        unet.save_pretrained(copy / "unet", max_shard_size="200KB", variant=variant)
        assert len(list((copy / "unet").glob("*.safetensors"))) > 2
        assert load(copy).fingerprint == whole
    next((copy / "unet").glob("*.safetensors")).unlink()
    with pytest.raises(AdaFlowError, match=r"lacks unet/diffusion_pytorch_model.*incomplete: fetch it again"):
        load(copy)


def test_a_text_encoder_with_clips_projection_is_the_same_model(copy: Path, tiny_backbone: Any) -> None:
    configure(copy, "text_encoder/config.json", architectures=["CLIPTextModelWithProjection"])
    more = {"text_projection.weight": torch.ones(32, 32), "logit_scale": torch.tensor(4.6)}
    weights(copy, "text_encoder", **more)
    assert load(copy).fingerprint == tiny_backbone("sd1").fingerprint


SPOILED: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "inpainting": (lambda f: configure(f, "unet/config.json", in_channels=9), ["an inpainting model", "choose"]),
    "instruction": (lambda f: configure(f, "unet/config.json", in_channels=8), ["an instruction model", "choose"]),
    "XL": (lambda f: configure(f, "unet/config.json", addition_embed_type="text_time"), ["Diffusion XL"]),
    "latents": (lambda f: configure(f, "vae/config.json", latent_channels=16), ["16 channels"]),
    "video": (lambda f: configure(f, "unet/config.json", _class_name="UNet3DConditionModel"), ["video model"]),
    "pipeline": (lambda f: configure(f, "model_index.json", _class_name="FluxPipeline"), ["Flux", "choose"]),
    "transformer": (lambda f: configure(f, "model_index.json", unet=...), ["has no unet"]),
    "sample": (lambda f: configure(f, "scheduler/scheduler_config.json", prediction_type="sample"), ["'sample'"]),
    "flow": (
        lambda f: configure(f, "scheduler/scheduler_config.json", _class_name="FlowMatchEulerDiscreteScheduler"),
        ["flow matching"],
    ),
    "betas": (lambda f: configure(f, "scheduler/scheduler_config.json", beta_schedule="sigmoid"), ["'sigmoid'"]),
    "zero": (lambda f: configure(f, "scheduler/scheduler_config.json", rescale_betas_zero_snr=True), ["pure noise"]),
    "size": (lambda f: configure(f, "unet/config.json", sample_size=None), ["sample_size", "64 for 512"]),
    "width": (lambda f: configure(f, "unet/config.json", cross_attention_dim=64), ["width 32", "takes 64"]),
    "tokenizer": (lambda f: shutil.rmtree(f / "tokenizer"), ["no tokenizer", "tokenizer/"]),
    "words": (lambda f: configure(f, "text_encoder/config.json", vocab_size=8), ["text_encoder"]),
    "json": (lambda f: (f / "unet/config.json").write_text("{"), ["damaged unet/config.json", "fetch that file again"]),
    "profile": (lambda f: (f / "adaflow.json").write_text("{"), ["adaflow.json"]),
    "values": (lambda f: (f / "adaflow.json").write_text('{"steps": "many"}'), ["adaflow.json"]),
    "missing": (lambda f: weights(f, "text_encoder", **{"final_layer_norm.bias": None}), ["lacks final_layer"]),
    "unknown": (lambda f: weights(f, "vae", extra=torch.zeros(1)), ["vae", "unknown extra"]),
    "nan": (lambda f: weights(f, "unet", **{"conv_out.bias": torch.full((4,), torch.nan)}), ["not finite in conv_out"]),
    "pickle": (
        lambda f: (f / "vae/diffusion_pytorch_model.safetensors").rename(f / "vae/diffusion_pytorch_model.bin"),
        ["pickle (vae/diffusion_pytorch_model.bin)"],
    ),
    "half": (lambda f: (f / "unet/diffusion_pytorch_model.safetensors").unlink(), ["no weights in unet/"]),
    "pointer": (
        lambda f: (f / "unet/diffusion_pytorch_model.safetensors").write_text("version https://git-lfs"),
        ["unet/diffusion_pytorch_model.safetensors", "git lfs pull"],
    ),
    "index": (lambda f: (f / "model_index.json").unlink(), ["no model_index.json"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPOILED)
def test_what_does_not_load_is_said_in_one_sentence(kind: str, copy: Path) -> None:
    spoil, said = SPOILED[kind]
    spoil(copy)
    with pytest.raises(AdaFlowError) as problem:
        load(copy)
    for words in said:
        assert words in str(problem.value)
    assert "\n" not in str(problem.value)


def test_a_part_or_a_lora_given_as_a_model_is_named(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(AdaFlowError, match="one part of a checkpoint"):
        load(copy / "unet")
    save_file({"unet.lora_A.weight": torch.zeros(1)}, tmp_path / "pytorch_lora_weights.safetensors")
    with pytest.raises(AdaFlowError, match="is a LoRA; give it with --lora"):
        load(tmp_path)


def test_schedulers_that_say_little_or_are_old_load_without_a_word(
    copy: Path, recwarn: pytest.WarningsRecorder
) -> None:
    config = json.loads((copy / "scheduler/scheduler_config.json").read_text())
    little = {name: config[name] for name in ("beta_start", "beta_end", "beta_schedule")}
    for written in (little | {"_class_name": "EulerDiscreteScheduler"}, config | {"steps_offset": 0}):
        (copy / "scheduler/scheduler_config.json").write_text(json.dumps(written))
        assert load(copy).schedule.offset == 1
    assert not [each for each in recwarn if "scheduler" in str(each.message)]


def test_the_fingerprint_knows_schedule_and_scaling(copy: Path) -> None:
    prints = [load(copy).fingerprint, load(copy).fingerprint]
    for file, values in (
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}),
        ("scheduler/scheduler_config.json", {"beta_end": 0.013}),
        ("scheduler/scheduler_config.json", {"timestep_spacing": "trailing"}),
        ("scheduler/scheduler_config.json", {"set_alpha_to_one": True}),
        ("vae/config.json", {"scaling_factor": 0.5}),
        ("vae/config.json", {"shift_factor": 0.1}),
        ("unet/config.json", {"norm_eps": 1e-3}),
        ("text_encoder/config.json", {"hidden_act": "gelu"}),
    ):
        configure(copy, file, **values)
        prints.append(load(copy).fingerprint)
    weights(copy, "vae", **{"decoder.conv_out.bias": torch.tensor([0.0, 0.1, 0.0])})
    prints.append(load(copy).fingerprint)
    assert prints[0] == prints[1] and len(set(prints)) == len(prints) - 1


def test_latents_have_the_autoencoders_shape_and_scaling(copy: Path) -> None:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    for part, kind, values in (
        ("vae", AutoencoderKL, {"latent_channels": 8, "scaling_factor": 0.4, "shift_factor": 0.2}),
        ("unet", UNet2DConditionModel, {"in_channels": 8, "out_channels": 8}),
    ):
        config = json.loads((copy / part / "config.json").read_text()) | values
        kind.from_config(config).save_pretrained(copy / part)
    backbone = load(copy)
    frames = torch.randint(
        0, 256, (1, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    ).numpy()
    latents = backbone.encode(frames)
    assert latents.shape == (1, 8, 8, 8)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        torch.testing.assert_close(latents, (backbone.vae.encode(pixels).latent_dist.mode() - 0.2) * 0.4)
        levels = (backbone.vae.decode(latents / 0.4 + 0.2).sample + 1) * 127.5
    expected = levels.round().clamp(0, 255).permute(0, 2, 3, 1).numpy()
    assert abs(backbone.decode(latents).astype(float) - expected).max() <= 1
