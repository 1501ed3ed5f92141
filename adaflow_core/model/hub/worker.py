"""The process that downloads one checkpoint or one file; `client` starts it, and may kill it at any moment.

It takes an order as JSON and answers in lines of JSON. An unfinished file is in the Hub's cache under its digest, and
the next run resumes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from filelock import FileLock
from huggingface_hub import HfApi, constants, get_hf_file_metadata, get_session, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RevisionNotFoundError
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, parse_ratelimit_headers

from adaflow_core.errors import AdaFlowError
from adaflow_core.model.hub.failures import NO_WAY, cause, explain, passes
from adaflow_core.model.hub.files import INDEX, configurations, is_complete, parts_of, the_file, weights

_REPORT = 0.2  # seconds between two reports
_LONGEST = 300.0  # most seconds to wait when the Hub asks for a pause
_REACHED = (httpx2.HTTPError, OSError)  # HfHubHTTPError is among them
T = TypeVar("T")


@dataclass(frozen=True)
class Order:
    repo: str
    revision: str | None
    patience: tuple[float, ...]  # seconds before each further attempt
    timeout: float  # seconds without a byte
    half: bool = False  # the weights in half precision, where the repository has them
    parts: tuple[str, ...] = ()
    single: bool = False  # download one file of weights instead of a checkpoint
    file: str = ""  # name of the single file; "": not given
    usual: tuple[str, ...] = ()  # names to try if `file` is not given

    @property
    def store(self) -> Path:
        """The repository's folder in the Hub's cache."""
        return Path(constants.HF_HUB_CACHE) / f"models--{self.repo.replace('/', '--')}"

    def blob(self, etag: str) -> Path:
        """Return the cache's path of a complete file."""
        return self.store / "blobs" / etag

    def part(self, etag: str) -> Path:
        """Return the cache's path of an unfinished download."""
        return self.store / "blobs" / f"{etag}.incomplete"

    @property
    def snapshot(self) -> Path:
        """The folder in the cache that the revision names."""
        name = self.revision or constants.DEFAULT_REVISION
        reference = self.store / "refs" / name
        return self.store / "snapshots" / (reference.read_text() if reference.is_file() else name)

    def only(self, commit: str) -> Path:
        """Return the path of a note with the name of the commit's only file of weights.

        It is written once the Hub has listed the files: the cache alone does not tell whether there are others.
        """
        return self.store / ".adaflow" / commit

    def cached(self) -> Path | None:
        """Return the folder or file in the cache if it is complete, else None."""
        folder = self.snapshot
        if self.single:
            names = [self.file] if self.file else list(self.usual)
            if not self.file and (only := self.only(folder.name)).is_file():
                names.append(only.read_text(encoding="utf-8"))
            return next((folder / name for name in names if (folder / name).is_file()), None)
        return folder if is_complete(folder, self.parts, self.half) else None

    def alone(self) -> Path | None:
        """Return the only file of weights in the cache if no name is given; the Hub may have others."""
        found = [] if self.file or not self.single else list(self.snapshot.rglob("*.safetensors"))
        return found[0] if len(found) == 1 else None

    def halved(self) -> Path | None:
        """Return the checkpoint in the cache if it is complete in half precision, to use instead of full precision."""
        whole = not self.single and is_complete(self.snapshot, self.parts, half=True)
        return self.snapshot if whole else None


def main() -> int:
    order = Order(**json.loads(sys.argv[1]))
    try:
        tell(fetched=str(fetch(order)))
    except AdaFlowError as problem:
        tell(problem=str(problem))
    except Exception as problem:
        tell(problem=explain(problem, order.repo, order.revision))
    return 0


