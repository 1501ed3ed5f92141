"""Models from the Hub: what is fetched, how a download goes on, and what is said when it fails.

The Hub's own client runs, in the process that fetches, against a small Hub on this machine.
"""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
import torch
from safetensors.torch import load_file, save_file

from adaflow_core.cli.main import main
from adaflow_core.errors import AdaFlowError, Stopped
from adaflow_core.model.hub import client, worker
from adaflow_core.model.hub.client import SHORT_NAMES, hub_folder
from adaflow_core.model.hub.failures import explain
from adaflow_core.model.loading import EMBEDDED, load_backbone
from adaflow_core.progress import Monitor, Progress
from helpers.hub import COMMIT, Hub, digest, save_repository, serve_hub

NAME = "someone/model"
UNET = "unet/diffusion_pytorch_model.safetensors"
WEIGHTS = (UNET, "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(client, "PATIENCE", (0.01, 0.01))
    monkeypatch.setattr(client, "TIMEOUT", 1.0)
    with serve_hub(tmp_path / "home") as served:
        yield served


@pytest.fixture(scope="session")
def repository(tiny_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_repository(tiny_folder("sd1"), tmp_path_factory.mktemp("repository") / "model")


def fetched(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- what is fetched ---------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [False, True])
def test_only_what_is_needed_is_fetched_and_only_once(hub: Hub, repository: Path, half: bool) -> None:
    served = hub.add(NAME, repository)
    folder = hub_folder(NAME, half=half)
    names = fetched(folder)
    assert {name for name in names if name.endswith((".safetensors", ".bin", ".ckpt"))} == set(served.sent)
    assert set(served.sent) == {name.replace(".safetensors", ".fp16.safetensors") if half else name for name in WEIGHTS}
    assert {"model_index.json", "adaflow.json", "scheduler/scheduler_config.json", "unet/config.json"} <= names
    assert "README.md" not in names
    served.sent.clear()
    assert hub_folder(NAME, half=half) == folder
    assert not served.sent


def test_a_pinned_model_that_is_here_needs_no_hub(hub: Hub, repository: Path) -> None:
    served = hub.add(NAME, repository)
    folder = hub_folder(f"{NAME}@{COMMIT}")
    served.asked.clear()
    assert hub_folder(f"{NAME}@{COMMIT}") == folder
    assert not served.asked


def test_what_is_here_in_full_precision_is_not_fetched_in_half(hub: Hub, repository: Path) -> None:
    served = hub.add(NAME, repository)
    folder = hub_folder(NAME)
    served.sent.clear()
    assert hub_folder(NAME, half=True) == folder
    assert not served.sent


def test_a_sharded_model_in_one_precision_is_fetched_in_it(hub: Hub, repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(repository, folder, ignore=shutil.ignore_patterns("*.fp16.*", "*non_ema*"))
    weights = load_file(folder / UNET)
    (folder / UNET).unlink()
    names = [f"diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    keys = [sorted(weights)[::2], sorted(weights)[1::2]]
    for name, part in zip(names, keys, strict=True):
        save_file({key: weights[key] for key in part}, folder / "unet" / name, {"format": "pt"})
    where = {key: name for name, part in zip(names, keys, strict=True) for key in part}
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": where}))
    hub.add(NAME, folder)
    for half in (True, False):
        here = hub_folder(NAME, half=half)
        assert {path.name for path in (here / "unet").iterdir()} == {*names, index.name, "config.json"}


def test_a_model_is_loaded_as_from_its_folder(hub: Hub, repository: Path) -> None:
    hub.add(NAME, repository)
    here = load_backbone(str(repository), device="cpu", dtype="bfloat16")
    there = load_backbone(NAME, device="cpu", dtype="bfloat16")
    assert there.profile.size == 128
    for a, b in zip(here.unet.parameters(), there.unet.parameters(), strict=True):
        assert torch.equal(a, b)


def test_configurations_are_looked_at_before_weights_are_fetched(hub: Hub, repository: Path) -> None:
    served = hub.add(NAME, repository)

    def refuse(folder: Path) -> None:
        assert json.loads((folder / "unet" / "config.json").read_text())["in_channels"] == 4
        assert not list(folder.glob("*/*.safetensors"))
        raise AdaFlowError("this model is for inpainting")

    with pytest.raises(AdaFlowError, match="inpainting"):
        hub_folder(NAME, check=refuse)
    assert not served.sent


def test_the_known_models_have_names_and_pins(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    listed = capsys.readouterr().out
    for name, model in SHORT_NAMES.items():
        assert name in listed and model in listed
        assert len(model.partition("@")[2]) == 40


# --- progress, stopping, going on --------------------------------------------------------------------


def test_a_download_tells_what_remains(hub: Hub, repository: Path) -> None:
    hub.add(NAME, repository)
    seen: list[Progress] = []
    hub_folder(NAME, monitor=Monitor(seen.append))
    assert {(step.stage, step.unit) for step in seen} == {("download", "B")}
    assert seen[-1].done == seen[-1].total == sum((repository / name).stat().st_size for name in WEIGHTS)
    assert [step.done for step in seen] == sorted(step.done for step in seen)
    assert seen[-1].amount.endswith("MB")


def test_stop_ends_a_download_that_stalls_at_once_and_the_next_goes_on(
    hub: Hub, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = hub.add(NAME, repository, stalls=[100_000])
    monkeypatch.setattr(client, "TIMEOUT", 60.0)
    size = (repository / UNET).stat().st_size
    began: list[float] = []

    def stop() -> bool:
        if served.sent and not began:
            began.append(time.monotonic())
        return bool(began) and time.monotonic() > began[0] + 1.0  # it has stalled by then

    with pytest.raises(Stopped):
        hub_folder(NAME, monitor=Monitor(stop=stop))
    assert time.monotonic() < began[0] + 30  # the stall takes a minute
    part = next(iter(served.sent))
    hub_folder(NAME)
    assert served.sent[part] == (repository / part).stat().st_size
    assert served.sent[UNET] == size


def test_a_download_that_breaks_off_goes_on_by_itself(hub: Hub, repository: Path) -> None:
    served = hub.add(NAME, repository, cuts=[50_000, 50_000, 50_000])
    folder = hub_folder(NAME)
    for name in WEIGHTS:
        assert (folder / name).read_bytes() == (repository / name).read_bytes()
        assert served.sent[name] == (repository / name).stat().st_size


@pytest.mark.parametrize("complete", [False, True])
def test_what_is_here_of_a_file_needs_no_space_again(
    hub: Hub, repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, complete: bool
) -> None:
    served = hub.add(NAME, repository)
    # Read by the process that fetches, before anything else.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, shutil, types\n"
        "shutil.disk_usage = lambda _: types.SimpleNamespace(free=int(os.environ['FREE_BYTES']))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    blobs, content = tmp_path / "home/hub/models--someone--model/blobs", (repository / UNET).read_bytes()
    blobs.mkdir(parents=True)
    lacking = sum((repository / name).stat().st_size for name in WEIGHTS) - len(content)
    if complete:  # and not in the snapshot yet
        (blobs / digest(repository / UNET)).write_bytes(content)
    else:
        (blobs / f"{digest(repository / UNET)}.incomplete").write_bytes(content[:-1000])
        lacking += 1000
    monkeypatch.setenv("FREE_BYTES", str(lacking - 1))
    with pytest.raises(AdaFlowError, match=r"needs \d+\.\d GB more"):
        hub_folder(NAME)
    assert not served.sent
    monkeypatch.setenv("FREE_BYTES", str(lacking))
    folder = hub_folder(NAME)
    assert all((folder / name).read_bytes() == (repository / name).read_bytes() for name in WEIGHTS)
    assert served.sent.get(UNET, 0) == (0 if complete else 1000)


def test_what_arrives_damaged_is_fetched_again(hub: Hub, repository: Path) -> None:
    served = hub.add(NAME, repository, damaged=1)
    folder = hub_folder(NAME)
    assert (folder / UNET).read_bytes() == (repository / UNET).read_bytes()
    served.damaged = 2
    shutil.rmtree(folder.parents[1])
    with pytest.raises(AdaFlowError, match="arrived damaged twice"):
        hub_folder(NAME)


def test_half_a_file_in_the_cache_is_fetched_again(hub: Hub, repository: Path) -> None:
    hub.add(NAME, repository)
    folder = hub_folder(NAME)
    with (folder / UNET).open("r+b") as file:
        file.truncate(1000)
    assert (hub_folder(NAME) / UNET).read_bytes() == (repository / UNET).read_bytes()


def test_rate_limits_and_short_troubles_are_waited_for(hub: Hub, repository: Path) -> None:
    served = hub.add(NAME, repository, statuses=[429, 503])
    assert (hub_folder(NAME) / UNET).is_file()
    assert not served.statuses


# --- failures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "model", "said"),
    [
        ({"gated": True}, NAME, rf"{NAME} is gated: accept its terms at http://.*/{NAME}, .* hf auth login"),
        ({"absent": True}, NAME, f"the Hub has no model {NAME}, or it is private: check its name, or .* hf auth login"),
        ({}, f"{NAME}@v9", rf"{NAME} has no revision 'v9'; http://.*/{NAME}/commits/main"),
        ({"disabled": True}, NAME, f"{NAME} has been disabled on the Hub; choose another"),
        ({"statuses": [429] * 9}, NAME, r"takes no more requests .* \(429\); try again in some minutes"),
        ({"statuses": [500] * 9}, NAME, r"the Hub has trouble of its own \(500\); .* try again later"),
        ({"statuses": [401] * 9}, NAME, "does not accept your token; log in again with: hf auth login"),
        ({"statuses": [403] * 9}, NAME, f"your account may not read {NAME}"),
        ({"claimed": 10**16}, NAME, r"needs \d+\.\d GB more and .* free; free some space, or set HF_HOME"),
        ({"stalls": [1000, 0, 0, 0]}, NAME, "sends nothing more .* the same command goes on from it later"),
        ({"cuts": [1000, 0, 0, 0]}, NAME, "the connection broke off .* the same command goes on from it later"),
    ],
)  # fmt: skip
def test_every_failure_has_its_sentence(
    hub: Hub, repository: Path, faults: dict[str, object], model: str, said: str
) -> None:
    hub.add(NAME, repository, **faults)
    with pytest.raises(AdaFlowError, match=said):
        hub_folder(model)


def test_a_renamed_model_is_found_and_named(hub: Hub, repository: Path, caplog: pytest.LogCaptureFixture) -> None:
    hub.add("new/name", repository)
    hub.add(NAME, repository, moved_to="new/name")
    assert (hub_folder(NAME) / UNET).is_file()
    assert f"{NAME} is now called new/name" in caplog.text


def test_without_a_network_the_copy_in_the_cache_is_used_or_its_lack_named(
    hub: Hub, repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    served = hub.add(NAME, repository)
    folder = hub_folder(NAME)
    served.statuses = [500] * 2
    assert hub_folder(NAME) == folder and len(served.statuses) == 1, "it was asked once"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert hub_folder(NAME) == folder
    assert "cannot be reached" in caplog.text and "the copy in the cache is used" in caplog.text
    with pytest.raises(AdaFlowError, match=r"127\.0\.0\.1:9 cannot be reached: check the network"):
        hub_folder("another/model")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub_folder(NAME) == folder
    with pytest.raises(AdaFlowError, match="not complete in the cache, and HF_HUB_OFFLINE is set; unset it"):
        hub_folder("another/model")


def test_weights_of_half_precision_do_without_a_network(
    hub: Hub, repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    served, model = hub.add(NAME, repository), f"{NAME}@{COMMIT}"
    folder = hub_folder(model, half=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub_folder(model) == folder
    assert f"{COMMIT} is used, in half precision, the only one in the cache" in caplog.text
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert hub_folder(model) == folder and UNET in served.sent, "the Hub has others"


def test_a_hub_to_which_there_is_no_way_is_asked_once() -> None:
    order, asked = worker.Order(NAME, None, patience=(60.0,), timeout=1.0), []

    def ask() -> None:
        asked.append(1)
        raise httpx2.ConnectTimeout("a firewall drops what is sent")

    with pytest.raises(httpx2.ConnectTimeout):
        worker._patiently(ask, order)
    assert len(asked) == 1


def test_pickled_weights_and_single_files_are_refused_before_they_are_fetched(
    hub: Hub, repository: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(repository, folder, ignore=shutil.ignore_patterns("model*.safetensors"))
    hub.add(NAME, folder)
    with pytest.raises(AdaFlowError, match="text_encoder is there only as pickled weights"):
        hub_folder(NAME)
    (folder / "model_index.json").unlink()
    with pytest.raises(AdaFlowError, match=r"no model_index.json; download one of its files \(v1-5-pruned.safetens"):
        hub_folder(NAME)


@pytest.mark.parametrize("model", ["embeded", "no/such/folder", "./model", "a b/c"])
def test_what_is_neither_a_path_nor_an_id_is_said_without_the_hub(model: str) -> None:
    with pytest.raises(AdaFlowError, match=r"there is no model .* sd15, sd21-base, sd21"):
        load_backbone(model)


def test_the_home_folder_may_be_written_short(
    tiny_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tiny_folder("sd1").parent))
    assert load_backbone("~/sd1", device="cpu").unet.config.in_channels == 4


def test_a_disk_that_is_full_later_is_named() -> None:
    assert "the disk is full" in explain(OSError(errno.ENOSPC, "No space left on device"), NAME, None)


@pytest.mark.thorough
def test_ctrl_c_ends_a_download_at_once(hub: Hub, repository: Path) -> None:
    served = hub.add(NAME, repository, stalls=[1000])
    command = [sys.executable, "-m", "adaflow_core", "selfcheck", "--model", NAME, "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=EMBEDDED.parents[1])
    with process:
        while not served.sent:
            assert process.poll() is None
            time.sleep(0.1)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130  # the stall takes a minute
        assert process.stderr is not None
        said = process.stderr.read()
    assert said.startswith("download: 0.0 of ") and "MB" in said
    assert said.splitlines()[-1].startswith("adaflow: stopped")


def test_the_command_line_says_one_sentence(
    hub: Hub, repository: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.add(NAME, repository, gated=True)
    assert main(["selfcheck", "--model", NAME, "--device", "cpu"]) == 2
    said = capfd.readouterr()
    assert said.err.startswith(f"adaflow: error: {NAME} is gated") and said.err.count("\n") == 1 and not said.out
