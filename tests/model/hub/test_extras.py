"""What is added to a checkpoint, by its name on the Hub: one file is fetched, once, and which one is never guessed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone
from adaflow_core.model.files.parts import ModelParts
from adaflow_core.model.hub import client
from adaflow_core.model.hub.client import hub_file, is_file_id
from adaflow_core.model.loading import load_backbone
from helpers.hub import COMMIT, PULL_REQUEST, Hub, serve_hub
from helpers.models.originals import narrow, save_lora

LORA = "pytorch_lora_weights.safetensors"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(client, "PATIENCE", (0.01,))
    monkeypatch.setattr(client, "TIMEOUT", 1.0)
    with serve_hub(tmp_path / "home") as served:
        yield served


def repository(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".safetensors"):
            save_file({"weight": torch.full((4,), float(number))}, folder / name)
        else:
            (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("someone/pixel", True), ("someone/pixel@main", True), ("someone/pixel/style.safetensors", True),
        (f"someone/pixel@{COMMIT}/more/style.safetensors", True), ("someone/pixel@refs/pr/3", True),
        ("someone/pixel@refs/pr/3/more/style.safetensors", True), ("loras/pixel.safetensors", False),
        ("/loras/pixel", False), ("pixel", False), ("../loras/pixel", False),
    ],
)  # fmt: skip
def test_an_id_reads_unlike_a_path(name: str, meant: bool) -> None:
    assert is_file_id(name) == meant


@pytest.mark.parametrize(
    ("names", "asked", "found"),
    [
        ([LORA, "other.safetensors"], "someone/pixel", LORA),
        (["style.safetensors", "README.md"], "someone/pixel", "style.safetensors"),
        (["a.safetensors", "more/b.safetensors"], "someone/pixel@main/more/b.safetensors", "more/b.safetensors"),
        ([LORA, "other.safetensors"], f"someone/pixel@{PULL_REQUEST}", LORA),
        ([LORA, "more/b.safetensors"], f"someone/pixel@{PULL_REQUEST}/more/b.safetensors", "more/b.safetensors"),
    ],
)
def test_the_file_that_is_meant_is_fetched_once(
    names: list[str], asked: str, found: str, hub: Hub, tmp_path: Path
) -> None:
    served = hub.add("someone/pixel", repository(tmp_path / "pixel", *names))
    path = hub_file(asked, (LORA,))
    assert path.read_bytes() == (tmp_path / "pixel" / found).read_bytes() and list(served.sent) == [found]
    served.sent.clear()
    assert hub_file(asked, (LORA,)) == path and not served.sent


def test_what_is_here_needs_no_hub(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = hub.add("someone/pixel", repository(tmp_path / "pixel", LORA))
    pinned = hub_file(f"someone/pixel@{COMMIT}", (LORA,))
    hub_file("someone/pixel", (LORA,))
    served.asked.clear()
    assert hub_file(f"someone/pixel@{COMMIT}", (LORA,)) == pinned and not served.asked
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub_file("someone/pixel", (LORA,)) == pinned and not served.asked


@pytest.mark.parametrize("revision", ["", f"@{COMMIT}"])
def test_an_only_file_with_a_name_of_its_own_needs_no_hub_either(
    revision: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    served = hub.add("someone/pixel", repository(tmp_path / "pixel", "pixel-art.safetensors"))
    path = hub_file(f"someone/pixel{revision}", (LORA,))
    served.asked.clear()
    if revision:
        assert hub_file(f"someone/pixel{revision}", (LORA,)) == path and not served.asked
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub_file(f"someone/pixel{revision}", (LORA,)) == path and not served.asked and not caplog.text


def test_without_the_hub_the_only_file_in_the_cache_is_used_with_a_word(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub.add("someone/pixel", repository(tmp_path / "pixel", "a.safetensors", "more/b.safetensors", LORA))
    path = hub_file(f"someone/pixel@{COMMIT}/more/b.safetensors", (LORA,))
    # While the Hub can be asked, the other that is meant is found.
    assert hub_file(f"someone/pixel@{COMMIT}", (LORA,)).name == LORA
    (path.parents[1] / LORA).unlink()
    hub_file("someone/pixel@main/more/b.safetensors", (LORA,))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("someone/pixel", f"someone/pixel@{COMMIT}"):
        caplog.clear()
        assert hub_file(name, (LORA,)) == path
        assert "someone/pixel: b.safetensors is used, the only file of it in the cache" in caplog.text
    (path.parents[1] / "a.safetensors").write_bytes(path.read_bytes())
    with pytest.raises(AdaFlowError, match="is not complete in the cache, and HF_HUB_OFFLINE is set"):
        hub_file("someone/pixel", (LORA,))


@pytest.mark.parametrize(
    ("names", "asked", "said"),
    [
        (
            ["a.safetensors", "b.safetensors"],
            "someone/pixel",
            r"Name one: someone/pixel/a\.safetensors, someone/pixel/b",
        ),
        (["a.safetensors"], "someone/pixel/c.safetensors", r"Name one: someone/pixel/a\.safetensors"),
        (["learned_embeds.bin"], "someone/pixel", "pickled files can run code and are not read"),
        (["README.md"], "someone/pixel", r"has no \.safetensors file; choose another"),
        ([LORA], "someone/else", "the Hub has no model someone/else, or it is private"),
    ],
)
def test_what_is_not_clear_or_not_there_is_said(
    names: list[str], asked: str, said: str, hub: Hub, tmp_path: Path
) -> None:
    hub.add("someone/pixel", repository(tmp_path / "pixel", *names))
    with pytest.raises(AdaFlowError, match=said):
        hub_file(asked, (LORA,))


@pytest.mark.thorough
def test_a_model_with_parts_from_the_hub_is_that_of_the_same_files(hub: Hub, tmp_path: Path) -> None:
    checkpoint = tmp_path / "model"
    pipe = narrow(False, checkpoint)
    for name in ("pixel", "vae"):
        (tmp_path / name).mkdir()
    save_lora(pipe, tmp_path / "pixel" / LORA, kohya=False, seed=1)
    for file in ("config.json", "diffusion_pytorch_model.safetensors"):
        (tmp_path / "vae" / file).write_bytes((checkpoint / "vae" / file).read_bytes())
    changed = {key: 1.5 * value for key, value in load_file(tmp_path / "vae" / file).items()}
    save_file(changed, tmp_path / "vae" / file)
    settings = json.loads((tmp_path / "vae" / "config.json").read_text()) | {"scaling_factor": 0.25}
    (tmp_path / "vae" / "config.json").write_text(json.dumps(settings))
    for name in ("pixel", "vae"):
        hub.add(f"someone/{name}", tmp_path / name)

    def load(*names: str) -> Backbone:
        parts = ModelParts(str(checkpoint), (f"{names[0]}=0.5",), names[1])
        return load_backbone(parts, device="cpu", dtype="float32")

    there, here = load("someone/pixel", "someone/vae"), load(str(tmp_path / "pixel" / LORA), str(tmp_path / "vae"))
    assert there.fingerprint == here.fingerprint and there.vae.config.scaling_factor == 0.25
    assert there.name == f"{checkpoint} --lora=someone/pixel=0.5 --vae=someone/vae"


@pytest.mark.thorough
def test_the_autoencoder_that_is_named_is_loaded_with_the_configuration_beside_it(hub: Hub, tmp_path: Path) -> None:
    checkpoint = tmp_path / "model"
    narrow(False, checkpoint)
    usual = "diffusion_pytorch_model.safetensors"
    weights = load_file(checkpoint / "vae" / usual)
    (tmp_path / "vae").mkdir()
    for name, factor in ((usual, 1.5), ("diffusion_pytorch_model.fp16.safetensors", 2.0), ("other.safetensors", 3.0)):
        save_file({key: factor * value for key, value in weights.items()}, tmp_path / "vae" / name)
    settings = json.loads((checkpoint / "vae/config.json").read_text()) | {"scaling_factor": 0.25}
    (tmp_path / "vae/config.json").write_text(json.dumps(settings))
    hub.add("someone/vae", tmp_path / "vae")
    # All of them are in the cache in the end, and each is what its name says.
    for _ in range(2):
        for name, factor in (
            ("/other.safetensors", 3.0),
            ("/diffusion_pytorch_model.fp16.safetensors", 2.0),
            ("", 1.5),
        ):
            parts = ModelParts(str(checkpoint), vae=f"someone/vae@{COMMIT}{name}")
            vae = load_backbone(parts, device="cpu", dtype="bfloat16").vae
            assert vae.config.scaling_factor == 0.25
            for key, value in vae.state_dict().items():
                assert torch.equal(value, (factor * weights[key]).bfloat16())
