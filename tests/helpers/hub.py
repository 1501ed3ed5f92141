"""A small Hub on this machine: serves folders as repositories, and misbehaves as told."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from safetensors.torch import load_file, save_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PULL_REQUEST = "refs/pr/3"  # another name of it
_LARGE = ".safetensors"  # such files are named by their SHA-256, as Git LFS does


def save_repository(checkpoint: Path, folder: Path) -> Path:
    """A checkpoint as they lie on the Hub: both precisions, pickles, other weights, and a single file."""
    shutil.copytree(checkpoint, folder)
    for path in list(folder.glob("*/*.safetensors")):
        half = {key: value.half() if value.is_floating_point() else value for key, value in load_file(path).items()}
        save_file(half, path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")), {"format": "pt"})
        path.with_suffix(".bin").write_bytes(b"pickled")
    for name in ("unet/diffusion_pytorch_model.non_ema.safetensors", "v1-5-pruned.safetensors", "v1-5-pruned.ckpt"):
        (folder / name).write_bytes(b"not needed")
    (folder / "adaflow.json").write_text(json.dumps({"size": 128}))
    (folder / "README.md").write_text("A model.")
    return folder


@dataclass
class Repository:
    """A folder, and what its requests meet."""

    folder: Path
    gated: bool = False
    absent: bool = False  # or private: the Hub does not tell
    disabled: bool = False
    moved_to: str = ""
    statuses: list[int] = field(default_factory=list)  # of the next requests
    retry_after: str = "0"
    cuts: list[int] = field(default_factory=list)  # bytes after which the next files of weights break off
    stalls: list[int] = field(default_factory=list)  # bytes after which nothing more comes of them
    damaged: int = 0  # how many files of weights arrive with a wrong byte
    claimed: int = 0  # the size that is told of every file of weights
    asked: list[str] = field(default_factory=list)  # "METHOD PATH"
    sent: dict[str, int] = field(default_factory=dict)  # file -> bytes, of weights

    def files(self) -> list[dict[str, Any]]:
        found = []
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                size = path.stat().st_size
                about: dict[str, Any] = {"rfilename": path.relative_to(self.folder).as_posix(), "size": size}
                if path.suffix == _LARGE:
                    about["size"] = size = self.claimed or size
                    about["lfs"] = {"sha256": digest(path), "size": size, "pointerSize": 130}
                found.append(about)
        return found


def digest(path: Path) -> str:
    data = path.read_bytes()
    return (hashlib.sha256 if path.suffix == _LARGE else hashlib.sha1)(data).hexdigest()


class Hub:
    """The repositories of a server, and its address."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.repositories: dict[str, Repository] = {}
        self.ended = threading.Event()

    def add(self, name: str, folder: Path, **faults: Any) -> Repository:
        self.repositories[name] = Repository(folder, **faults)
        return self.repositories[name]


@contextmanager
def serve_hub(home: Path) -> Iterator[Hub]:
    """A Hub that processes started meanwhile take for the real one, with an empty cache in `home`."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, address: Any) -> None:
            """A client that was ended says so here."""

    server = Server(("127.0.0.1", 0), _Handler)
    server.hub = hub = Hub(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "TRANSFORMERS_OFFLINE"):
            patch.delenv(name, raising=False)
        patch.setenv("HF_ENDPOINT", hub.address)
        patch.setenv("HF_HOME", str(home))
        yield hub
    hub.ended.set()
    server.shutdown()
    server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""

    def _serve(self) -> None:
        raw = urlsplit(self.path).path
        path = unquote(raw)
        api = path.startswith("/api/models/")
        words = [unquote(word) for word in raw.removeprefix("/api/models/").strip("/").split("/")]
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        repository = hub.repositories.get("/".join(words[:2]))
        if repository is not None:
            repository.asked.append(f"{self.command} {path}")
        if repository is None or repository.absent:
            return self._answer(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username"})
        if repository.statuses:
            return self._answer(repository.statuses.pop(0), {"Retry-After": repository.retry_after})
        if repository.moved_to:
            return self._answer(307, {"Location": self.path.replace("/".join(words[:2]), repository.moved_to)})
        if repository.disabled:
            return self._answer(403, {"X-Error-Message": "Access to this resource is disabled."})
        if len(words) > 3 and words[3] not in ("main", PULL_REQUEST, COMMIT):
            return self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        if api:
            about = {"id": "/".join(words[:2]), "sha": COMMIT, "siblings": repository.files()}
            return self._answer(200, {"Content-Type": "application/json"}, json.dumps(about).encode())
        if repository.gated:
            return self._answer(403, {"X-Error-Code": "GatedRepo"})
        self._file(repository, repository.folder.joinpath(*words[4:]), "/".join(words[4:]))

    def _file(self, repository: Repository, path: Path, name: str) -> None:
        if not path.is_file():
            return self._answer(404, {"X-Error-Code": "EntryNotFound"})
        data = path.read_bytes()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        headers = {"ETag": f'"{digest(path)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if "Range" in self.headers:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        until, then = len(data), None
        if path.suffix == _LARGE and self.command == "GET":
            if repository.damaged:
                repository.damaged -= 1
                data = data[:-1] + bytes([data[-1] ^ 1])
            for faults in (repository.cuts, repository.stalls):
                if faults:
                    until, then = min(start + faults.pop(0), len(data)), faults
            repository.sent[name] = repository.sent.get(name, 0) + until - start
        status = 206 if "Range" in self.headers else 200
        self._answer(status, headers, data[start:until], length=len(data) - start)
        if then is not None:
            self.wfile.flush()
            if then is repository.stalls:
                self.server.hub.ended.wait(60)  # type: ignore[attr-defined]
            self.close_connection = True

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"", length: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
