"""app.py: its options, how it starts and how it ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_a_space_is_public_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    import app

    for name in ("SPACE_ID", "ADAFLOW_PUBLIC", "ADAFLOW_MODEL"):
        monkeypatch.delenv(name, raising=False)
    assert not app.parse([]).public and app.parse(["--public"]).public
    monkeypatch.setenv("SPACE_ID", "somebody/adaflow")
    monkeypatch.setenv("ADAFLOW_MODEL", "somebody/model")
    assert app.parse([]).public and not app.parse(["--no-public"]).public and app.parse([]).model == "somebody/model"
    monkeypatch.setenv("ADAFLOW_PUBLIC", "0")
    assert not app.parse([]).public
    assert (
        app.parse([]).offer is None
        and app.parse(["--offer"]).offer == []
        and app.parse(["--offer", "a"]).offer == ["a"]
    )


def test_a_taken_port_ends_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    import app

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert app.main(["--port", str(taken.getsockname()[1])]) == 2
    error = capsys.readouterr().err
    assert error.startswith("adaflow: error: ") and error.count("\n") == 1 and "--port" in error


def test_a_folder_for_uploads_that_cannot_be_made_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import app

    (tmp_path / "file").touch()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "file" / "uploads"))
    assert app.main([]) == 2
    error = capsys.readouterr().err
    assert "GRADIO_TEMP_DIR" in error and "--port" not in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--keep-minutes", "0", "no number above 0"),
        ("--keep-minutes", "-5", "no number above 0"),
        ("--max-seconds", "nan", "no number above 0"),
        ("--max-job-minutes", "soon", "no number above 0"),
        ("--max-megabytes", "0", "no whole number from 1 on"),
        ("--port", "99999", "no whole number from 1 to 65535"),
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(
    flag: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import app

    with pytest.raises(SystemExit):
        app.parse([flag, value])
    assert f"argument {flag}: {value!r} is {said}" in capsys.readouterr().err


def test_without_a_port_the_next_free_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gradio.http_server

    from webui.serving.server import serve
    from webui.studio import Studio

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(gradio.http_server, "INITIAL_PORT_VALUE", port)  # $GRADIO_SERVER_PORT, read on import
        server = serve(Studio("embedded", "cpu", tmp_path), tmp_path / "uploads")
        server.close()
    assert port < int(server.address.rpartition(":")[2]) < port + 100


def test_mcp_without_its_package_ends_with_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import app

    monkeypatch.setattr(app, "find_spec", lambda name: None)
    assert app.main(["--mcp"]) == 2
    assert 'pip install "mcp' in capsys.readouterr().err


@pytest.mark.thorough
def test_asked_to_stop_the_page_ends_and_leaves_nothing(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    app = subprocess.Popen(
        [sys.executable, "app.py", "--public", "--device", "cpu", "--port", str(port)],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"}
        | {"TMPDIR": str(tmp_path)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert app.stdout is not None and app.stdout.readline().startswith("AdaFlow is at")
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=60).status_code == 200
        assert [path.name for path in tmp_path.glob("adaflow-*/*")] == ["uploads"]
        app.terminate()
        assert app.wait(60) == 0
        assert list(tmp_path.glob("adaflow-*")) == []
    finally:
        app.kill()
