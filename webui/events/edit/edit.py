"""The edit of a plan: its prompts are looked at, what it is to be is checked, and it is queued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from adaflow_core.config import EditConfig
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.project import check_takes
from adaflow_core.film.timeline import CROSSFADE, PromptRange, Timeline, ranges_of
from webui import views
from webui.events.common.follow import stop_job
from webui.events.common.over import asked_over, has_pictures
from webui.events.common.rows import Carried, Row, Rows, carry
from webui.jobs.queue import Begun, Watched, new_id
from webui.kept import OverState
from webui.messages import refusal, refuse_on_error
from webui.settings import EDIT, RESERVED, asked_values, named, shown_values
from webui.studio import Studio, check_deliver
from webui.views import labels


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
    over: OverState
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

    def check_not_empty(self, prompt: str, prompting: str = labels.ONE, over: OverState | None = None) -> None:
        """Refuse an empty prompt before planning starts; keyframes by hand need none."""
        if prompting == labels.ONE and not (prompt or "").strip() and not has_pictures(over):
            raise refusal("the prompt is empty; say what the video should show")

    @named(*EDIT)
    def edit(
        self, plan_id: str | None, prompt: str, prompting: str, prompts: Rows, rows_of: Row | None,
        crossfade: float | None, takes: Any, deliver: str, over: OverState, *shown: Any,
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

    def takes_made(self, shown_job: str, takes: Any) -> tuple[Any, Any]:
        """Takes of a project that are in the edit that is shown are not made again with the next one."""
        finished = self.studio.finished(shown_job)
        if not takes or finished is None or finished.asked is None:
            return gr.skip(), gr.skip()
        if list(finished.asked.takes) != self._allowed(takes):
            return gr.skip(), gr.skip()
        return [], views.line("The project's takes are in the edit that is shown; another one leaves them out.")

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
