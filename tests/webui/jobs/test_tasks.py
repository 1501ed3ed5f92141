"""An edit for strangers: checked and marked."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from adaflow_core.config import EditConfig, PlanConfig
from adaflow_core.film.timeline import PromptRange, Timeline
from adaflow_core.progress import Progress
from adaflow_core.types import Plan
from helpers.models.pipelines import save_checker
from webui.jobs.engines import Engines
from webui.jobs.tasks import EditTask, PlanTask, Request


@pytest.mark.parametrize("threshold", [-2.0, 2.0])  # of a cosine: holds everything back, nothing
def test_an_edit_for_strangers_is_checked_and_marked(
    threshold: float,
    tiny_folder: Callable[[str], Path],
    drawn_clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ADAFLOW_CACHE", str(tmp_path / "cache"))
    folder = shutil.copytree(tiny_folder("sd1"), tmp_path / "checked")
    save_checker(folder, threshold)
    engines = Engines("cpu", public=True)
    request = Request(str(drawn_clip), PlanConfig(keyframes=2), size=(64, 64), frames=slice(0, 4))
    plan = PlanTask(str(folder), request).run(engines, lambda progress: None, lambda: False)
    assert isinstance(plan, Plan)
    reports: list[Progress] = []
    asked = Timeline((PromptRange(0, 4, "1:2 a blue ball"),))  # which is no range of a film under one prompt
    task = EditTask(str(folder), "a name", request, plan, asked, EditConfig(steps=1), tmp_path / "made", expected=1)
    edited = task.run(engines, reports.append, lambda: False)
    black = threshold < 0
    assert (edited.after == 0).all() == black and ("4 of 4 frames" in " ".join(edited.warnings)) == black
    assert "check" in {report.stage for report in reports}
    assert all(report.preview is None for report in reports), "nothing of it is shown before it is checked"
    report = json.loads(edited.report.read_text(encoding="utf-8"))
    assert report["model"] == "a name" and str(tmp_path) not in edited.report.read_text(encoding="utf-8")
    assert "'--prompt=0:4 1:2 a blue ball'" in edited.command
    assert "--model='a name'" in edited.command or "'--model=a name'" in edited.command
    with av.open(str(edited.edit)) as container:
        assert "Edited by AI" in container.metadata["comment"]
    with av.open(str(edited.source)) as container:
        assert "comment" not in container.metadata, "the source was not"
    if shutil.which("ffprobe"):
        comment = subprocess.run(
            ["ffprobe", "-v", "error", "-show_entries", "format_tags=comment", "-of", "default=nw=1:nk=1", edited.edit],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert comment.stdout.startswith("Edited by AI (AdaFlow)")
