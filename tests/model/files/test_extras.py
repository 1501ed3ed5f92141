"""LoRAs, another autoencoder and textual inversions do what diffusers' pipeline does with them."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.files.extras import fuse_lora
from adaflow_core.model.files.parts import ModelParts
from adaflow_core.model.files.single import load_single
from adaflow_core.model.loading import load_backbone, quiet
from helpers.models.originals import narrow, save_lora, save_single

pipeline = cache(narrow)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_single(pipeline(False), tmp_path_factory.mktemp("single") / "model.safetensors"))


@pytest.fixture(scope="module")
def loaded(model: str) -> Any:
    with quiet():
        return load_single(Path(model), torch.float32)


def fuse(loaded: Any, name: Path | str) -> None:
    """What loading a model with this LoRA does after the model itself, which takes most of the time."""
    with quiet():
        fuse_lora(deepcopy(loaded), str(name))


def load(model: str, **parts: Any) -> Backbone:
    return load_backbone(ModelParts(model, **parts), device="cpu", dtype="float32")


def weights(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": tensor
        for part in ("unet", "text_encoder")
        for name, tensor in getattr(backbone, part).named_parameters()
    }


def test_loras_are_added_to_the_weights_by_their_own(model: str, tmp_path: Path) -> None:
    kohya = save_lora(pipeline(False), tmp_path / "kohya.safetensors", kohya=True, seed=1)
    other = save_lora(pipeline(False), tmp_path / "other.safetensors", kohya=False, seed=2)
    plain = load(model)
    files = (f"{tmp_path / 'kohya.safetensors'}=0.8", f"{tmp_path / 'other.safetensors'}=-0.5")
    fused = load(model, loras=files)
    before, after = weights(plain), weights(fused)
    assert before.keys() == after.keys()
    assert kohya.keys() == other.keys() and any("text_encoder" in name for name in kohya)
    for name, tensor in before.items():
        expected = tensor + 0.8 * kohya[name] - 0.5 * other[name] if name in kohya else tensor
        torch.testing.assert_close(after[name], expected, rtol=1e-5, atol=1e-6)
    assert plain.fingerprint != fused.fingerprint != load(model, loras=files[:1]).fingerprint
    assert fused.name == f"{model} --lora={files[0]} --lora={files[1]}"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("narrow.safetensors", "does not fit this checkpoint"),
        ("empty.safetensors", "no LoRA that can be fused"),
        ("elsewhere.safetensors", "changes nothing"),
        ("loha.safetensors", "is a LoHa or LoKr, which cannot be fused"),
        ("absent.safetensors", "is not there"),
        ("narrow.safetensors=much", "FILE=0.8"),
    ],
)
def test_a_lora_that_does_not_fit_is_named(name: str, said: str, loaded: Any, tmp_path: Path) -> None:
    key = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    pair = {f"{key}.lora_A.weight": torch.ones(2, 7), f"{key}.lora_B.weight": torch.ones(7, 2)}
    save_file(pair, tmp_path / "narrow.safetensors")
    save_file({"weight": torch.ones(2)}, tmp_path / "empty.safetensors")
    save_file({"lora_unet_mid_block.hada_w1_a": torch.ones(2)}, tmp_path / "loha.safetensors")
    save_file({k.replace("unet.", "transformer."): v for k, v in pair.items()}, tmp_path / "elsewhere.safetensors")
    with pytest.raises(AdaFlowError, match=said):
        fuse(loaded, tmp_path / name)


@pytest.mark.parametrize("kohya", [True, False])
def test_a_lora_of_some_layers_of_the_text_encoder_alone_is_added(kohya: bool, model: str, tmp_path: Path) -> None:
    added = save_lora(pipeline(False), tmp_path / "whole.safetensors", kohya=kohya)
    text = {
        key: tensor
        for key, tensor in load_file(tmp_path / "whole.safetensors").items()
        if "q_proj" in key and key.startswith(("lora_te_", "text_encoder."))
    }
    save_file(text, tmp_path / "text.safetensors")
    before, after = weights(load(model)), weights(load(model, loras=(str(tmp_path / "text.safetensors"),)))
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed == {name for name in added if "q_proj" in name} and len(changed) == 2
    for name in changed:
        torch.testing.assert_close(after[name], before[name] + added[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("kohya", [True, False])
def test_a_lora_without_half_of_a_layer_is_damaged(kohya: bool, half: int, loaded: Any, tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    save_lora(pipeline(False), path, kohya=kohya)
    tensors = load_file(path)
    lost = sorted(key for key in tensors if "attn1" in key and ("lora_down", "lora_A", "lora_up", "lora_B")[
        2 * half + (not kohya)] in key)[0]  # fmt: skip
    save_file({key: tensor for key, tensor in tensors.items() if key != lost}, path)
    with pytest.raises(AdaFlowError, match=f"lacks {lost}; it is damaged: fetch it again"):
        fuse(loaded, path)


@pytest.mark.parametrize(
    ("kohya", "layer"),
    [
        (True, "lora_te2_text_model_encoder_layers_0_self_attn_q_proj.lora_"),  # Stable Diffusion XL's second encoder
        (True, "lora_unet_down_blocks_0_attentions_0_transformer_blocks_9_attn1_to_q.lora_"),
        (False, "unet.down_blocks.0.attentions.0.transformer_blocks.9.attn1.to_q.lora_"),
        (False, "text_encoder.text_model.encoder.layers.77.self_attn.q_proj.lora_"),
        (False, "transformer.blocks.0.attn1.to_q.lora_"),
    ],
)
def test_a_lora_of_layers_that_the_model_lacks_is_refused(kohya: bool, layer: str, loaded: Any, tmp_path: Path) -> None:
    path = tmp_path / "lora.safetensors"
    save_lora(pipeline(False), path, kohya=kohya)
    down, up = ("down", "up") if kohya else ("A", "B")
    more = {f"{layer}{down}.weight": torch.randn(2, 32), f"{layer}{up}.weight": torch.randn(32, 2)}
    save_file(load_file(path) | more, path)
    with pytest.raises(AdaFlowError, match=rf"has no layer for {layer}{min(down, up)}\.weight and 1 more; choose one"):
        fuse(loaded, path)


def test_another_autoencoder_from_a_folder_or_a_file(model: str, tmp_path: Path) -> None:
    other = narrow(True, tmp_path / "folder")
    save_file(
        {k.removeprefix("first_stage_model."): v.contiguous() for k, v in saved_vae(other, tmp_path).items()},
        tmp_path / "vae.safetensors",
    )
    for place in ("folder", "vae.safetensors"):
        found = load(model, vae=str(tmp_path / place)).vae.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in other.vae.state_dict().items())
    with pytest.raises(AdaFlowError, match="no autoencoder"):
        load(model, vae=str(tmp_path / "folder/unet"))


def test_an_autoencoder_of_stable_diffusion_xl_is_refused(model: str, tmp_path: Path) -> None:
    pipeline(False).vae.save_pretrained(tmp_path / "vae")
    config = tmp_path / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"scaling_factor": 0.13025}))
    for name in ("vae", "vae/diffusion_pytorch_model.safetensors"):
        with pytest.raises(AdaFlowError, match=r"an autoencoder of Stable Diffusion XL .*; choose"):
            load(model, vae=str(tmp_path / name))
    whole = {
        "conditioner.embedders.0.transformer.x": torch.zeros(1),
        "first_stage_model.encoder.down.x": torch.zeros(1),
    }
    save_file(whole, tmp_path / "xl.safetensors")
    with pytest.raises(AdaFlowError, match="is Stable Diffusion XL; choose"):
        load(model, vae=str(tmp_path / "xl.safetensors"))


@pytest.mark.thorough
def test_another_autoencoder_from_one_file_of_a_folder_in_diffusers_format(model: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder/vae"
    narrow(True, folder.parent)
    usual = folder / "diffusion_pytorch_model.safetensors"
    weights = load_file(usual)
    old_names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    older = {}
    for key, tensor in weights.items():
        name = next((key.replace(f".{new}.", f".{old}.") for new, old in old_names.items() if f".{new}." in key), key)
        older[name] = 1.5 * tensor
    assert older.keys() != weights.keys()
    save_file(older, folder / "older.safetensors")
    settings = json.loads((folder / "config.json").read_text()) | {"scaling_factor": 0.25}
    (folder / "config.json").write_text(json.dumps(settings))
    for file, factor in ((usual, 1.0), (folder / "older.safetensors", 1.5)):
        vae = load(model, vae=str(file)).vae
        assert vae.config.scaling_factor == 0.25
        assert all(torch.equal(vae.state_dict()[name], factor * tensor) for name, tensor in weights.items())
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(usual.read_bytes())
    with pytest.raises(AdaFlowError, match=r"without its config\.json; put that beside it"):
        load(model, vae=str(alone))
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    with pytest.raises(AdaFlowError, match=r"config\.json of a UNet2DConditionModel beside it"):
        load(model, vae=str(alone))
    with pytest.raises(AdaFlowError, match="no autoencoder of Stable Diffusion; choose another --vae"):
        load(model, vae=str(folder.parent / "unet" / usual.name))


def saved_vae(pipe: Any, folder: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(save_single(pipe, folder / "whole.safetensors"))
    return {name: tensor for name, tensor in tensors.items() if name.startswith("first_stage_model.")}


@pytest.mark.thorough
def test_a_learned_word_is_what_diffusers_makes_of_it(model: str, tmp_path: Path) -> None:
    several = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    save_file({"emb_params": several}, tmp_path / "zwog.safetensors")
    save_file({"<dot>": several[0]}, tmp_path / "dot.safetensors")
    files = (f"{tmp_path / 'zwog.safetensors'}", f"{tmp_path / 'dot.safetensors'}")
    backbone = load(model, embeddings=files)
    reference = narrow(False)
    reference.load_textual_inversion(several, token="zwog")
    reference.load_textual_inversion(several[0], token="<dot>")
    for prompt in ("a photo of zwog, in snow", "a <dot> beside a zwog", "a cat"):
        expected, _ = reference.encode_prompt(prompt, "cpu", 1, False)
        torch.testing.assert_close(backbone.embed(prompt).prompt_embeds, expected)
    assert backbone.embed("a zwog").unknown == ()
    save_file({"emb_params": several.flip(0)}, tmp_path / "zwog.safetensors")
    assert load(model, embeddings=files).fingerprint != backbone.fingerprint
    named = load(model, embeddings=(f"{tmp_path / 'zwog.safetensors'}=gadgetoo",))
    assert "gadgetoo_2" in named.tokenizer.added_tokens_encoder


def test_learned_words_may_end_in_one_another_and_hold_any_sign(model: str, tmp_path: Path) -> None:
    save_file({"emb_params": torch.randn(3, 64)}, tmp_path / "negative.safetensors")
    save_file({"emb_params": torch.randn(2, 64)}, tmp_path / "easy.safetensors")
    files = ("negative.safetensors", "easy.safetensors=easy-negative", r"easy.safetensors=a\d")
    backbone = load(model, embeddings=tuple(f"{tmp_path / file}" for file in files))
    assert backbone._spell_out(r"easy-negative, negative ball a\d") == (
        r"easy-negative easy-negative_1, negative negative_1 negative_2 ball a\d a\d_1"
    )
    assert backbone.embed("easy-negative").text == "easy-negative"


def test_a_learned_word_that_does_not_fit_is_named(model: str, tmp_path: Path) -> None:
    save_file({"emb_params": torch.ones(2, 32)}, tmp_path / "zwog.safetensors")
    with pytest.raises(AdaFlowError, match="one tensor of width 64"):
        load(model, embeddings=(str(tmp_path / "zwog.safetensors"),))
    save_file({"emb_params": torch.ones(1, 2, 64)}, tmp_path / "zwog.safetensors")
    with pytest.raises(AdaFlowError, match="one tensor of width 64"):
        load(model, embeddings=(str(tmp_path / "zwog.safetensors"),))
    save_file({"emb_params": torch.ones(1, 64)}, tmp_path / "zwog.safetensors")
    with pytest.raises(AdaFlowError, match="known already"):
        load(model, embeddings=(str(tmp_path / "zwog.safetensors"),) * 2)


@pytest.mark.parametrize(
    "parts",
    [
        ModelParts("/my models/a file.safetensors"),
        ModelParts("sd15", ("a b.safetensors=0.8", "c.safetensors"), "vae's", ("x.safetensors=word",)),
    ],
)
def test_the_name_of_a_model_says_what_it_is_made_of(parts: ModelParts) -> None:
    assert ModelParts.parse(str(parts)) == parts


def test_flags_behind_a_name_may_stand_apart() -> None:
    assert ModelParts.parse("sd15 --lora a.safetensors=0.8 --vae v") == ModelParts("sd15", ("a.safetensors=0.8",), "v")
    on_windows = r"sd15 --lora=C:\loras\a.safetensors=0.8 --vae='D:\my vaes\v'"
    assert ModelParts.parse(on_windows) == ModelParts("sd15", (r"C:\loras\a.safetensors=0.8",), r"D:\my vaes\v")
    for text, said in (("sd15 --vae v --what x", "--what"), ("sd15 --lora 'a", "quotation")):
        with pytest.raises(AdaFlowError, match=said):
            ModelParts.parse(text)
