"""A finished edit: what it is, and its files."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adaflow_core.engine.projects import with_over
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.project import Project
from adaflow_core.picture.by_hand import ByHand
from adaflow_core.picture.full_size import deliver_edit, source_size
from adaflow_core.picture.region import Region
from adaflow_core.progress import Monitor, Report
from adaflow_core.report.scores import Scores
from adaflow_core.storage.arrays import copied
from adaflow_core.types import EditResult, Plan
from adaflow_core.video.types import Video
from webui.messages import without_folders

if TYPE_CHECKING:
    from webui.jobs.safety import SafetyChecker

_MADE_BY_AI = "Edited by AI (AdaFlow). What it shows was changed by a diffusion model."
_LONGEST = 100  # bytes of each part of a name; file systems take 255 in all


@dataclass(frozen=True)
class FinishedEdit:
    """The files, frames, scores and warnings of an edit."""

    folder: Path
    source: Path  # the frames that were edited, at the working size
    edit: Path
    delivered: Path  # the edit at the source's size, where that is larger; else `edit`
    report: Path
    project: Path | None  # None: it could not be written
    before: np.ndarray  # [T, H, W, 3] uint8, a memory map
    after: np.ndarray  # [T, H, W, 3] uint8, a memory map
    fps: float
    video: str  # the name of the file that was edited
    prompt: str
    settings: str  # those that differ from the model's own, as flags, and the last retake
    scores: Scores
    command: str  # repeats the edit in a shell
    reused: bool  # the inversion came from the cache
    edited: int  # frames that the model edited; the others were carried
    warnings: tuple[str, ...]
    # The `EditTask` that a retake starts from, with a `PlanOutline` in place of its plan, which takes up to 150 MB. It
    # stays in the page's process.
    asked: Any = None
    parent: str = ""  # the job of the edit that this one is a retake of
    stretch: tuple[int, int] | None = None  # first frame and end of the last retake

    def held_bytes(self) -> int:
        """Bytes of its files, and of `after` if it is in no file any more. `before` belongs to the cache."""
        name = getattr(self.after, "filename", None)
        apart = 0 if name and Path(name).is_file() else self.after.nbytes
        return apart + sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())

    def seconds(self, frame: int) -> float:
        """Seconds at which a frame of the edit begins; the number of frames gives the end of the last one."""
        return frame / self.fps if self.asked is None else self.asked.plan.video.seconds_in(frame)

    def result(self, plan: Plan) -> EditResult:
        """Rebuild the engine's result from the files, on the given plan."""
        report = json.loads(self.report.read_text(encoding="utf-8"))
        return EditResult.of(plan.video, self.after, report, self.warnings)


def write_finished(
    folder: Path,
    plan: Plan,
    result: EditResult,
    project: Project,
    prompt: str,
    command: str,  # of an edit with this prompt and these settings
    scores: Scores,
    monitor: Monitor,
    *,
    public: bool,
    whole: bool = True,  # whether the command alone repeats the edit; otherwise it needs the project
    deliver: str = "source",
    over: tuple[Region | None, ByHand | None] = (None, None),
) -> FinishedEdit:
    """Write source, edit, report and project into a new folder, under names that say which clip and prompt it is."""
    video, files = plan.video, _files(folder, project.video.stem, prompt)
    settings, stretch = _settings(command, project.takes)
    with _made(folder):
        # The source is written as an edit that changed nothing.
        EditResult.of(video, video.frames, {}, ()).save(files["source"], monitor=monitor)
        metadata = {"comment": _MADE_BY_AI} if public else None
        delivered = replace(result, state=None).save(files["edit"], metadata, monitor)
        if deliver == "source":
            result, delivered = _deliver(files["full size"], delivered, result, video, metadata, monitor)
        lost = _save(with_over(project, *over, folder), files["project"])
        if lost:
            result = replace(result, warnings=(*result.warnings, lost))
        elif not whole or any(over):  # regions and keyframes by hand are only in the project
            command = _project_command(project, files["project"], deliver, command)
        report = result.report | {"model": project.model, "scores": asdict(scores), "command": command}
        files["report"].parent.mkdir()
        files["report"].write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        result = replace(result, frames=_on_disk(files["frames"], result.frames))
    result.forget_state()  # only now: where one file cannot be written, none is kept
    return FinishedEdit(
        folder=folder,
        before=video.frames,
        after=result.frames,
        fps=float(video.fps),
        video=project.video.name,
        prompt=prompt,
        settings=settings,
        scores=scores,
        command=command,
        reused=bool(result.report.get("inversion_reused")),
        edited=len(result.report.get("edited", result.frames)),
        warnings=(*dict.fromkeys((*result.warnings, *map(without_folders, monitor.notes))), *scores.warnings),
        source=files["source"],
        edit=files["edit"],
        delivered=delivered,
        report=files["report"],
        project=None if lost else files["project"],
        stretch=stretch,
    )


