"""The button Edit: a plan where there is none of these settings, and the edit after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from adaflow_core.errors import AdaFlowError
from webui.events.common.outputs import PreviewOutputs
from webui.events.common.over import held
from webui.events.common.rows import Row, Rows
from webui.events.edit.edit import EditAsked, EditEvents
from webui.events.plan import PlanEvents
from webui.jobs.queue import Begun, Watched, new_id
from webui.kept import OverState
from webui.messages import refuse_on_error
from webui.settings import EDIT, FORECAST, PLAN, named


class BeginEvents:
    """The button Edit: a plan and the edit after it, which the server begins whether or not the page is still open."""

    def __init__(self, planning: PlanEvents, editing: EditEvents) -> None:
        self.planning, self.editing, self.studio = planning, editing, editing.studio

    @named(*PLAN, *EDIT)
    async def begin(
        self, planning: str, plan_id: str | None, video: str | None, source_prompt: str, model: str, side: int | str,
        frames: str, begun: Begun, watched: Watched, prompt: str, prompting: str, prompts: Rows, rows_of: Row | None,
        crossfade: float | None, takes: Any, deliver: str, over: OverState, over_id: str, *shown: Any,
    ) -> tuple[str, str]:  # fmt: skip
        """Edit, after a planning if the settings have changed, and in the place of an edit whose `planning` still runs.

        The jobs of the planning, "" where there is none, and of the edit, by which the browser finds it later.
        """
        previous, job_id = self.studio.kept.find_plan(plan_id), new_id()
        planned, edited = shown[: len(PLAN)], shown[len(PLAN) :]
        forecast = [value for name, value in zip(EDIT, edited, strict=True) if name in FORECAST]
        with refuse_on_error():
            over = held(self.studio, over, over_id)
            asked = EditAsked(prompt, prompting, prompts, rows_of, crossfade, takes, deliver, over, edited)
            self.editing.check_not_empty(prompt, prompting, over)
            self.editing.check(model, asked)
            request = await self.planning.asked(video, source_prompt, model, side, frames, begun, (*planned, *forecast))
            before_it = ""
            if previous is not None and previous.answers(request):
                await asyncio.to_thread(self._submit, job_id, watched, asked, plan_id)
            else:
                before_it = self.planning.start(request, previous, begun, partial(self._edit, job_id, watched, asked))
            self.studio.jobs.leave(planning, replaced=True)  # only now: where this one is refused, that goes on
            return before_it, job_id

    async def show_planning(self, planning: str, plan_id: str | None, begun: Begun) -> AsyncIterator[PreviewOutputs]:
        """Show the planning that `begin` has begun."""
        previous = self.studio.kept.find_plan(plan_id)
        async for outputs in self.planning.show_plan(planning, previous, begun, "edit"):
            yield outputs

    def _submit(self, job_id: str, watched: Watched, asked: EditAsked, plan_id: str | None) -> str:
        """As `EditEvents.submit`; from now on the tab follows this edit, or another video puts it aside."""
        self.editing.submit(job_id, plan_id, asked)
        watched.turn_to(job_id)
        return job_id

    def _edit(self, job_id: str, watched: Watched, asked: EditAsked, plan_id: str) -> str:
        """In the thread of the jobs: where nobody may wait for it, what is wrong is said by the job itself."""
        try:
            return self._submit(job_id, watched, asked, plan_id)
        except AdaFlowError as problem:
            self.studio.refuse_edit(job_id, problem)
            watched.turn_to(job_id)
            return job_id
