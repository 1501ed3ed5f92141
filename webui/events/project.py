"""Events of projects: open a project file and show what it holds on the page."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from adaflow_core.errors import AdaFlowError, counted
from adaflow_core.film.project import Project, open_project, project_model, project_video
from adaflow_core.model.files.parts import ModelParts, is_path
from adaflow_core.model.hub.client import on_disk
from adaflow_core.storage.digests import content_digest
from adaflow_core.video.decode import probe
from adaflow_core.video.types import parse_range
from webui import views
from webui.events.common.follow import leave_video
from webui.events.common.outputs import (
    ProjectOutputs,
)
from webui.events.common.over import opened_from
from webui.events.common.rows import Rows
from webui.events.model import model_shown, side_of
from webui.jobs.queue import Begun
from webui.messages import refuse_on_error
from webui.settings import ALL, shown_values
from webui.studio import Studio
from webui.views import labels


class ProjectEvents:
    """Opens projects; `clips` are the bundled examples, which a project may name as its video."""

    def __init__(self, studio: Studio, clips: list[dict[str, str]]) -> None:
        self.studio, self.clips = studio, clips

    def open_project(
        self,
        path: str,
        video: str | None,
        expected: list[str] | None = None,
        begun: Begun | None = None,
        region_job_id: str = "",
    ) -> list[Any]:
        """Show what a project file holds. Its video must be the one on the page, or an example.

        The previous plan is cleared together with the previous prompt, so that the new prompt is never used with it.
        """
        with refuse_on_error():
            file = Path(path)
            project = open_project(file, self._video_of(file, video))
            if any(part.seconds for part in project.timeline.ranges):
                raise AdaFlowError("the prompts of the project are for seconds; write them for frames to open it here")
            model = self.studio.resolve_model(self._model_of(file))
            span, (over, said), ranges = _frames(project), opened_from(project), project.timeline.ranges
        frames = len(span)
        whole = (ranges[0].start, ranges[0].end, ranges[0].source_prompt) == (0, frames, None)
        prompts, takes = list(project.prompts), list(project.takes)
        words = f"Project of {project.video.name}: {counted(len(prompts), 'range')} with a prompt"
        words += f", {counted(len(takes), 'take')}, made again with the edit." if takes else "."
        outputs = ProjectOutputs(
            project_line=views.line(f"{words} {said}".strip()),
            plan_id="",
            video=str(project.video),
            source_prompt=project.plan.source_prompt,
            model=model,
            side=side_of(self.studio.profile(model), project.size or 0),
            frames=project.frames or "",
            prompting=labels.ONE if whole else labels.BY_SHOT,
            prompt=ranges[0].prompt if whole else "",
            prompts=_with_gaps(project, frames),
            rows_of={"first": span.start},
            crossfade=project.timeline.crossfade,
            takes=takes,
            over=over,
        )
        settings = asdict(project.plan) | asdict(project.edit)
        if expected is not None:
            expected.append(outputs.video)
        leave_video(self.studio.jobs, begun or Begun(), region_job_id)
        profile = self.studio.profile(model).within(project.edit.max_steps, project.edit.steps)
        return [*outputs, *model_shown(self.studio, model), *shown_values(ALL, profile, settings)]

    def _model_of(self, file: Path) -> str:
        """Return the project's model; if it is a file or folder, the model with the same name on this server."""
        named = project_model(file)
        if not is_path(named):
            return named

        def called(model: str) -> ModelParts:
            return ModelParts.parse(model).renamed(lambda name: Path(name).name)

        here = (model for model in self.studio.models if "/" not in model or on_disk(ModelParts.parse(model).model))
        return next((model for model in here if called(model) == called(named)), named)

    def _video_of(self, file: Path, video: str | None) -> Path:
        name, expected = project_video(file)
        candidates = [Path(video)] if video else []
        candidates += [Path(clip["file"]) for clip in self.clips]
        found = next((path for path in candidates if path.is_file() and content_digest(path) == expected), None)
        if found is None:
            raise AdaFlowError(f"the project is of {name}, which is not here; upload that video, then open the project")
        return found


def _frames(project: Project) -> range:
    """Return the frames of its video that a project edits."""
    frames = range(probe(project.video).frames)
    return frames[parse_range(project.frames)] if project.frames else frames


def _with_gaps(project: Project, frames: int) -> Rows:
    """Return the project's ranges as rows, with rows without a prompt for the frames between and after them."""
    rows: Rows = []
    end = 0
    for part in project.timeline.ranges:
        if part.start > end:
            rows.append({"frames": [end, part.start], "prompt": ""})
        rows.append(part.as_json())
        end = part.end
    return rows if end >= frames else [*rows, {"frames": [end, frames], "prompt": ""}]
