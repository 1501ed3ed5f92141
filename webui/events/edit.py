"""Events of step 3 (prompt, edit and result), one handler per event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import gradio as gr
import numpy as np

from adaflow_core.config import EditConfig
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.project import check_takes
from adaflow_core.film.timeline import CROSSFADE, PromptRange, Timeline, ranges_of
from adaflow_core.report.overlays import place_sentence, place_view
from adaflow_core.types import Plan
from webui import views
from webui.events.common.follow import follow, show_of_plan, stop_job
from webui.events.common.outputs import (
    BesideOutputs,
    CompareOutputs,
    HistoryOutputs,
    PlaceOutputs,
    WatchOutputs,
    unchanged,
)
from webui.events.common.over import Over, asked_over, has_pictures
from webui.events.common.rows import Carried, Row, carry
from webui.jobs.finished import FinishedEdit
from webui.jobs.queue import Begun, Snapshot, Watched, new_id
from webui.jobs.tasks import FoundPlace
from webui.messages import message, refusal, refuse_on_error
from webui.served_images import serve_image
from webui.settings import EDIT, RESERVED, asked_values, named, shown_values
from webui.studio import Studio, check_deliver
from webui.views import labels

_MOST_EDITS = 12  # that are listed as edits so far
Rows = list[Row]


@dataclass(frozen=True)
class EditAsked:
    """What an edit is to be, as the page or a program says it; `shown` is what the components of `EDIT` show."""

    prompt: str
    prompting: str
    prompts: Rows
    rows_of: Row | None
    crossfade: float | None
    takes: Any
    deliver: str
    over: Over | None
    shown: Sequence[Any]

    @property
    def by_shot(self) -> bool:
        return self.prompting != labels.ONE

    @property
    def frames_between(self) -> int:
        """Of a crossfade."""
        return CROSSFADE if self.crossfade is None else int(self.crossfade)


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
        prompting: str = labels.ONE,
    ) -> str:
        """Which words of the prompts the model does not know, which are no words, and what is too long."""
        texts = [prompt or ""] if prompting == labels.ONE else [str(row.get("prompt") or "") for row in prompts or []]
        with refuse_on_error():
            problems = [sentence for text in texts for sentence in self.studio.prompt_problems(text, model or "")]
            problems += self.studio.prompt_problems(negative_prompt or "", model or "", "negative prompt")
            return views.notice(list(dict.fromkeys(problems)))

    def check_not_empty(self, prompt: str, prompting: str = labels.ONE, over: Over | None = None) -> None:
        """Refuse an empty prompt before planning starts; keyframes by hand need none."""
        if prompting == labels.ONE and not (prompt or "").strip() and not has_pictures(over):
            raise refusal("the prompt is empty; say what the video should show")

    async def place(
        self, plan_id: str | None, prompt: str, focus: float, structure: float | str, begun: Begun
    ) -> AsyncIterator[PlaceOutputs]:
        """Show where an edit of the plan to this prompt would change the video."""
        with refuse_on_error():
            config = EditConfig(**self.asked(plan_id, ("focus", "structure"), (focus, structure)))
            job_id = self.studio.place(plan_id, prompt or "", config)
        # Only now: where another search is refused, the one that runs goes on.
        self.studio.jobs.leave(begun.place, replaced=True)
        begun.place = job_id
        async for outputs in self.show_place(plan_id, "", begun):
            yield outputs

    def fit_place(self, plan_id: str | None, placed: str, begun: Begun) -> PlaceOutputs:
        """There is another plan: a place in the one before goes, and its progress if no other is being searched."""
        if not placed or self.studio.found_place(placed, self.studio.kept.find_plan(plan_id)) is not None:
            return unchanged(PlaceOutputs)
        return _no_place(**({"place_progress": gr.skip()} if begun.place else {}))

    async def show_place(self, plan_id: str | None, placed: str, begun: Begun) -> AsyncIterator[PlaceOutputs]:
        """A search, or one that is done, as a reloaded page had it: its progress, then the place that it found.

        Nothing where it is gone, or of another plan. While one runs, the place before it is shown.
        """
        how = "search", "place_progress", _no_place(), self.studio.found_place, _place_outputs
        async for outputs in show_of_plan(self.studio, plan_id, begun, "place", placed, *how):
            yield outputs

    @named(*EDIT)
    def edit(
        self, plan_id: str | None, prompt: str, prompting: str, prompts: Rows, rows_of: Row | None,
        crossfade: float | None, takes: Any, deliver: str, over: Over | None, *shown: Any,
    ) -> str:  # fmt: skip
        """Start an edit of the plan; returns the job's id, for `watch` and `stop`.

        With `prompting` "A prompt for each shot", `prompts` is a list of {"frames": [first, end], "prompt": text}; an
        empty prompt leaves its frames as they are. They are of the plan's frames, or of those that `rows_of` says
        (`common/rows.py`). `deliver`: "source" or "working", the size of what is written.
        """
        asked = EditAsked(prompt, prompting, prompts, rows_of, crossfade, takes, deliver, over, shown)
        with refuse_on_error():
            return self.submit(new_id(), plan_id, asked)

    def submit(self, job_id: str, plan_id: str | None, asked: EditAsked) -> str:
        """As `edit`, under this job's id; AdaFlowError where it cannot be done."""
        config = EditConfig(**self.asked(plan_id, EDIT, asked.shown))
        stored = self.studio.kept.find_plan(plan_id)
        parts = *asked_over(stored, asked.over), asked.deliver
        if not asked.by_shot and not asked.takes:
            return self.studio.edit(plan_id, asked.prompt or "", config, (), *parts, job_id=job_id)
        whole = [{"frames": [0, len(stored.plan.video) if stored else 1], "prompt": asked.prompt}]
        takes = asked.takes or ()
        check_takes(takes, "the takes")
        ranges = _ranges(asked.prompts if asked.by_shot else whole)
        if stored and asked.rows_of:  # they may be of another range of the file's frames
            found = carry(stored.plan, asked.prompts if asked.by_shot else (), takes, asked.rows_of)
            ranges, takes = _seen(found) if asked.by_shot else ranges, found.takes
        timeline = Timeline(ranges, asked.frames_between)
        return self.studio.edit(plan_id, timeline, config, self._allowed(takes), *parts, job_id=job_id)

    def check(self, model: str, asked: EditAsked) -> None:
        """AdaFlowError for what is wrong with an edit whatever its plan will be: it is said before planning starts.

        Where no row has a prompt, rows of other frames may, which come back with these.
        """
        EditConfig(**asked_values(EDIT, self.studio.profile(model), asked.shown, self.studio.public))
        check_deliver(asked.deliver)
        check_takes(asked.takes or (), "the takes")
        if asked.by_shot and asked.prompts:
            ranges = _ranges(asked.prompts)
            if ranges or not (asked.rows_of or {}).get("others"):
                Timeline(ranges, asked.frames_between)
        self.studio.check_room()

    def _allowed(self, takes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Takes with the settings that strangers may ask for."""
        reserved = dict.fromkeys(set(RESERVED) & set(EDIT)) if self.studio.public else {}
        return [take | {"settings": take["settings"] | reserved} for take in takes]

    def own_settings(self, model: str) -> list[Any]:
        """The model's own values of an edit's settings."""
        return shown_values(EDIT, self.studio.profile(model))

    def asked(self, plan_id: str | None, names: Sequence[str], shown: Sequence[Any]) -> dict[str, Any]:
        """What components of these settings ask for, of the model of a plan."""
        stored = self.studio.kept.find_plan(plan_id)
        profile = self.studio.profile(stored.request.model if stored else "")
        return asked_values(names, profile, shown, self.studio.public)

    async def watch(self, job_id: str, watched: Watched | None = None) -> AsyncIterator[WatchOutputs]:
        """Follow a job to its end: status, progress, then source, edit, files and report.

        That it has failed is told as it happens, and of a job of this tab; later it only stands there.
        """
        watched = watched or Watched()
        snapshot = self.studio.jobs.snapshot(job_id) if job_id else None
        if snapshot is None:
            yield unchanged(WatchOutputs, job_status=views.status(None), progress="")
            return
        told = not snapshot.finished or job_id in watched.here
        if job_id not in (*watched.here, *watched.aside):
            watched.here.append(job_id)
        async for snapshot in follow(self.studio.jobs, job_id):
            outputs = await asyncio.to_thread(_watch_outputs, snapshot)
            if job_id not in watched.aside:
                yield outputs
            if job_id in watched.aside:  # another video is shown by now, or another edit
                if not watched.here:  # what was on its way here when the video changed
                    yield unchanged(WatchOutputs, progress="", result=gr.Column(visible=False))
                return
        if snapshot.state == "failed" and told:
            gr.Warning(message(snapshot.problem))

    async def watch_begun(self, job_id: str, watched: Watched) -> AsyncIterator[WatchOutputs]:
        """After a reload and a planning: the edit that came after it; refused if there is none, or it is followed."""
        if job_id in watched.here or self.studio.jobs.snapshot(job_id or "") is None:
            raise refusal("there is nothing new to follow", visible=False)
        async for outputs in self.watch(job_id, watched):
            yield outputs

    async def watch_aside(self, watched: Watched) -> AsyncIterator[str]:
        """Follow the edits that go on aside, one line for each."""
        running: list[str] = []
        while True:
            jobs = {job_id: self.studio.jobs.snapshot(job_id) for job_id in dict.fromkeys(watched.aside)}
            known = {job_id: snapshot for job_id, snapshot in jobs.items() if snapshot is not None}
            running += [job_id for job_id, snapshot in known.items() if not snapshot.finished and job_id not in running]
            yield views.aside([known[job_id] for job_id in running if job_id in known])
            if all(known[job_id].finished for job_id in running if job_id in known):
                return
            await asyncio.sleep(1)

    def go_on_aside(self, job_ids: str, shown: str, watched: Watched) -> None:
        """After a reload: the edits of this browser that run still, but for the one that is shown."""
        for job_id in map(str, json.loads(job_ids or "[]")):
            snapshot = self.studio.jobs.snapshot(job_id)
            if snapshot is not None and snapshot.kind == "edit" and not snapshot.finished and job_id != shown:
                watched.aside.append(job_id)

    def takes_made(self, shown_job: str, takes: Any) -> tuple[Any, Any]:
        """Takes of a project that are in the edit that is shown are not made again with the next one."""
        finished = self.finished(shown_job)
        if not takes or finished is None or finished.asked is None:
            return gr.skip(), gr.skip()
        if list(finished.asked.takes) != self._allowed(takes):
            return gr.skip(), gr.skip()
        return [], views.line("The project's takes are in the edit that is shown; another one leaves them out.")

    def choose_shown(self, shown: str, watched: Watched) -> str:
        """The job of the edit to show; one that runs goes on aside."""
        watched.turn_to(shown)
        return shown

    def show_again(self, shown_job: str, job_id: str) -> WatchOutputs:
        """After a reload: the edit that was shown while another ran, or after that was stopped."""
        snapshot = self.studio.jobs.snapshot(shown_job or "")
        if shown_job == job_id or snapshot is None or not isinstance(snapshot.result, FinishedEdit):
            return unchanged(WatchOutputs)
        return _watch_outputs(snapshot)._replace(progress=gr.skip())

    def compare(self, job_id: str, number: float, beside: str = "") -> CompareOutputs:
        """Frame `number` (from 0) of a finished edit beside its source or, given that one's job, another edit."""
        finished = self.finished(job_id)
        if finished is None:
            return unchanged(CompareOutputs)
        return _compare_outputs(finished, int(number), self.finished(beside))

    def history(self, job_ids: str, shown: str) -> HistoryOutputs:
        """The last finished ones of the edits that a browser remembers (a JSON list, newest first).

        Beside a retake stands the take before it.
        """
        edits = self._edits(job_ids)
        finished = edits.get(shown)
        beside = finished.parent if finished and finished.parent in edits else ""
        pictures = self.show_beside(shown, beside, len(finished.after) // 2 if finished else 0)
        chosen = {"value": shown if shown in edits else None}, {"value": beside}
        return _history_outputs(edits, _numbers(job_ids), shown, *chosen)._replace(**pictures._asdict())

    def more_history(self, job_ids: str, shown: str) -> HistoryOutputs:
        """The same where an edit has ended aside: what is shown, and what stands beside it, stays."""
        return _history_outputs(self._edits(job_ids), _numbers(job_ids), shown, {}, {})

    def _edits(self, job_ids: str) -> dict[str, FinishedEdit]:
        found = ((str(job_id), self.finished(str(job_id))) for job_id in json.loads(job_ids or "[]"))
        return dict(islice(((job_id, edit) for job_id, edit in found if edit is not None), _MOST_EDITS))

    def show_beside(self, job_id: str, beside: str, number: float) -> BesideOutputs:
        """Another finished edit in the place of the source."""
        finished, other = self.finished(job_id), self.finished(beside)
        if finished is None:
            return unchanged(BesideOutputs)
        video = gr.Video(str(finished.source), label=labels.SOURCE)
        if other is not None:
            video = gr.Video(str(other.edit), label=f"Edit: {other.prompt}")
        return BesideOutputs(video, *_compare_outputs(finished, int(number), other))

    def finished(self, job_id: str | None) -> FinishedEdit | None:
        return self.studio.finished(job_id)

    def stop(
        self,
        job_id: str,
        begun: Begun | None = None,
        region_job_id: str = "",
        watched: Watched | None = None,
    ) -> Any:
        """Stop a job, plannings and what comes after them, searches and drafts; they end within two seconds of compute.

        Where nothing runs for the video that is shown, the edits that go on aside.
        """
        jobs = *((*begun.of_video, begun.load) if begun else ()), job_id, region_job_id
        return stop_job(self.studio.jobs, *jobs, else_these=watched.aside if watched else ())

    def stop_retake(self, retake_job_id: str, job_id: str, watched: Watched) -> Any:
        """Stop the retake, also where another edit is looked at by now; after a reload, what `stop` does."""
        return stop_job(self.studio.jobs, retake_job_id, else_these=(job_id, *watched.aside))


def _seen(carried: Carried) -> tuple[PromptRange, ...]:
    """The ranges of rows that were carried over; refused where there are new ones, which nobody has seen."""
    if carried.new:
        raise AdaFlowError(
            "there are shots now that have no prompt; give their rows one, or edit again to leave them as they are"
        )
    return _ranges(carried.rows)


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
        compared_line=views.line(f"{finished.seconds(frame):.2f} s, frame {frame}: {name} to the left of the line"),
    )


def _numbers(job_ids: str) -> dict[str, int]:
    """The numbers of the edits that a browser remembers, from its first one on: an edit keeps its own."""
    remembered = json.loads(job_ids or "[]")
    return {str(job_id): len(remembered) - place for place, job_id in enumerate(remembered)}


def _history_outputs(
    edits: dict[str, FinishedEdit],
    numbers: dict[str, int],
    shown: str,
    chosen: dict[str, Any],
    beside: dict[str, Any],
) -> HistoryOutputs:
    """All edits; `chosen` and `beside` are what is said to the lists beside their choices."""
    names = [(views.edit_name(edit, numbers[key]), key) for key, edit in edits.items()]
    others = [(name, key) for name, key in names if key != shown]
    return unchanged(
        HistoryOutputs,
        history=gr.Accordion(visible=bool(others)),
        history_table=views.history({numbers[key]: edit for key, edit in edits.items()}),
        shown=gr.Dropdown(choices=names, **chosen),
        beside=gr.Dropdown(choices=[("its source", ""), *others], visible=shown in edits, **beside),
    )


def _place_outputs(plan: Plan, found: FoundPlace, snapshot: Snapshot) -> PlaceOutputs:
    """Show the place that a job has found."""
    return PlaceOutputs(
        place_progress=views.progress(snapshot),
        place=gr.Column(visible=True),
        place_sentence=views.quote(found.prompt) + views.line(place_sentence(found.place)),
        place_gallery=[(serve_image(picture), caption) for picture, caption in place_view(plan, found.place)],
        placed=snapshot.id,
    )


def _no_place(**others: Any) -> PlaceOutputs:
    hidden = unchanged(PlaceOutputs, place=gr.Column(visible=False), placed="")
    return hidden._replace(**{"place_progress": ""} | others)


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
        retake_prompt=gr.skip() if finished.stretch else "",
        video_file=str(finished.delivered),
        small_file=gr.DownloadButton(value=str(finished.edit), visible=finished.delivered != finished.edit),
        report_file=str(finished.report),
        project_file=gr.DownloadButton(
            value=finished.project and str(finished.project), visible=finished.project is not None
        ),
        command=finished.command,
        report=json.loads(finished.report.read_text(encoding="utf-8")),
        shown_job=snapshot.id,
    )
