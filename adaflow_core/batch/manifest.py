"""Reads and writes the manifest of a batch: one JSON object per line, each a clip with its prompts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from adaflow_core.batch.files import Storage, join
from adaflow_core.errors import AdaFlowError
from adaflow_core.video.types import parse_range, parse_size

_EXAMPLES = {"frames": ', as "0:48"', "size": ', as "672x384"'}
# Valid in file and object names everywhere: Windows cuts a dot off the end, and keeps names of devices for itself.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9_-])?")
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Clip:
    """A video with its prompts."""

    id: str  # names its results
    video: str  # a path or URL; a relative path is in `folder`
    prompts: dict[str, str]  # name, such as "style" -> prompt
    source_prompt: str = ""  # what is in the video
    frames: str | None = None  # only these, as "0:48"
    size: str | None = None  # the working size, as "672x384"; None: the model's own
    fps: float | None = None  # of a folder of pictures; None: 24
    meta: dict[str, Any] = field(default_factory=dict)  # anything else, for the scorer
    folder: str = ""  # of the manifest

    @property
    def location(self) -> str:
        return join(self.folder, self.video)


def read_manifest(path: str) -> list[Clip]:
    """Read the clips of a manifest at a path or URL; an AdaFlowError names the wrong line.

    A line holds `video` and `prompts` (an object, or a list) or `prompt`; the other fields of `Clip` are optional.
    """
    # Absolute: a relative path would be looked up in the folder of the results, or in a Ray worker's.
    folder = path.rpartition("/")[0] if "://" in path else str(Path(path).resolve().parent)
    data = Storage("").read(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        number = data.count(b"\n", 0, problem.start) + 1
        raise AdaFlowError(f"{path}, line {number}: this is not UTF-8; save the file as UTF-8") from None
    clips: dict[str, Clip] = {}
    # Not by splitlines(), which also splits at characters that a prompt may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            clip = _clip(json.loads(line), folder)
        except (ValueError, AdaFlowError) as problem:  # JSON's errors are ValueErrors
            raise AdaFlowError(f"{path}, line {number}: {problem}") from None
        if (other := clips.get(clip.id.casefold())) is not None:
            raise AdaFlowError(
                f"{path}, line {number}: there is a clip {other.id!r} already{_but_for_case(other.id, clip.id)}; give "
                "this one an id"
            )
        clips[clip.id.casefold()] = clip
    if not clips:
        raise AdaFlowError(f"{path} holds no clip; write one JSON object a line, with video and prompt")
    return list(clips.values())


def write_manifest(path: str, clips: Iterable[Clip]) -> None:
    """Write lines that `read_manifest` reads; empty fields are left out."""
    rows = [{name: value for name, value in asdict(clip).items() if name != "folder" and value} for clip in clips]
    Storage("").write(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def _clip(row: Any, folder: str) -> Clip:
    if not isinstance(row, dict) or not isinstance(row.get("video"), str):
        raise AdaFlowError("a line must be a JSON object with a video")
    row = dict(row)
    prompts, prompt = row.pop("prompts", None), row.pop("prompt", None)
    if prompts and prompt:
        raise AdaFlowError("a line has prompts and prompt; write all of them into prompts")
    prompts = prompts or prompt
    if isinstance(prompts, str):
        prompts = [prompts]
    if isinstance(prompts, list):
        prompts = {str(number): prompt for number, prompt in enumerate(prompts)}
    if not isinstance(prompts, dict) or not prompts:
        raise AdaFlowError("a line must hold prompts: an object, a list, or one prompt")
    if any(not isinstance(prompt, str) or not prompt.strip() for prompt in prompts.values()):
        raise AdaFlowError("a prompt is empty; say what the video should show")
    identity = row.pop("id", None)
    if identity is None:
        identity = PurePosixPath(row["video"]).stem
    if isinstance(identity, bool) or not isinstance(identity, (int, str)):
        raise AdaFlowError(f"id is {json.dumps(identity)}; write it in quotes")
    _check_names(str(identity), prompts)
    unknown = sorted(set(row) - {"video", "source_prompt", "frames", "size", "fps", "meta"})
    if unknown:
        raise AdaFlowError(f"unknown: {', '.join(unknown)}; put what is not for the edit into meta")
    row = {name: value for name, value in row.items() if value is not None}
    for name in ("source_prompt", "frames", "size"):
        if not isinstance(row.get(name, ""), str):
            raise AdaFlowError(f"{name} is {json.dumps(row[name])}; write it in quotes{_EXAMPLES.get(name, '')}")
    fps = row.get("fps", 24)
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps < math.inf:
        raise AdaFlowError(f"fps is {json.dumps(fps)}; write a number above 0, as 24")
    if not isinstance(row.get("meta", {}), dict):
        raise AdaFlowError("meta must be a JSON object")
    if row.get("frames"):
        parse_range(row["frames"])
    if row.get("size"):
        parse_size(row["size"])
    return Clip(id=str(identity), prompts=prompts, folder=folder, **row)


def _check_names(identity: str, prompts: Iterable[str]) -> None:
    """Raise AdaFlowError for a name of a clip or prompt that some system refuses, or two prompts that share a file."""
    for name in (identity, *prompts):
        if not _NAME.fullmatch(name):
            raise AdaFlowError(
                f"{name!r} cannot name a result; take letters, digits, dot, dash and underscore, and no dot at the end"
            )
        if _DEVICE.fullmatch(name):
            raise AdaFlowError(f"{name!r} cannot name a result: Windows has a device of that name; take another")
    seen: dict[str, str] = {}
    for name in prompts:
        if (other := seen.setdefault(name.casefold(), name)) != name:
            raise AdaFlowError(f"there is a prompt {other!r} already{_but_for_case(other, name)}; rename {name!r}")


def _but_for_case(one: str, other: str) -> str:
    return "" if one == other else ", and some systems do not tell capital letters apart"
