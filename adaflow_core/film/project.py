"""A project: a small JSON file from which an edit can be made again, also on another machine.

`settings` are those that were asked for, with null where the model decides. `prompts` is a list of
{"frames": [first, end], "prompt": text}; `takes` is a list of the same with `settings` added, each laid over those
before it. Files of the `model` are named relative to the project and begin like "./toon"; any other name is one on the
Hub. `region` and `by_hand` name their pictures or contain them (`picture/region/files.py`). Unknown fields of a file
are kept when it is saved. `engine/projects.py` makes the film of a project.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from adaflow_core.config import EditConfig, PlanConfig, edit_of, read_json, read_settings, settings_dict
from adaflow_core.config.saved import JSON_BYTES
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.timeline import CROSSFADE, Timeline, ranges_of
from adaflow_core.model.files.parts import ModelParts, is_path
from adaflow_core.model.hub.client import on_disk
from adaflow_core.storage.digests import content_digest, relative_path

VERSION = 1
_KIND = "adaflow project"


@dataclass(frozen=True)
class Project:
    """What an edit is made from. Only `video` is specific to this machine."""

    video: Path
    plan: PlanConfig
    edit: EditConfig
    prompts: tuple[dict[str, Any], ...]  # {"frames": [first, end], "prompt": text}
    model: str = "embedded"  # as the engine takes it
    size: str | None = None  # as on the command line: WxH
    frames: str | None = None  # as on the command line: A:B
    keyframes: tuple[int, ...] = ()  # those that were found, to tell if another machine finds different ones
    takes: tuple[dict[str, Any], ...] = ()
    crossfade: int = CROSSFADE  # frames
    fps: float | None = None  # of a folder of pictures; None: the usual rate
    region: dict[str, Any] | None = None  # as `Region.as_json` gives it for `folder`
    by_hand: Any = None  # as `ByHand.as_json` gives it
    folder: Path = Path()  # the folder of the project's file
    rest: dict[str, Any] = field(default_factory=dict)  # unknown fields of the file
    checksum: str | None = None  # of the video when it was planned; None: computed when the project is saved

    @property
    def timeline(self) -> Timeline:
        return Timeline(ranges_of(list(self.prompts)), self.crossfade)

    def save(self, path: str | Path, name: str | None = None) -> None:
        """Write the project to `path`, as a whole or not at all.

        The video and the model's files are named relative to the project's folder. With a `name`, for files that are
        moved elsewhere together, the video gets this name and the model's names stay as they are. Raises AdaFlowError
        if the file cannot be written, or would be too large to be opened.
        """
        path, video = Path(path), Path(self.video)
        try:
            known = self.checksum or content_digest(video)
        except OSError as problem:
            raise AdaFlowError(
                f"the project {path} cannot be written without its video; put {video} back ({problem.strerror})"
            ) from problem
        content = {
            "kind": _KIND,
            "version": VERSION,
            "video": {"path": name or relative_path(video, path.parent), "checksum": known},
            "model": _as_it_lies(self.model, None if name else path.parent),
            "size": self.size,
            "frames": self.frames,
            "settings": settings_dict(self.plan, self.edit),
            "keyframes": list(self.keyframes),
            "prompts": list(self.prompts),
            "takes": list(self.takes),
            "crossfade": self.crossfade,
            "region": self.region,
            "by_hand": self.by_hand,
            **({} if self.fps is None else {"fps": self.fps}),
        }
        text = json.dumps(content | self.rest, indent=1).encode()
        if len(text) > JSON_BYTES:
            raise AdaFlowError(
                f"the project {path} would have {math.ceil(len(text) / 2**20)} MiB with the pictures in it, and could "
                f"not be opened: {JSON_BYTES // 2**20} MiB are the most; give fewer pictures, or give them as files"
            )
        part = path.with_name(f".{path.name}.{uuid4().hex}.part")  # other commands may write the project too
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(text)
            part.replace(path)
        except OSError as problem:
            raise AdaFlowError(
                f"the project {path} cannot be written; choose another ({problem.strerror})"
            ) from problem
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def open_project(path: str | Path, video: str | Path | None = None) -> Project:
    """Open the project in `path`; its video is `video`, or else the one the file names, or one beside the file."""
    path, video = Path(path), None if video is None else Path(video)
    content = _read(path)
    project = _project_of(content, path, video)
    if not project.video.exists():
        raise AdaFlowError(
            f"the video {project.video.name} of the project is not there; lay it beside {path}, or give it with the "
            "project"
        )
    if content_digest(project.video) != _video_of(content, path)[1]:
        raise AdaFlowError(
            f"{project.video} is not the video of the project {path}; give that one, or begin another project file"
        )
    return project


def _project_of(content: dict[str, Any], path: Path, video: Path | None) -> Project:
    """Return the project with the `content` of `path`; without a `video` it takes the one that the file names."""
    named = Path(_video_of(content, path)[0])
    try:
        prompts, takes = (tuple(dict(part) for part in content[name]) for name in ("prompts", "takes"))
        check_takes(takes, f"the takes of {path}")
        project = Project(
            video=video or _found(path.parent / named, path.parent / named.name),
            plan=PlanConfig(),
            edit=EditConfig(),
            prompts=tuple(part.as_json() for part in ranges_of(list(prompts), f"the prompts of {path}")),
            model=_as_it_is_found(str(content["model"]), path.parent),
            size=_text(content["size"]),
            frames=_text(content["frames"]),
            keyframes=tuple(map(int, content["keyframes"])),
            takes=takes,
            crossfade=content.get("crossfade", CROSSFADE),
            fps=content.get("fps"),
            region=content.get("region"),
            by_hand=content.get("by_hand"),
            folder=path.parent,
        )
    except (KeyError, TypeError, ValueError, OSError) as problem:
        raise AdaFlowError(
            f"the project {path} lacks a part, or has a wrong one; take a whole one ({problem})"
        ) from problem
    plan, edit = read_settings(path)
    known = {"kind", "version", "video", "settings", *(name for name in vars(project) if name in content)}
    rest = {name: value for name, value in content.items() if name not in known}
    if type(project.crossfade) is not int:
        raise AdaFlowError(f"the crossfade of the project {path} is {project.crossfade!r}; it is a number of frames")
    if not project.prompts:
        raise AdaFlowError(f"the project {path} has no prompt; write into its prompts what the video should show")
    whole = replace(project, plan=PlanConfig(**plan), edit=EditConfig(**edit), rest=rest)
    _ = whole.timeline  # its ranges must not overlap
    return whole


def takes_added(path: Path, opened: Project | None) -> tuple[dict[str, Any], ...]:
    """Return the takes that were added to the project in `path` since it was `opened` (None: there was no file).

    Raises AdaFlowError if anything else was changed.
    """
    if not path.exists():
        return ()
    if opened is not None:
        now, count = _project_of(_read(path), path, opened.video), len(opened.takes)
        if replace(now, takes=now.takes[:count]) == opened:
            return now.takes[count:]
    raise AdaFlowError(
        f"the project {path} was changed by another command meanwhile, and stays as that left it; run the same command "
        "again, which goes on from what is edited"
    )


def check_takes(takes: Iterable[Any], where: str) -> None:
    """Raise AdaFlowError if one of `takes` is not a take; `where`: their source, for the message."""
    try:
        for take in takes:
            if not isinstance(take["prompt"], str):  # null leaves frames of a film to the source, and is no take
                raise TypeError(f"the prompt of a take is {take['prompt']!r:.80}")
            ranges_of([{name: take.get(name) for name in ("frames", "prompt", "source_prompt")}], where)
            edit_of(take["settings"])
    except (KeyError, TypeError) as problem:
        raise AdaFlowError(f"{where} hold what is no take; give them as a report has them ({problem})") from problem


def project_model(path: Path) -> str:
    """Return the model of the project in `path`, by the name in the file."""
    return str(_read(path).get("model", ""))


def _as_it_lies(model: str, folder: Path | None) -> str:
    """Return a model's name as a project in `folder` stores it: files get a path that cannot be taken for a Hub name.

    `folder`: None keeps paths as they are.
    """

    def near(name: str) -> str:
        path = None if name == "embedded" else on_disk(name)
        if path is None:
            return name
        text = path.as_posix() if folder is None else relative_path(path, folder)
        return text if is_path(text) else f"./{text}"

    return str(ModelParts.parse(model).renamed(near))


def _as_it_is_found(model: str, folder: Path) -> str:
    """Return the name for the engine of a `model` as stored in the file of a project in `folder`.

    A file that is not found gets an absolute path, so that it is looked for on this machine alone.
    """

    def there(name: str) -> str:
        if not is_path(name):
            return name
        path = Path(name)
        found = _found(folder / path, folder / path.name, path, (folder / path).absolute())
        tidy = os.path.normpath(found)
        return tidy if os.path.exists(tidy) and os.path.samefile(tidy, found) else str(found)

    return str(ModelParts.parse(model).renamed(there))


def project_video(path: Path) -> tuple[str, str]:
    """Return the file name and the checksum of the video of the project in `path`, whether or not the video exists."""
    name, known = _video_of(_read(path), path)
    return Path(name).name, known


def _video_of(content: dict[str, Any], path: Path) -> tuple[str, str]:
    """Return the path and the checksum of the video in the `content` of the project in `path`."""
    video = content.get("video")
    if not isinstance(video, dict) or not all(isinstance(video.get(key), str) for key in ("path", "checksum")):
        raise AdaFlowError(f"the project {path} does not say which video it is of; take a whole one")
    return video["path"], video["checksum"]


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path, "the project", "take a whole one")
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise AdaFlowError(f"{path} is no project; give a file that edit --project or --draft wrote")
    if content.get("version") != VERSION:
        raise AdaFlowError(
            f"the project {path} is of version {content.get('version')}, this program writes and reads {VERSION}; "
            "open it with the program that wrote it"
        )
    return content


def _found(*places: Path) -> Path:
    """Return the first of these that exists, or else the last."""
    return next((place for place in places if place.exists()), places[-1])


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
