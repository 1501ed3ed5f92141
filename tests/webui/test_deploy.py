"""What is sent to a Space and built into a container."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import push_space  # noqa: E402

ZERO_GPU_TORCH = ("2.8.0", "2.9.1", "2.10.0", "2.11.0")
pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")


@pytest.mark.parametrize("zero", [False, True])
def test_a_space_gets_what_it_runs_on_and_a_head_it_knows(zero: bool, tmp_path: Path) -> None:
    from huggingface_hub import metadata_load

    arguments = ["somebody/adaflow", "--dry-run", str(tmp_path)] + ["--zerogpu"] * zero
    assert push_space.main(arguments) == 0
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {"app.py", "requirements.txt", "Dockerfile", "webui/page.py", "assets/clips/clips.json"} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", ".ci/", ".gitattributes"))]
    assert (tmp_path / "assets/clips/ball.mp4").read_bytes() == (ROOT / "assets/clips/ball.mp4").read_bytes()
    head: dict[str, Any] = metadata_load(tmp_path / "README.md") or {}
    assert head["title"] == "AdaFlow" and head["license"] == "apache-2.0"
    if zero:
        assert (head["sdk"], head["app_file"], head["python_version"]) == ("gradio", "app.py", "3.12")
        assert f"gradio=={head['sdk_version']}\n" in (tmp_path / "requirements.txt").read_text()
        assert "app_port" not in head
    else:
        assert (head["sdk"], head["app_port"]) == ("docker", 7860)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.split("---\n", 2)[2] == (ROOT / "README.md").read_text(encoding="utf-8").split("---\n", 2)[2]
    subprocess.run([sys.executable, "app.py", "--help"], cwd=tmp_path, check=True, capture_output=True)


def test_the_pinned_torch_is_one_that_zerogpu_offers() -> None:
    pinned = re.search(r"^torch==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned is not None and pinned[1] in ZERO_GPU_TORCH


@pytest.mark.parametrize(("given", "served"), [(["--model", "an/id"], "an/id"), ([], "embedded")])
def test_the_push_hands_the_folder_to_the_hubs_library(
    given: list[str], served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its calls, against the library's own signatures; the Hub cannot be reached from a test."""
    import inspect

    import huggingface_hub

    calls: list[tuple[str, dict[str, Any]]] = []

    def record(name: str) -> Callable[..., str]:
        signature = inspect.signature(getattr(huggingface_hub.HfApi, name))

        def call(self: Any, *args: Any, **named: Any) -> str:
            calls.append((name, signature.bind(self, *args, **named).arguments))
            return "address"

        return call

    for name in ("create_repo", "add_space_variable", "upload_folder"):
        monkeypatch.setattr(huggingface_hub.HfApi, name, record(name))
    monkeypatch.setattr(push_space, "stage", lambda folder, zero: None)
    assert push_space.main(["somebody/adaflow", "--zerogpu", *given]) == 0
    assert [name for name, _ in calls] == ["create_repo", "add_space_variable", "upload_folder"]
    assert calls[0][1]["space_sdk"] == "gradio" and isinstance(calls[2][1]["folder_path"], Path)
    assert (calls[1][1]["key"], calls[1][1]["value"]) == ("ADAFLOW_MODEL", served)


def test_the_container_runs_as_user_1000_with_its_health_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = dockerfile.replace("\\\n", " ").splitlines()

    def values(instruction: str) -> list[str]:
        return [line.split(None, 1)[1] for line in lines if line.startswith(f"{instruction} ")]

    assert values("USER") == ["1000"] and values("EXPOSE") == ["7860"] and values("VOLUME") == ["/home/user/.cache"]
    assert "/healthz" in values("HEALTHCHECK")[0] and values("CMD") == ['["python", "app.py"]']
    assert values("ARG") == ["TORCH_INDEX=https://download.pytorch.org/whl/cpu"]
    health = re.search(r'"-c", "(.+?)"\]', values("HEALTHCHECK")[0])
    assert health is not None
    asked: list[str] = []
    monkeypatch.setattr("urllib.request.urlopen", lambda address, timeout: asked.append(address))
    for port in ("7861", None):
        monkeypatch.setenv("GRADIO_SERVER_PORT", port) if port else monkeypatch.delenv("GRADIO_SERVER_PORT")
        exec(health[1])
    assert asked == [f"http://127.0.0.1:{port}/healthz" for port in (7861, 7860)]


@pytest.mark.skipif(sys.platform == "win32", reason="no shell")
@pytest.mark.parametrize(("index", "installed"), [("cpu", False), ("cu128", True)])
def test_the_container_for_a_gpu_has_a_compiler_for_its_kernels(index: str, installed: bool, tmp_path: Path) -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    as_root = [line[4:] for line in text.partition("\nUSER ")[0].splitlines() if line.startswith("RUN ")]
    (command,) = (line for line in as_root if "apt-get" in line)
    for name in ("apt-get", "rm"):  # alone on the path: nothing else can be run
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*"\n')
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": str(tmp_path), "TORCH_INDEX": f"https://download.pytorch.org/whl/{index}"}
    done = subprocess.run(["/bin/sh", "-f", "-c", command], env=environment, capture_output=True, text=True, check=True)
    commands = ["apt-get update", "apt-get install -y --no-install-recommends gcc libc6-dev"]
    assert done.stdout.splitlines() == [*commands, "rm -rf /var/lib/apt/lists/*"] * installed


def test_every_command_that_starts_the_container_keeps_its_cache() -> None:
    lines = [line for name in ("Dockerfile", "docs/usage.md") for line in (ROOT / name).read_text().splitlines()]
    commands = [line for line in lines if "docker run" in line]
    assert len(commands) == 4 and all(" -v adaflow:/home/user/.cache " in line for line in commands)


def test_an_installed_page_has_its_style_and_its_scripts() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["webui"]
    listed = subprocess.run(["git", "ls-files", "webui"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = {ROOT / name for name in listed.splitlines() if not name.endswith(".py")}
    assert {path for pattern in patterns for path in (ROOT / "webui").glob(pattern)} == files


@pytest.mark.thorough
def test_what_docker_leaves_out_the_app_can_do_without(tmp_path: Path) -> None:
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line]
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in listed:
        parts = [name, *(str(parent) for parent in Path(name).parents)]
        if not any(fnmatch.fnmatch(part, pattern.removeprefix("**/")) for part in parts for pattern in patterns):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tmp_path / name)
    assert not (tmp_path / "tests").exists() and not (tmp_path / "docs").exists()
    script = (
        "import webui.serving.server, webui.jobs.zerogpu, adaflow_core.engine; "
        "from webui.components.examples import load_clips; print(len(load_clips()))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) > 0


# Beside the Python that runs, which need not be on the path.
HADOLINT = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


@pytest.mark.skipif(HADOLINT is None, reason="no hadolint here (it is in requirements-dev.txt)")
def test_the_dockerfile_passes_its_linter() -> None:
    assert HADOLINT is not None
    done = subprocess.run([HADOLINT, str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
