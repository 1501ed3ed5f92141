"""Events of step 3 (prompt, edit and result), one handler per event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import gradio as gr
import numpy as np

from adaflow_core.config import EditConfig
from adaflow_core.film.project import check_takes
from adaflow_core.film.timeline import CROSSFADE, PromptRange, Timeline, ranges_of
from adaflow_core.report.visualize import place_sentence, place_view
from webui import views
from webui.events.follow import follow, not_done, stop_job
from webui.events.over import Over, asked_over, has_pictures
from webui.jobs.finished import FinishedEdit
from webui.jobs.queue import Snapshot
from webui.messages import message, refusal, refuse_on_error
from webui.outputs import BesideOutputs, CompareOutputs, HistoryOutputs, PlaceOutputs, WatchOutputs, unchanged
from webui.served_images import serve_image
from webui.settings import EDIT, RESERVED, asked_values, named, shown_values
from webui.studio import Studio

Rows = list[dict[str, Any]]  # {"frames": [first, end], "prompt": text}


class EditEvents:
    """Edits run on the server whether or not anybody watches; a visitor knows them by their job's id."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def check_prompt(
        self,
        prompt: str,
        model: str = "",
        negative_prompt: str = "",
        prompts: Rows | None = None,
        prompting: str = views.ONE,
    ) -> str:
        """Which words of the prompts the model does not know, which are no words, and what is too long."""
        texts = [prompt or ""] if prompting == views.ONE else [str(row.get("prompt") or "") for row in prompts or []]
        with refuse_on_error():
            problems = [sentence for text in texts for sentence in self.studio.prompt_problems(text, model or "")]
            problems += self.studio.prompt_problems(negative_prompt or "", model or "", "negative prompt")
            return views.notice(list(dict.fromkeys(problems)))

    def check_not_empty(self, prompt: str, prompting: str = views.ONE, over: Over | None = None) -> None:
        """Refuse an empty prompt before planning starts; keyframes by hand need none."""
        if prompting == views.ONE and not (prompt or "").strip() and not has_pictures(over):
            raise refusal("the prompt is empty; say what the video should show")

    async def place(
        self, plan_id: str | None, prompt: str, focus: float, structure: float | str
    ) -> AsyncIterator[PlaceOutputs]:
        """Show where an edit of the plan to this prompt would change the video."""
        with refuse_on_error():
            config = EditConfig(**self.asked(plan_id, ("focus", "structure"), (focus, structure)))
            job_id, snapshot = self.studio.place(plan_id, prompt or "", config), None
        stored = self.studio.find_plan(plan_id)
        async for snapshot in follow(self.studio.jobs, job_id):
            if not snapshot.finished:
                yield unchanged(PlaceOutputs, place_job_id=job_id, place_progress=views.progress(snapshot))
        done = unchanged(PlaceOutputs, place_job_id="", place_progress="")
        if stored is None or snapshot is None or snapshot.state != "done":
            yield done
            raise not_done(snapshot, "search")
        items = await asyncio.to_thread(place_view, stored.plan, snapshot.result)
        yield done._replace(
            place=gr.Column(visible=True),
            place_sentence=views.quote(prompt) + views.line(place_sentence(snapshot.result)),
            place_gallery=[(serve_image(picture), caption) for picture, caption in items],
        )

    @named(*EDIT)
    def edit(
        self, plan_id: str | None, prompt: str, prompting: str, prompts: Rows, crossfade: float | None, takes: Any,
        deliver: str, over: Over | None, *shown: Any,
    ) -> str:  # fmt: skip
        """Start an edit of the plan; returns the job's id, for `watch` and `stop`.

        With `prompting` "A prompt for each shot", `prompts` is a list of {"frames": [first, end], "prompt": text}; an
        empty prompt leaves its frames as they are. `deliver`: "source" or "working", the size of what is written.
        """
        with refuse_on_error():
            config = EditConfig(**self.asked(plan_id, EDIT, shown))
            stored = self.studio.find_plan(plan_id)
            parts = *asked_over(stored, over), deliver
            if prompting == views.ONE and not takes:
                return self.studio.edit(plan_id, prompt or "", config, (), *parts)
            whole = [{"frames": [0, len(stored.plan.video) if stored else 1], "prompt": prompt}]
            check_takes(takes or (), "the takes")
            ranges = _ranges(whole if prompting == views.ONE else prompts)
            timeline = Timeline(ranges, CROSSFADE if crossfade is None else int(crossfade))
            if self.studio.public:
                reserved = dict.fromkeys(set(RESERVED) & set(EDIT))
                takes = [take | {"settings": take["settings"] | reserved} for take in takes or ()]
            return self.studio.edit(plan_id, timeline, config, takes or (), *parts)

    def own_settings(self, model: str) -> list[Any]:
        """The model's own values of an edit's settings."""
        return shown_values(EDIT, self.studio.profile(model))

    def asked(self, plan_id: str | None, names: Sequence[str], shown: Sequence[Any]) -> dict[str, Any]:
        """What components of these settings ask for, of the model of a plan."""
        stored = self.studio.find_plan(plan_id)
        profile = self.studio.profile(stored.request.model if stored else "")
        return asked_values(names, profile, shown, self.studio.public)

    async def watch(self, job_id: str) -> AsyncIterator[WatchOutputs]:
        """Follow a job to its end: status, progress, then source, edit, files and report."""
        snapshot = self.studio.jobs.snapshot(job_id) if job_id else None
        if snapshot is None:
            yield unchanged(WatchOutputs, job_status=views.status(None), progress="")
            return
        async for snapshot in follow(self.studio.jobs, job_id):
            yield _watch_outputs(snapshot)
        if snapshot.state == "failed":
            gr.Warning(message(snapshot.problem))

    def compare(self, job_id: str, number: float, beside: str = "") -> CompareOutputs:
        """Frame `number` (from 0) of a finished edit beside its source or, given that one's job, another edit."""
        finished = self.finished(job_id)
        if finished is None:
            return unchanged(CompareOutputs)
        return _compare_outputs(finished, int(number), self.finished(beside))

    def history(self, job_ids: str, shown: str) -> HistoryOutputs:
        """The finished ones of the edits that a browser remembers (a JSON list, newest first).

        Beside a retake stands the take before it.
        """
        edits = {job_id: edit for job_id in json.loads(job_ids or "[]") if (edit := self.finished(str(job_id)))}
        names = [(views.edit_name(edit, len(edits) - place), key) for place, (key, edit) in enumerate(edits.items())]
        others = [(name, key) for name, key in names if key != shown]
        finished = edits.get(shown)
        beside = finished.parent if finished and finished.parent in edits else ""
        pictures = self.show_beside(shown, beside, len(finished.after) // 2 if finished else 0)
        return HistoryOutputs(
            history=gr.Accordion(visible=len(edits) > 1),
            history_table=views.history(list(edits.values())),
            shown=gr.Dropdown(choices=names, value=shown if shown in edits else None),
            beside=gr.Dropdown(choices=[("its source", ""), *others], value=beside),
            **pictures._asdict(),
        )

    def show_beside(self, job_id: str, beside: str, number: float) -> BesideOutputs:
        """Another finished edit in the place of the source."""
        finished, other = self.finished(job_id), self.finished(beside)
        if finished is None:
            return unchanged(BesideOutputs)
        video = gr.Video(str(finished.source), label=views.SOURCE)
        if other is not None:
            video = gr.Video(str(other.edit), label=f"Edit: {other.prompt}")
        return BesideOutputs(video, *_compare_outputs(finished, int(number), other))

    def finished(self, job_id: str | None) -> FinishedEdit | None:
        return self.studio.finished(job_id)

    def stop(self, job_id: str, place_job_id: str = "", draft_job_id: str = "") -> Any:
        """Stop a job, the search for a place and drafts; they end within two seconds of compute."""
        return stop_job(self.studio.jobs, job_id, place_job_id, draft_job_id)


def _ranges(rows: Any) -> tuple[PromptRange, ...]:
    """The ranges of rows from the page or a program; an empty prompt leaves its frames."""
    given = rows if isinstance(rows, list) else []
    return ranges_of([row | {"prompt": None} if _is_empty(row) else row for row in given])


def _is_empty(row: Any) -> bool:
    return isinstance(row, dict) and not str(row.get("prompt") or "").strip()


def _compare_outputs(finished: FinishedEdit, frame: int, other: FinishedEdit | None = None) -> CompareOutputs:
    frame = min(max(frame, 0), len(finished.after) - 1)
    left = finished.before if other is None else other.after
    name = "the source" if other is None else f"“{other.prompt}”"
    pair = left[min(frame, len(left) - 1)], finished.after[frame]
    return CompareOutputs(
        compared=tuple(serve_image(np.asarray(picture)) for picture in pair),
        compared_line=views.line(f"{frame / finished.fps:.2f} s, frame {frame}: {name} to the left of the line"),
    )


def _watch_outputs(snapshot: Snapshot) -> WatchOutputs:
    status, progress = views.status(snapshot), views.progress(snapshot)
    finished = snapshot.result
    if not isinstance(finished, FinishedEdit):
        return unchanged(WatchOutputs, job_status=status, progress=progress)
    middle, last = len(finished.after) // 2, max(1, len(finished.after) - 1)
    first, end = finished.stretch or (0, len(finished.after))  # a stretch is made again until it fits
    comparison = _compare_outputs(finished, middle)
    return WatchOutputs(
        job_status=status,
        progress=progress,
        result=gr.Column(visible=True),
        about=views.quote(finished.prompt) + views.line(f"Edit of {finished.video}.{views.how(finished)}"),
        source=str(finished.source),
        edited=str(finished.edit),
        compared_frame=gr.Slider(value=middle, maximum=last),
        compared=comparison.compared,
        compared_line=comparison.compared_line,
        scores=views.scores(finished.scores),
        warnings=views.notice(finished.warnings),
        rims=views.rims(finished),
        first=gr.Slider(value=first, maximum=last),
        end=gr.Slider(value=end, maximum=last + 1),
        stretch_pictures="",
        video_file=str(finished.delivered),
        small_file=gr.DownloadButton(value=str(finished.edit), visible=finished.delivered != finished.edit),
        report_file=str(finished.report),
        project_file=str(finished.project),
        command=finished.command,
        report=json.loads(finished.report.read_text(encoding="utf-8")),
    )
