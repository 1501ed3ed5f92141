"""Events after a reload: restore what the tab had."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from adaflow_core.errors import AdaFlowError
from webui.events.common.outputs import ModelShown, RestoredOutputs, unchanged
from webui.events.model import model_shown, side_of
from webui.events.video import OF_PROJECT
from webui.jobs.queue import Begun
from webui.settings import ALL
from webui.studio import Studio

# Names under which a tab remembers running jobs. Finished ones are kept apart ("plan", "drafted" and "placed"), so that
# they stay if a running job fails.
RUNNING = ("planning", "drafting", "placing")
# The settings that a tab remembers.
SETTINGS = ("model", "side", "frames", "prompting", "prompts", "rows_of", "crossfade", "takes", "deliver", *ALL)
# Stored before the settings' values: an older version of the page may have stored other settings or another order.
SETTINGS_KEY = hashlib.sha256(" ".join(SETTINGS).encode()).hexdigest()[:16]


class SessionEvents:
    """Restores a tab after a reload; jobs and plans are on the server, and the tab remembers their ids."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def restore(self, session: str, expected: list[str], begun: Begun) -> tuple[Any, ...]:
        """Restore this tab: returns the fields of `RestoredOutputs`, then of `ModelShown`, then the settings.

        `session` is JSON from the browser; it refers to files on the server only by secret ids.
        """
        kept = json.loads(session or "{}")
        jobs = {name: self.studio.jobs.snapshot(kept.get(name) or "") for name in RUNNING}
        running = {name: job.id if job is not None and not job.finished else "" for name, job in jobs.items()}
        done = {name: job for name, job in jobs.items() if job is not None and job.state == "done"}
        begun.plans += filter(None, (running["planning"],))
        begun.draft, begun.place = running["drafting"], running["placing"]
        stored = self.studio.kept.find_plan(done["planning"].result) if "planning" in done else None
        stored = stored or self.studio.kept.find_plan(kept.get("plan"))
        video = self.studio.kept.find_video(kept.get("video"))
        if stored and video and stored.request.video != video:  # that of the plan was trimmed since
            stored = None
        elif stored and Path(stored.request.video).is_file():
            video = stored.request.video
        expected += filter(None, [video])
        over = self.studio.kept.find_over(kept.get("over"))
        restored = RestoredOutputs(
            video=video or gr.skip(),
            source_prompt=kept.get("source_prompt") or gr.skip(),
            prompt=kept.get("prompt") or gr.skip(),
            job_id=kept.get("job") or self._newest(kept.get("edits") or []),
            shown_job=kept.get("shown") or "",
            # A job that was started later may have failed; then the one finished before is restored.
            drafted=done["drafting"].id if "drafting" in done else kept.get("drafted") or "",
            placed=done["placing"].id if "placing" in done else kept.get("placed") or "",
            plan_id=stored.id if stored else "",
            over=replace(over, shown=False) if over else gr.skip(),
            over_id=over.id if over else gr.skip(),
        )
        return *restored, *self._restored(kept.get("settings") or [], bool(stored or video))

    def _newest(self, edits: list[Any]) -> str:
        """Return the newest of a browser's edits that is neither stopped nor failed; `edits` has the newest first."""
        jobs = (self.studio.jobs.snapshot(str(job_id)) for job_id in edits)
        return next((job.id for job in jobs if job is not None and job.state not in ("stopped", "failed")), "")

    def _restored(self, settings: list[Any], of_video: bool) -> list[Any]:
        """Return what the page shows of the tab's model, then the tab's settings.

        Without `of_video` the settings that belong to a video are not restored. Settings of an older version of the
        page are ignored.
        """
        same = [*unchanged(ModelShown), *[gr.skip()] * len(SETTINGS)]
        if settings[:1] != [SETTINGS_KEY]:
            return same
        kept = dict(zip(SETTINGS, settings[1:], strict=True))
        try:
            model = self.studio.resolve_model(str(kept["model"] or ""))
        except AdaFlowError:  # it is no longer offered
            return same
        shown = kept | {"side": side_of(self.studio.profile(model), kept["side"])}
        if not of_video:
            shown |= {name: gr.skip() for name in OF_PROJECT if name in shown}
        return [*model_shown(self.studio, model), *shown.values()]
