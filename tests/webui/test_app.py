"""app.py: its options, how it starts and how it ends."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from adaflow_core.errors import AdaFlowError

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
    monkeypatch.setenv("ADAFLOW_PUBLIC", "")
    monkeypatch.setenv("ADAFLOW_MODEL", "")
    monkeypatch.setenv("GRADIO_SERVER_NAME", "")
    args = app.parse([])
    assert (args.public, args.model, args.host) == (True, "embedded", "127.0.0.1"), "empty is as good as not set"
    assert (
        app.parse([]).offer is None
        and app.parse(["--offer"]).offer == []
        and app.parse(["--offer", "a"]).offer == ["a"]
    )


@pytest.mark.parametrize("said", ["1", "true", "Yes", "ON", "0", "False", "no", "off"])
def test_a_switch_is_read_as_it_is_meant(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import app

    monkeypatch.setenv("ADAFLOW_PUBLIC", said)
    assert app.parse([]).public == (said.lower() in ("1", "true", "yes", "on"))


@pytest.mark.parametrize(("name", "value"), [("ADAFLOW_PUBLIC", "public"), ("GRADIO_SERVER_PORT", "http")])
def test_a_variable_that_cannot_be_read_is_refused(
    name: str, value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import app

    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as end:
        app.parse([])
    assert end.value.code == 2 and f"error: {name}: '{value}' " in capsys.readouterr().err


def test_a_taken_port_ends_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import app

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert app.main(["--port", str(taken.getsockname()[1])]) == 2
    error = capsys.readouterr().err
    assert error.startswith("adaflow: error: ") and error.count("\n") == 1 and "--port" in error


@pytest.mark.parametrize(
    ("problem", "of_address"),
    [
        (OSError(errno.EADDRINUSE, "Address already in use"), True),
        (OSError("Cannot find empty port in range: 7860-7959"), True),
        (OSError(errno.ENOSPC, "No space left on device", "/disk/film.mp4"), False),
        (PermissionError(errno.EACCES, "Permission denied", "/disk/cache"), False),
        (OSError("too many open files"), False),
    ],
)
def test_an_error_is_told_as_what_it_is(
    problem: OSError,
    of_address: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import app
    from webui.serving import server

    def fail(*args: object, **named: object) -> None:
        raise problem

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(server, "serve", fail)
    assert app.main([]) == 2
    error = capsys.readouterr().err
    assert ("--port" in error) == of_address and error.count("\n") == 1
    assert of_address or (problem.strerror or str(problem)) in error
    assert (problem.filename or "") in error


def test_uploads_have_a_folder_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in GRADIO_TEMP_DIR belongs to others, but for what a killed page left there."""
    import app

    seen: list[Path] = []

    def look(args: object, folder: Path, uploads: Path) -> int:
        assert list(uploads.iterdir()) == [] and os.environ["GRADIO_TEMP_DIR"] == str(uploads)
        seen.extend((folder, uploads))
        return 0

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    (tmp_path / "of-others.mp4").write_bytes(b"x")
    left = tmp_path / "adaflow-left"
    left.mkdir()
    for name in (".page.lock", "upload.mp4"):
        (left / name).touch()
        os.utime(left / name, (1e9, 1e9))
    monkeypatch.setattr(app, "_serve", look)
    assert app.main([]) == 0
    assert seen[1].is_relative_to(tmp_path) and not seen[0].exists()
    assert [path.name for path in tmp_path.iterdir()] == ["of-others.mp4"]


def test_results_are_served_from_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies elsewhere Gradio hashes and copies in its one loop, each time that it is shown."""
    import gradio as gr

    import app

    uploads = tmp_path / "uploads"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(uploads))
    studio = app._build_studio(app.parse(["--no-public"]), tmp_path, uploads, zero=False)
    result = studio.folder / "secret" / "edit.mp4"
    result.parent.mkdir(parents=True)
    result.write_bytes(b"x")
    served = asyncio.run(gr.Video(render=False).async_move_resource_to_block_cache(str(result)))
    assert served == str(result) and [file for file in tmp_path.rglob("*") if file.is_file()] == [result]


def test_strangers_have_a_cache_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import app
    from webui.serving import logs

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setenv("ADAFLOW_CACHE", "")
    monkeypatch.setattr(logs, "set_up", lambda: None)

    def look(args: object, folder: Path, uploads: Path, zero: bool) -> None:
        assert Path(os.environ["ADAFLOW_CACHE"]) == folder / "cache"
        raise AdaFlowError("that is all")

    monkeypatch.setattr(app, "_build_studio", look)
    assert app.main(["--public"]) == 2


def test_the_precision_reaches_the_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their messages give `--dtype float32` as the remedy."""
    import app
    from adaflow_core import AdaFlow
    from adaflow_core.several.engine import TeamEngine

    asked: list[object] = []
    monkeypatch.setattr(AdaFlow, "from_pretrained", lambda model, **named: asked.append(named["dtype"]))
    monkeypatch.setattr(TeamEngine, "of", lambda model, gpus, **named: asked.append(named["dtype"]))
    for flags in ([], ["--dtype", "float32"], ["--dtype", "float32", "--gpus", "2"]):
        studio = app._build_studio(app.parse(["--no-public", *flags]), tmp_path, tmp_path, zero=False)
        studio.engines.load("embedded")
    assert asked == ["auto", "float32", "float32"]
    forked = app._build_studio(app.parse(["--no-public", "--dtype", "float32"]), tmp_path, tmp_path, zero=True)
    assert forked.engines.dtype == "auto" and forked._run.dtype == "float32"  # type: ignore[attr-defined]


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
        assert sorted(path.name for path in tmp_path.glob("adaflow-*/*")) == [".page.lock", "uploads"]
        app.terminate()
        assert app.wait(60) == 0
        assert list(tmp_path.glob("adaflow-*")) == []
    finally:
        app.kill()
