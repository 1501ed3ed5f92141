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


@pytest.mark.parametrize(
    ("given", "has", "asked"),
    [
        (["--zerogpu", "--model", "an/id"], "zero-a10g", None),
        (["--zerogpu", "--private"], "cpu-basic", "zero-a10g"),
        ([], "zero-a10g", "cpu-basic"),
        ([], "t4-small", None),
    ],
)
def test_the_push_hands_the_folder_to_the_hubs_library(
    given: list[str], has: str, asked: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its calls, against the library's own signatures; the Hub cannot be reached from a test. What a Space that exists
    `has` is not changed by `create_repo`."""
    import inspect

    import huggingface_hub

    calls: list[tuple[str, dict[str, Any]]] = []

    def record(name: str, answer: Any = "address") -> Callable[..., Any]:
        signature = inspect.signature(getattr(huggingface_hub.HfApi, name))

        def call(self: Any, *args: Any, **named: Any) -> Any:
            calls.append((name, signature.bind(self, *args, **named).arguments))
            return answer

        return call

    runtime = huggingface_hub.SpaceRuntime({"stage": "RUNNING", "hardware": {"current": has, "requested": None}})
    for name in (
        "create_repo",
        "update_repo_settings",
        "add_space_variable",
        "upload_folder",
        "request_space_hardware",
    ):
        monkeypatch.setattr(huggingface_hub.HfApi, name, record(name))
    monkeypatch.setattr(huggingface_hub.HfApi, "get_space_runtime", record("get_space_runtime", runtime))
    monkeypatch.setattr(push_space, "stage", lambda folder, zero: None)
    assert push_space.main(["somebody/adaflow", *given]) == 0
    named = dict(calls)
    private, asks = ["update_repo_settings"] * ("--private" in given), ["request_space_hardware"] * (asked is not None)
    order = ["create_repo", *private, "add_space_variable", "upload_folder", "get_space_runtime", *asks]
    assert [name for name, _ in calls] == order
    assert named["create_repo"]["space_sdk"] == ("gradio" if "--zerogpu" in given else "docker")
    assert isinstance(named["upload_folder"]["folder_path"], Path)
    served = named["add_space_variable"]
    assert (served["key"], served["value"]) == ("ADAFLOW_MODEL", "an/id" if "an/id" in given else "embedded")
    assert not asks or named["request_space_hardware"]["hardware"] == asked


@pytest.mark.parametrize(("status", "remedy"), [(401, "hf auth login"), (402, "PRO"), (500, "run the same command")])
def test_a_push_that_the_hub_refuses_ends_with_one_line(
    status: int, remedy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.utils import hf_raise_for_status

    request = httpx2.Request("POST", "https://huggingface.co/api/repos/create")
    answer = httpx2.Response(status, request=request, json={"error": "the Hub\nsays why"})
    monkeypatch.setattr(HfApi, "create_repo", lambda *_, **__: hf_raise_for_status(answer))
    monkeypatch.setattr(push_space, "stage", lambda folder, zero: None)
    assert push_space.main(["somebody/adaflow"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("push_space: error: ") and "the Hub says why" in line and remedy in line


def test_a_push_needs_what_git_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(push_space, "ROOT", tmp_path)  # as of a checkout that was downloaded as an archive
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert push_space.main(["somebody/adaflow"]) == 2
    assert "push from a clone made by git" in capsys.readouterr().err


def test_a_file_that_is_gone_ends_the_push_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["init", "-q"], ["add", "."]):
        (tmp_path / "app.py").touch()
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (tmp_path / "app.py").unlink()
    monkeypatch.setattr(push_space, "ROOT", tmp_path)
    assert push_space.main(["somebody/adaflow", "--dry-run", str(tmp_path / "out")]) == 2
    said = "push_space: error: app.py is in git and not in this folder; commit or restore it\n"
    assert capsys.readouterr().err == said


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
