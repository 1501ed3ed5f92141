"""The files of a finished edit: their names, and what is left of them where writing fails."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.errors import Stopped
from adaflow_core.film.project import Project
from adaflow_core.progress import Monitor
from adaflow_core.report.scores import Scores
from adaflow_core.types import EditResult
from adaflow_core.video.decode import decode_video
from webui.jobs.finished import _project_command, _settings, blacken_unsafe, file_name, write_finished

CLIP = Path(__file__).resolve().parents[3] / "assets/clips/ball.mp4"
NONE: Any = None


@pytest.mark.parametrize("first_file", [False, True])
def test_a_write_that_is_stopped_leaves_no_files(first_file: bool, tmp_path: Path) -> None:
    video = decode_video(CLIP, size=(64, 64), frames=slice(0, 2))
    result = replace(EditResult.of(video, np.asarray(video.frames), {}, ()), state=tmp_path / "state")
    project = Project(CLIP, PlanConfig(), EditConfig(), ())
    folder = tmp_path / "made"
    (tmp_path / "state").touch()
    seen: list[bool] = []

    def stop() -> bool:
        seen.append(any(folder.rglob("*.mp4")))
        return seen[-1] or not first_file

    with pytest.raises(Stopped):
        write_finished(
            folder, SimpleNamespace(video=video), result, project, "a ball", "", NONE, Monitor(stop=stop), public=False
        )
    assert seen[-1] == first_file and not folder.exists()
    assert (tmp_path / "state").exists(), "the edit goes on from it"


def test_an_edit_whose_project_cannot_be_written_is_delivered_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaflow_core.film.project.JSON_BYTES", 100)
    video = decode_video(CLIP, size=(64, 64), frames=slice(0, 2))
    result = EditResult.of(video, np.array(video.frames), {"takes": ()}, ())
    project, folder = Project(CLIP, PlanConfig(), EditConfig(), ()), tmp_path / "made"
    plan: Any = SimpleNamespace(video=video)
    made = write_finished(folder, plan, result, project, "a ball", "", Scores(1.0, None, None), Monitor(), public=False)
    assert made.project is None and made.edit.is_file() and "no project file" in made.warnings[0]
    folders = [made.source.parent, made.edit.parent, made.report.parent]
    assert len({*folders, folder}) == 4, "the address of one file does not tell another one's"


def test_what_an_edit_takes_is_counted_and_its_frames_are_not_kept_in_memory(tmp_path: Path) -> None:
    video = decode_video(CLIP, size=(64, 64), frames=slice(0, 2))
    result = replace(EditResult.of(video, np.array(video.frames), {"takes": ()}, ()), state=tmp_path / "state")
    project = Project(CLIP, PlanConfig(), EditConfig(), ())
    folder = tmp_path / "made"
    (tmp_path / "state").touch()
    plan: Any = SimpleNamespace(video=video)
    made = write_finished(folder, plan, result, project, "a ball", "", Scores(1.0, None, None), Monitor(), public=False)
    assert isinstance(made.after, np.memmap) and np.array_equal(made.after, video.frames)
    assert not (tmp_path / "state").exists()
    files = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert made.held_bytes() == files > made.after.nbytes
    with tempfile.TemporaryFile() as unnamed:  # as a large scratch array has
        frames = np.memmap(unnamed, np.uint8, "w+", shape=(5, 8, 8, 3))
    assert replace(made, after=frames).held_bytes() == files + frames.nbytes


def test_a_project_is_repeated_in_the_precision_of_the_page(tmp_path: Path) -> None:
    project = Project(CLIP, PlanConfig(), EditConfig(), ())
    command = "python -m adaflow_core edit ball.mp4 '--prompt=--dtype=float16' --dtype=float32 --steps=3"
    said = "python -m adaflow_core edit ball.mp4 --project=film.json"
    assert _project_command(project, tmp_path / "film.json", "source", command) == f"{said} --dtype=float32"
    assert _project_command(project, tmp_path / "film.json", "working", "") == f"{said} --deliver=working"


@pytest.mark.parametrize("letter", ["a", "я", "球", "𠀀"])
def test_the_longest_name_fits_a_file_system(letter: str) -> None:
    name = f"{file_name(letter * 300, 'x' + letter * 300)}-full-size.mp4"
    assert 200 <= len(name.encode()) <= 255
    assert set(name.removesuffix("-full-size.mp4")) == {letter, "x", "-"}, "no character is broken"


def test_frames_that_cannot_be_written_to_are_blackened_in_a_copy() -> None:
    frames = np.full((3, 2, 2, 3), 9, np.uint8)
    frames.flags.writeable = False  # as those of a team are
    flagged = np.array([False, True, False])
    checker: Any = SimpleNamespace(unsafe=lambda frames, monitor: flagged)
    shown, warnings = blacken_unsafe(checker, frames, Monitor())
    assert (shown == 0).all(axis=(1, 2, 3)).tolist() == flagged.tolist() and (frames == 9).all()
    assert "1 of 3 frames" in warnings[0]


def test_takes_of_one_seed_are_told_apart_by_their_variation() -> None:
    def said(variation: float) -> str:
        return _settings("", [{"frames": [2, 5], "settings": {"seed": 7, "variation": variation}}])[0]

    assert said(0.0) == "frames 2 to 4 again, seed 7"
    assert said(0.3) == "frames 2 to 4 again, seed 7, variation 0.3"
