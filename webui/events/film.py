"""Events of what people do with an edit over time: drafts, prompts of ranges, retakes and projects."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from adaflow_core.config import EditConfig
from adaflow_core.errors import AdaFlowError, counted
from adaflow_core.film.draft import Draft, contact_sheet
from adaflow_core.film.project import Project, open_project, project_model, project_video
from adaflow_core.model.files.parts import ModelParts, is_path
from adaflow_core.model.hub.client import on_disk
from adaflow_core.storage.digests import content_digest
from adaflow_core.types import Plan
from adaflow_core.video.decode import probe
from adaflow_core.video.types import parse_range
from webui import views
from webui.events.common.follow import leave_video, show_of_plan
from webui.events.common.outputs import DraftOutputs, ProjectOutputs, RowsOutputs, unchanged
from webui.events.common.over import Over, asked_over, held, opened_from
from webui.events.common.rows import carry
from webui.events.edit import EditEvents, Rows
from webui.events.model import model_shown, side_of
from webui.jobs.finished import FinishedEdit
from webui.jobs.queue import Begun, Snapshot, Watched
from webui.jobs.tasks import Drafts
from webui.messages import refusal, refuse_on_error
from webui.served_images import serve_image
from webui.settings import ALL, EDIT, named, shown_values
from webui.studio import Studio
from webui.views import labels

_VARIATION = 0.3  # without any, seeds do not differ


class FilmEvents:
    """`clips` are the bundled examples, which a project may name."""

    def __init__(self, studio: Studio, clips: list[dict[str, str]], editing: EditEvents) -> None:
        self.studio, self.clips, self.editing = studio, clips, editing

    # --- drafts ---

    @named(*EDIT)
    async def draft(
        self, plan_id: str | None, prompt: str, tried: str, over: Over | None, over_id: str, begun: Begun, *shown: Any
    ) -> AsyncIterator[DraftOutputs]:
        """The edited keyframes of a plan, before the long run; up to four settings side by side."""
        with refuse_on_error():
            configs = _tried(tried, self.editing.asked(plan_id, EDIT, shown))
            parts = asked_over(self.studio.kept.find_plan(plan_id), held(self.studio, over, over_id))
            job_id = self.studio.draft(plan_id, prompt or "", configs, *parts)
        # Only now: where others are refused, those that are being made go on.
        self.studio.jobs.leave(begun.draft, replaced=True)
        begun.draft = job_id
        async for outputs in self.show_drafts(plan_id, "", begun):
            yield outputs

    def fit_drafts(self, plan_id: str | None, drafted: str, begun: Begun) -> DraftOutputs:
        """There is another plan: drafts of the one before go, and their progress if no others are being made."""
        if not drafted or self.studio.drafts(drafted, self.studio.kept.find_plan(plan_id)) is not None:
            return unchanged(DraftOutputs)
        return _no_drafts(**({"draft_progress": gr.skip()} if begun.draft else {}))

    async def show_drafts(self, plan_id: str | None, drafted: str, begun: Begun) -> AsyncIterator[DraftOutputs]:
        """Drafts that are being made, or are made, as a reloaded page had them: their progress, then their pictures.

        Nothing where they are gone, or of another plan. While some are being made, those before them are shown.
        """
        how = "draft", "draft_progress", _no_drafts(), self.studio.drafts, _draft_outputs
        async for outputs in show_of_plan(self.studio, plan_id, begun, "draft", drafted, *how):
            yield outputs

    def choose_draft(self, drafts: list[dict[str, Any]], model: str, event: gr.SelectData) -> list[Any]:
        """The settings of the draft under a click."""
        return shown_values(EDIT, self.studio.profile(model), drafts[int(event.index)])

    # --- prompts of ranges ---

    def shots(
        self, plan_id: str | None, rows: Rows, version: float, rows_of: dict[str, Any], takes: Any, prompt: str = ""
    ) -> RowsOutputs:
        """A row for each shot of the plan; of rows that are there every frame keeps its prompt.

        While none has a prompt, all get `prompt`.
        """
        stored = self.studio.kept.find_plan(plan_id)
        if stored is None:
            raise refusal("there is no plan yet; preview the keyframes first")
        found = carry(stored.plan, rows or (), takes or (), rows_of)
        other = "" if any(row["prompt"] for row in found.rows) else (prompt or "").strip()
        made = [row | {"prompt": row["prompt"] or other} for row in found.rows]
        return RowsOutputs(made, version + 1, found.rows_of, found.takes)

    def fit_shots(
        self, plan_id: str | None, rows: Rows, version: float, rows_of: dict[str, Any], takes: Any
    ) -> RowsOutputs:
        """The rows, if there are any, and takes for another plan, whose pictures the rows show."""
        fitted = self.shots(plan_id, rows, version, rows_of, takes)
        if not rows:
            fitted = unchanged(RowsOutputs, rows_of=fitted.rows_of, takes=fitted.takes)
        # What is right already is not sent again: by the time that it comes it may be typed over, or taken away.
        same = {name: gr.skip() for name, was in (("prompts", rows), ("takes", takes)) if getattr(fitted, name) == was}
        return fitted._replace(**same)

    def split(self, frames: tuple[int, int], rows: Rows, frame: float | None, version: float) -> RowsOutputs:
        """The row of `frames` in two, the second beginning at `frame`; nothing where that row is gone."""
        number = _number_of(rows, frames)
        if number is None:
            return unchanged(RowsOutputs)
        row, (first, end) = rows[number], frames
        if frame is None or not first < int(frame) < end:
            raise refusal(f"frames {first} to {end} can be split at {first + 1} to {end - 1}")
        parts = [row | {"frames": [first, int(frame)]}, row | {"frames": [int(frame), end]}]
        return _rows([*rows[:number], *parts, *rows[number + 1 :]], version)

    def merge(self, frames: tuple[int, int], rows: Rows, version: float) -> RowsOutputs:
        """The row of `frames` and the next as one, under the first one's prompt; nothing where one of them is gone."""
        number = _number_of(rows, frames)
        if number is None or number + 1 == len(rows):
            return unchanged(RowsOutputs)
        one, other = rows[number], rows[number + 1]
        whole = (one if one["prompt"] else other) | {"frames": [one["frames"][0], other["frames"][1]]}
        return _rows([*rows[:number], whole, *rows[number + 2 :]], version)

    def row_pictures(self, plan_id: str | None, row: dict[str, Any]) -> tuple[str, str]:
        """First, middle and last frame of a row as one picture, and what the row covers."""
        stored = self.studio.kept.find_plan(plan_id)
        first, end = row["frames"]
        words = f"Frames {first} to {end - 1}"
        if stored is None or end > len(stored.plan.video):
            return "", words
        plan = stored.plan
        picture = views.strip(plan.video.frames, (first, (first + end - 1) // 2, end - 1))
        return views.image(picture, words), f"{words}, {plan.video.stamp(first).split(',')[0]} on"

    # --- retakes ---

    def retake(
        self,
        job_id: str,
        first: float,
        end: float,
        retake_prompt: str,
        retake_seed: float | None,
        retake_variation: float | None,
        watched: Watched | None = None,
    ) -> str:
        """Make frames `first` to `end` (not included) of a finished edit again; returns the job's id, for `watch`."""
        with refuse_on_error():
            snapshot = self.studio.jobs.snapshot(job_id or "")
            finished = self.editing.finished(job_id)
            if snapshot is None or finished is None or finished.asked is None:
                raise AdaFlowError("there is no finished edit to take a stretch from, or no longer; edit first")
            asked = asdict(finished.asked.config)
            other = self.editing.asked(None, ("seed", "variation"), (retake_seed, retake_variation))
            config = EditConfig(**asked | other)
            prompt = (retake_prompt or "").strip() or None
            retake = self.studio.retake(job_id, (int(first), int(end)), prompt, config)
        if watched is not None:
            watched.turn_to(retake)
        return retake

    def begin_here(self, job_id: str, shown_second: float) -> Any:
        """The frame that the edit's video shows at a second, as the first one of a stretch."""
        finished = self.editing.finished(job_id)
        return min(_shown_frame(finished, shown_second), len(finished.after) - 1) if finished else gr.skip()

    def end_here(self, job_id: str, shown_second: float) -> Any:
        """The same as the end of a stretch, which is after the last frame where the video has ended."""
        finished = self.editing.finished(job_id)
        return max(1, _shown_frame(finished, shown_second)) if finished else gr.skip()

    def stretch(self, job_id: str, first: float, end: float) -> str:
        """First and last frame of the stretch, as the edit shows them."""
        finished = self.editing.finished(job_id)
        if finished is None or not 0 <= int(first) < int(end) <= len(finished.after):
            return views.line("The end must come after the first frame.") if finished else ""
        seconds = finished.seconds(int(end)) - finished.seconds(int(first))
        words = f"Frames {int(first)} to {int(end) - 1}, {seconds:.2f} s"
        return views.image(views.strip(finished.after, (int(first), int(end) - 1)), words) + views.line(words)

    # --- projects ---

    def open_project(
        self,
        path: str,
        video: str | None,
        expected: list[str] | None = None,
        begun: Begun | None = None,
        region_job_id: str = "",
    ) -> list[Any]:
        """Show what a project file holds. Its video is the one on the page, or an example.

        The plan before goes with the prompt before, so that nothing makes this prompt of that plan.
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
        """The project's model; where that is a file or folder, the one that is called so here."""
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


def _shown_frame(finished: FinishedEdit, second: float) -> int:
    """The frame that an edit's video shows at a second, from 0; their number where it has ended."""
    begun = [finished.seconds(frame) for frame in range(1, len(finished.after) + 1)]
    return bisect_right(begun, second + 1e-3 / finished.fps)  # players round the time of a frame


def _frames(project: Project) -> range:
    """The frames of its video that a project edits."""
    frames = range(probe(project.video).frames)
    return frames[parse_range(project.frames)] if project.frames else frames


def _number_of(rows: Rows, frames: tuple[int, int]) -> int | None:
    """Which of the rows, from 0, is that of `frames`."""
    return next((number for number, row in enumerate(rows or []) if tuple(row["frames"]) == frames), None)


def _rows(rows: Rows, version: float) -> RowsOutputs:
    """Other rows for the same frames."""
    return unchanged(RowsOutputs, prompts=rows, prompts_version=version + 1)


def _with_gaps(project: Project, frames: int) -> Rows:
    """The project's ranges, and rows without a prompt for what lies between them."""
    rows: Rows = []
    end = 0
    for part in project.timeline.ranges:
        if part.start > end:
            rows.append({"frames": [end, part.start], "prompt": ""})
        rows.append(part.as_json())
        end = part.end
    return rows if end >= frames else [*rows, {"frames": [end, frames], "prompt": ""}]


def _tried(tried: str, asked: dict[str, Any]) -> list[tuple[str, EditConfig]]:
    """The edits whose drafts are shown side by side, with their labels."""
    if tried not in labels.TRIED:
        raise AdaFlowError(f"drafts side by side are {tried!r}; choose one of {', '.join(labels.TRIED)}")
    compared = labels.TRIED[tried]
    if compared is None:
        return [("edit", EditConfig(**asked))]
    name, values = compared
    if name == "seed":
        values = tuple(asked["seed"] + int(value) for value in values)
        asked = asked | {"variation": asked["variation"] or _VARIATION}
    return [(f"{name} {value:g}", EditConfig(**asked | {name: value})) for value in values]


def _draft_outputs(plan: Plan, drafts: Drafts, snapshot: Snapshot) -> DraftOutputs:
    """Show the drafts that a job has made."""
    made = drafts.made
    warnings = dict.fromkeys(warning for _, _, draft in made for warning in draft.warnings)
    several = " Choose one, and the edit goes on from it." if len(made) > 1 else " The edit goes on from it."
    return DraftOutputs(
        draft_progress=views.progress(snapshot),
        draft=gr.Column(visible=True),
        draft_sentence=views.quote(drafts.prompt)
        + views.line("Keyframes of the source, and below them what the edit makes of them." + several)
        + views.notice(list(warnings)),
        draft_gallery=gr.Gallery(
            [_sheet(plan, label, draft) for label, _, draft in made],
            selected_index=None,
            columns=1 if len(made) == 1 else 2,
        ),
        drafts=[asdict(config) for _, config, _ in made],
        drafted=snapshot.id,
    )


def _no_drafts(**others: Any) -> DraftOutputs:
    hidden = unchanged(DraftOutputs, draft=gr.Column(visible=False), drafts=[], drafted="")
    return hidden._replace(**{"draft_progress": ""} | others)


def _sheet(plan: Plan, label: str, draft: Draft) -> tuple[str, str]:
    return serve_image(np.asarray(contact_sheet(plan, [(label, draft)])), "png"), label
