"""Digests of files, checksums, and relative paths, by which files are recorded."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from pathlib import Path

from adaflow_core.progress import in_threads
from adaflow_core.storage.pictures import pictures_in

_BLOCK = 2**23  # bytes of a file whose CRC one thread computes


def content_digest(path: Path) -> str:
    """Digest a file's content, or the names and contents of a folder's pictures: for records that last."""
    if not path.is_dir():
        return _file_digest(path)
    digest = hashlib.blake2b(digest_size=16)
    for file in pictures_in(path):
        digest.update(f"{file.name} {_file_digest(file)}\n".encode())
    return digest.hexdigest()


def quick_digest(path: Path) -> str:
    """Digest a file's content, or the names, sizes and times of a folder's pictures: for keys of the cache.

    A folder's pictures are not read, because this is called whenever a video is opened.
    """
    if not path.is_dir():
        return _file_digest(path)
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in pictures_in(path)]
    return hashlib.blake2b(json.dumps(states).encode(), digest_size=16).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def size_and_crc(path: Path) -> list[int]:
    """Return [size in bytes, CRC-32 of the CRC-32s of its blocks]: fast; it finds damage, but not forgery."""
    size = path.stat().st_size

    def of_block(begin: int) -> int:
        with path.open("rb") as content:
            content.seek(begin)
            return zlib.crc32(content.read(_BLOCK))

    blocks: list[int] = []
    in_threads(of_block, range(0, size, _BLOCK), blocks.append)
    return [size, zlib.crc32(",".join(map(str, blocks)).encode())]


def relative_path(path: Path, folder: Path) -> str:
    """Return `path` relative to `folder`, for files that are moved together.

    Links to folders are followed, a link to the file itself is not: the file behind it, such as a blob in the Hub's
    cache, has another name and belongs to others. On Windows a
    file on another drive keeps its absolute path.
    """
    whole = path.parent.resolve() / path.name
    try:
        return Path(os.path.relpath(whole, folder.resolve())).as_posix()
    except ValueError:  # on another drive of Windows
        return whole.as_posix()