def tell(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


def fetch(order: Order) -> Path:
    """Download what is missing, and return the checkpoint's folder or the file."""
    cached = order.cached()
    # A commit never changes: the Hub need not be asked.
    if cached is not None and order.snapshot.name == order.revision:
        return cached
    try:
        info = _patiently(lambda: _look_up(order), order) if cached is None else _look_up(order)
    except RevisionNotFoundError:
        raise
    except _REACHED as problem:
        found = cached or order.alone() or order.halved()
        if found is None:
            raise
        if not isinstance(problem, OfflineModeIsEnabled):
            tell(note=f"{explain(problem, order.repo, order.revision)}; the copy in the cache is used")
        if cached is None:
            only = "the only file of it" if order.single else "in half precision, the only one"
            tell(note=f"{order.repo}: {found.name} is used, {only} in the cache")
        return found
    if info.id != order.repo:
        tell(note=f"{order.repo} is now called {info.id}")
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    return (_fetch_file if order.single else _fetch_files)(order, str(info.sha), sizes)


def _look_up(order: Order) -> ModelInfo:
    return HfApi().model_info(order.repo, revision=order.revision, files_metadata=True, timeout=order.timeout)


def _fetch_files(order: Order, commit: str, sizes: dict[str, int]) -> Path:
    if INDEX not in sizes:
        alone = [name for name in sizes if "/" not in name and name.endswith(".safetensors")]
        remedy = f"download one of its files ({', '.join(alone[:3])}) and give its path" if alone else "choose another"
        raise AdaFlowError(f"{order.repo} is not in diffusers' format, for it has no {INDEX}; {remedy}")
    # By the revision's name, not the commit: so the library notes the commit of this revision in the cache.
    folder = _small(order, INDEX, order.revision).parent
    parts = parts_of(folder, order.parts)
    for name in configurations(sizes, parts):
        _small(order, name, commit)
    wanted = [name for part in parts for name in weights(sizes, part, order.half)]
    tell(configured=str(folder))
    if not sys.stdin.readline():  # the parent has looked at the configurations, or is gone
        sys.exit(1)
    if order.half and is_complete(folder, order.parts, half=False):  # in full precision, from an earlier run
        wanted = [name for part in parts for name in weights(sizes, part, half=False)]
    _weights(order, commit, {name: sizes[name] for name in wanted if _size(folder / name) != sizes[name]})
    return folder


def _fetch_file(order: Order, commit: str, sizes: dict[str, int]) -> Path:
    name = the_file(order.repo, sizes, order.file, order.usual)
    folder = order.store / "snapshots" / commit
    if _size(folder / name) != sizes[name]:
        _weights(order, commit, {name: sizes[name]})
    beside = f"{name.rpartition('/')[0]}/config.json".lstrip("/")
    if beside in sizes:
        _small(order, beside, commit)
    if not order.file and name not in order.usual:
        with suppress(OSError):  # a cache that others fill; the Hub is asked again then
            order.only(commit).parent.mkdir(exist_ok=True)
            order.only(commit).write_text(name, encoding="utf-8")
    # By the revision's name, not the commit: so the library notes the commit of this revision in the cache.
    return _small(order, name, order.revision)


def _weights(order: Order, commit: str, missing: dict[str, int]) -> None:
    """Download the missing files (name -> bytes), reporting progress over all of them."""
    done, total = 0, sum(missing.values())
    etags = {name: _etag(order, name, commit) for name in missing}
    _check_space(order, {etags[name]: size for name, size in missing.items()})
    for name, size in missing.items():
        _large(order, name, commit, etags[name], size, lambda here: tell(done=done + here, total=total))  # noqa: B023
        done += size


def _small(order: Order, name: str, revision: str | None) -> Path:
    """Download a file by the Hub's library, which only links one whose content is in its cache."""

    def download() -> Path:
        return Path(hf_hub_download(order.repo, name, revision=revision, etag_timeout=order.timeout))

    return _patiently(download, order)


def _etag(order: Order, name: str, commit: str) -> str:
    """Return the ETag of a file, the name of its content in the cache."""
    url = hf_hub_url(order.repo, name, revision=commit)
    return str(_patiently(lambda: get_hf_file_metadata(url, timeout=order.timeout), order).etag)


def _large(order: Order, name: str, commit: str, etag: str, size: int, report: Callable[[int], None]) -> None:
    """Download a file of weights into the cache, resuming an earlier attempt, and check its content."""
    url = hf_hub_url(order.repo, name, revision=commit)
    blob, part = order.blob(etag), order.part(etag)
    blob.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(blob.with_name(f"{etag}.lock")):  # two runs may want the same model
        for attempt in range(2):
            if _size(blob) == size:
                break
            _patiently(lambda: _stream(order, url, part, size, report), order, lambda: _size(part))
            if _is_named_by(etag, part):
                os.replace(part, blob)
            else:
                part.unlink()
                if attempt:
                    raise AdaFlowError(f"{name} of {order.repo} arrived damaged twice; try again later")
    (order.store / "snapshots" / commit / name).unlink(missing_ok=True)  # a link to what was damaged
    _small(order, name, commit)


def _is_named_by(etag: str, path: Path) -> bool:
    """Whether a file's SHA-256 is its ETag; true for small files, whose ETags are no SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return len(etag) != len(digest) or etag == digest


def _stream(order: Order, url: str, part: Path, size: int, report: Callable[[int], None]) -> None:
    there = _size(part)
    if there > size:
        part.unlink()
        there = 0
    report(there)
    if there == size:
        return
    headers = build_hf_headers() | {"Accept-Encoding": "identity", "Range": f"bytes={there}-"}
    with get_session().stream("GET", url, headers=headers, timeout=order.timeout) as response:
        hf_raise_for_status(response)
        # Unbuffered: what has arrived is there, whenever this process ends.
        with part.open("ab" if response.status_code == 206 else "wb", buffering=0) as file:
            reported = time.monotonic()
            for chunk in response.iter_raw():
                file.write(chunk)
                if time.monotonic() > reported + _REPORT:
                    report(file.tell())
                    reported = time.monotonic()
    report(_size(part))
    if _size(part) != size:
        part.unlink()
        raise httpx2.RemoteProtocolError("the file has another size than the Hub says")


def _patiently(call: Callable[[], T], order: Order, got: Callable[[], int] = lambda: 0) -> T:
    """Call `call` again after transient failures; an attempt that got further resets the waiting times."""
    waits, before = list(order.patience), got()
    while True:
        try:
            return call()
        except _REACHED as problem:
            if got() > before:
                waits, before = list(order.patience), got()
            # Where the Hub cannot be reached at all, waiting rarely helps.
            if not waits or not passes(cause(problem)) or (not before and isinstance(problem, NO_WAY)):
                raise
            wait = max(waits.pop(0), _asked_for(cause(problem)))
            tell(waiting=wait)
            time.sleep(wait)


def _asked_for(problem: BaseException) -> float:
    """Return the seconds that the Hub asks to wait."""
    if not isinstance(problem, HfHubHTTPError):
        return 0.0
    headers = problem.response.headers
    limit = parse_ratelimit_headers(headers)
    after = headers.get("Retry-After", "")
    return min(float(limit.reset_in_seconds if limit else after if after.isdigit() else 0), _LONGEST)


def _check_space(order: Order, sizes: dict[str, int]) -> None:
    """Raise AdaFlowError if the disk has no room for those contents (etag -> bytes) that are not in the cache yet."""
    needed = 0
    for etag, size in sizes.items():
        there = _size(order.part(etag))
        if _size(order.blob(etag)) != size:
            needed += size - (there if there <= size else 0)  # what is longer is thrown away
    order.store.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(order.store).free
    if needed > free:
        raise AdaFlowError(
            f"{order.repo} needs {needed / 1e9:.1f} GB more and {constants.HF_HUB_CACHE} has {free / 1e9:.1f} GB free; "
            "free some space, or set HF_HOME to a folder on a larger disk"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


if __name__ == "__main__":
    sys.exit(main())
