"""How a file is recorded: by a digest of what is in it, and by where it lies."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from pathlib import Path

from adaflow_core.progress import in_threads
from adaflow_core.storage.pictures import pictures_in

_BLOCK = 2**23  # bytes of a file of which a thread takes the CRC


def content_digest(path: Path) -> str:
    """A digest of a file's content, or of the names and contents of a folder's pictures: for records that last."""
    if not path.is_dir():
        return _file_digest(path)
    digest = hashlib.blake2b(digest_size=16)
    for file in pictures_in(path):
        digest.update(f"{file.name} {_file_digest(file)}\n".encode())
    return digest.hexdigest()


def quick_digest(path: Path) -> str:
    """A digest of a file's content, or of the names, sizes and times of a folder's pictures: for keys of the cache.

    A folder's pictures are not read, as this is asked for whenever a video is opened.
    """
    if not path.is_dir():
        return _file_digest(path)
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in pictures_in(path)]
    return hashlib.blake2b(json.dumps(states).encode(), digest_size=16).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def size_and_crc(path: Path) -> list[int]:
    """A file's bytes, and a CRC-32 of those of its blocks: quick, and against damage, not against malice."""
    size = path.stat().st_size

    def of_block(begin: int) -> int:
        with path.open("rb") as content:
            content.seek(begin)
            return zlib.crc32(content.read(_BLOCK))

    blocks: list[int] = []
    in_threads(of_block, range(0, size, _BLOCK), blocks.append)
    return [size, zlib.crc32(",".join(map(str, blocks)).encode())]


def relative_path(path: Path, folder: Path) -> str:
    """`path` as it lies from `folder`, for files that are moved together; a link by its own name.

    Where a link leads, such as from the Hub's cache to one of its blobs, files have other names and belong to others.
    """
    whole = path.parent.resolve() / path.name
    try:
        return Path(os.path.relpath(whole, folder.resolve())).as_posix()
    except ValueError:  # on another drive of Windows
        return whole.as_posix()
