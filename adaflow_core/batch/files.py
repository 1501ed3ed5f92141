"""Reads and writes files in a folder or a bucket by fsspec; a file is complete or absent.

`s3://bucket/path` needs the package s3fs, `gs://bucket/path` gcsfs.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from adaflow_core.errors import AdaFlowError, Stopped

PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
AT_ONCE = 32  # requests to a bucket


def join(root: str, name: str) -> str:
    """Return `name` within `root`, or `name` if it is an absolute path or a URL itself."""
    if not root or "://" in name or Path(name).is_absolute():
        return name
    return f"{root.rstrip('/')}/{name}"


def absolute(path: str) -> str:
    """Return an absolute path; a URL is returned as it is."""
    return path if "://" in path else str(Path(os.path.expanduser(path)).absolute())


@dataclass(frozen=True)
class Storage:
    """A folder by its path, or a bucket by its URL. Names within it have slashes; folders are made as needed.

    Every method raises AdaFlowError, with the remedy, if the place cannot be reached, read or written.
    """

    root: str

    def exists(self, name: str) -> bool:
        with _place(join(self.root, name)) as (files, path):
            return bool(files.exists(path))

    def names(self, folder: str, suffix: str) -> list[str]:
        """Return the names of all files under `folder` that end in `suffix`, sorted."""
        with _place(join(self.root, folder)) as (files, path):
            files.invalidate_cache()  # others write here too
            found = files.find(path) if files.exists(path) else []
            return sorted(f"{folder}{name[len(path) :]}" for name in found if name.endswith(suffix))

    def read(self, name: str) -> bytes:
        with _place(join(self.root, name)) as (files, path):
            return bytes(files.cat_file(path))

    def find_json(self, name: str) -> dict[str, Any] | None:
        """Return the object in a JSON file, or None if the file is missing or damaged."""
        with _place(join(self.root, name)) as (files, path):
            return _object_in(files, path) if files.exists(path) else None

    def read_all(
        self, folder: str, suffix: str, unreadable: Callable[[str], object] = lambda name: None
    ) -> dict[str, dict[str, Any]]:
        """Return the objects in all JSON files under `folder`, by name; `unreadable` gets damaged ones' names."""
        names = self.names(folder, suffix)
        with _place(join(self.root, folder)) as (files, path), ThreadPoolExecutor(AT_ONCE) as threads:
            # fsspec can read many files at once itself, but takes [, * and ? in their paths as patterns.
            paths = [f"{path}{name[len(folder) :]}" for name in names]
            found = dict(zip(names, threads.map(partial(_object_in, files), paths), strict=True))
        for name in names:
            if found[name] is None:
                unreadable(name)
        return {name: content for name, content in found.items() if content is not None}

    def write(self, name: str, data: bytes) -> None:
        with _place(join(self.root, name)) as (files, path), _whole(files, path) as part:
            files.pipe_file(part, data)

    def write_json(self, name: str, data: Any) -> None:
        self.write(name, json.dumps(data, indent=1, allow_nan=False).encode())

    def put(self, file: Path, name: str) -> None:
        """Copy a local file to `name`."""
        with _place(join(self.root, name)) as (files, path), _whole(files, path) as part:
            files.put_file(str(file), part)

    def fetch(self, name: str, folder: Path) -> Path:
        """Return a path on this machine: the file's own, or that of a copy in `folder`."""
        with _place(join(self.root, name)) as (files, path):
            if _is_local(files):
                return Path(path)
            copy = folder / Path(path).name
            files.get_file(path, str(copy))
            return copy


def _object_in(files: Any, path: str) -> dict[str, Any] | None:
    """Return the object in a JSON file; None if it is damaged, or a disk cannot read it.

    An error of a bucket is raised: the file may be intact there.
    """
    try:
        found = json.loads(files.cat_file(path))
    except ValueError:
        return None
    except OSError:
        if not _is_local(files):
            raise
        return None
    return found if isinstance(found, dict) else None


def _is_local(files: Any) -> bool:
    return "file" in ([files.protocol] if isinstance(files.protocol, str) else files.protocol)


@contextmanager
def _place(url: str) -> Iterator[tuple[Any, str]]:
    """Yield the file system of a path or URL and the path in it; its errors become AdaFlowError with the remedy."""
    from fsspec import filesystem
    from fsspec.core import url_to_fs

    try:
        # A path is not parsed as a URL, in which "::" begins another URL.
        yield url_to_fs(url) if "://" in url else (filesystem("file"), Path(absolute(url)).as_posix())
    except FileNotFoundError as problem:
        raise AdaFlowError(f"{url} does not exist; check the path") from problem
    except ImportError as problem:
        package = PACKAGES.get(url.partition("://")[0])
        remedy = f"install {package}" if package else str(problem)
        raise AdaFlowError(f"{url} cannot be reached from here: {remedy}") from problem
    except (OSError, ValueError) as problem:
        raise _unusable(url, problem) from problem
    except (AdaFlowError, Stopped):  # of the block
        raise
    except Exception as problem:  # a bucket's package raises its own types, as botocore's NoCredentialsError
        if "://" not in url:
            raise
        raise _unusable(url, problem) from problem


def _unusable(url: str, problem: Exception) -> AdaFlowError:
    said = str(problem).strip() or type(problem).__name__
    return AdaFlowError(f"{url} cannot be read or written ({said}); check path and permissions")


@contextmanager
def _whole(files: Any, path: str) -> Iterator[str]:
    """Yield a temporary name that is renamed to `path` after the block. Objects in a bucket appear complete anyway."""
    if not _is_local(files):
        yield path
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        yield str(part)
        with part.open("rb+") as file:  # else a power failure may leave the name without the content
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