def _files(folder: Path, clip: str, prompt: str) -> dict[str, Path]:
    """Paths of the files, each in its own secret subfolder, so that one file's address does not reveal another's."""
    name = file_name(clip, prompt)
    names = {
        "source": f"{file_name(clip, 'source')}.mp4",
        "edit": f"{name}.mp4",
        "full size": f"{name}-full-size.mp4",
        "report": f"{name}.json",
        "project": f"{name}-project.json",
        "frames": "frames.npy",
    }
    return {kind: folder / secrets.token_urlsafe(12) / name for kind, name in names.items()}


def _save(project: Project, path: Path) -> str:
    """Write the project; return a warning if it cannot be written, such as for too many pictures, else ""."""
    try:
        project.save(path, name=project.video.name)
    except AdaFlowError as problem:
        return without_folders(f"there is no project file: {problem}")
    return ""


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make `folder`, and delete it with its files if the body fails or is stopped."""
    folder.mkdir(parents=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _on_disk(path: Path, frames: np.ndarray) -> np.ndarray:
    """Return the frames as a memory map, written to `path` if they are in memory, as they are kept for long."""
    if isinstance(frames, np.memmap):
        return frames
    path.parent.mkdir()
    np.save(path, frames)
    return np.load(path, mmap_mode="r")


def _deliver(
    path: Path, edit: Path, result: EditResult, video: Video, metadata: dict[str, str] | None, monitor: Monitor
) -> tuple[EditResult, Path]:
    """Write the edit at its source's size if that is larger than the working size; on failure, add a warning."""
    try:
        if source_size(video) is None:
            return result, edit
        written = deliver_edit(path, replace(result, state=None), video, metadata=metadata, monitor=monitor)
        return result, written.path
    except AdaFlowError as problem:
        warning = without_folders(f"{problem}; it was delivered at the working size")
        # Without its state, which stays: the same edit is delivered once its source is back.
        return replace(result, warnings=(*result.warnings, warning), state=None), edit


def _project_command(project: Project, file: Path, deliver: str, command: str) -> str:
    """Return the shell command that repeats the project; the precision, which it lacks, is taken from `command`."""
    precision = [word for word in shlex.split(command) if word.startswith("--dtype=")]
    words = ["python", "-m", "adaflow_core", "edit", project.video.name, f"--project={file.name}", *precision]
    return shlex.join(words if deliver == "source" else [*words, f"--deliver={deliver}"])


def file_name(*parts: str) -> str:
    """Make a file name for a download from typed text: letters of any language and digits, at most 100 bytes a part."""
    words = (re.sub(r"[\W_]+", "-", part).strip("-").encode()[:_LONGEST] for part in parts)
    # `errors="ignore"` drops a character that the cut left incomplete.
    return "-".join(word.decode(errors="ignore").strip("-") or "video" for word in words)


def without_previews(report: Report) -> Report:
    return lambda progress: report(replace(progress, preview=None))


def blacken_unsafe(checker: SafetyChecker, frames: np.ndarray, monitor: Monitor) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return frames [T, H, W, 3] with those that the checker flags in black, and warnings about them.

    `frames` is not changed, as it may be a read-only memory map.
    """
    unsafe = checker.unsafe(frames, monitor)
    if not unsafe.any():
        return frames, ()
    frames = copied(frames)
    frames[unsafe] = 0
    return frames, (f"the model's safety checker held back {unsafe.sum()} of {len(unsafe)} frames: they are black",)


def _settings(command: str, takes: Sequence[dict[str, Any]]) -> tuple[str, tuple[int, int] | None]:
    """Describe an edit's settings for the page, and return the frames of its last retake.

    The description has the flags of the command except prompts, which are shown beside it, and the project's file.
    """
    flags = [word for word in shlex.split(command) if word.startswith("--")]
    said = " ".join(flag for flag in flags if not flag.startswith(("--prompt", "--source-prompt", "--project")))
    if not takes:
        return said, None
    first, end = takes[-1]["frames"]
    settings = takes[-1]["settings"]
    again = f"frames {first} to {end - 1} again, seed {settings['seed']}"
    varied = f"variation {settings['variation']:g}" if settings.get("variation") else ""
    return ", ".join(filter(None, (said, again, varied))), (first, end)
