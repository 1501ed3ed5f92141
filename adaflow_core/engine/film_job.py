"""Films that are made of several edits: the ranges of a timeline, and takes, each laid over those before it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from adaflow_core.config import EditConfig, edit_of
from adaflow_core.editing.checkpoint import frames_digest
from adaflow_core.editing.place import say_the_same, wording
from adaflow_core.engine.edit_job import EditJob, check_request
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.known import part_keys, remember
from adaflow_core.film.report import film_result
from adaflow_core.film.retake import (
    Around,
    around_of,
    edited_frame_ids,
    laid_take,
    stretch_frames,
    surroundings,
    take_of,
    with_take,
)
from adaflow_core.film.stretch import Laid, lay_into, lay_over, ramp, stretch_of
from adaflow_core.film.timeline import PromptRange, Stretch, Timeline, stretches
from adaflow_core.picture.over import Asked, asked_over
from adaflow_core.planning.planner import build_layout
from adaflow_core.progress import Monitor, Report, Stop, in_part
from adaflow_core.types import EditResult, Plan, Segments


@dataclass(frozen=True)
class FilmJob:
    """A timeline with the takes over it; what the cache has of them is not made again."""

    asked: Asked
    timeline: Timeline
    config: EditConfig
    stretches: list[Stretch]  # of the timeline
    takes: list[Mapping[str, Any]]  # as a report has them
    keys: list[str]  # of the settings of each stretch and then of each take, for forecasts
    progress: Report | None
    stop: Stop | None

    @classmethod
    def of(
        cls,
        asked: Asked,
        timeline: Timeline,
        config: EditConfig,
        takes: Iterable[Mapping[str, Any]],
        progress: Report | None,
        stop: Stop | None,
    ) -> FilmJob:
        if not isinstance(timeline, Timeline):
            raise AdaFlowError(
                f"the timeline is {timeline!r:.80}; give a Timeline of PromptRanges, or one text to edit()"
            )
        plan, rows = asked.plan, list(takes)
        timeline = timeline.on(plan.video)
        parts = stretches(timeline, plan.segments.cuts, len(plan.video))
        keys = part_keys(plan, parts, config, rows, asked_over(asked.region, asked.by_hand))
        return cls(asked, timeline, config, parts, rows, keys, progress, stop)

    def film(self) -> EditResult:
        """The film in all frames of the plan: the timeline's ranges, and the takes laid over them one by one."""
        plan, team = self.asked.plan, self.asked.backbone.team
        result = self._of_ranges()
        for number, row in enumerate(self.takes, len(self.stretches)):
            take = take_of(plan, result, *stretch_frames(plan, row["frames"]), row["prompt"], row.get("source_prompt"))
            job = TakeJob(self.asked, take, edit_of(row["settings"]), self._monitor(number))
            laid, result = job.laid_over(result, self.keys[number])
            lay_into(result.frames, laid, team)  # nobody else has the film yet
        return with_digest(replace(result, bounds=self.asked.bounds), self.asked)

    def _of_ranges(self) -> EditResult:
        """The film of the timeline; its report lacks `frames_digest`."""
        began, asked, plan = time.perf_counter(), self.asked, self.asked.plan
        parts, laid, notes = [], [], list[str]()
        for number, part in enumerate(self.stretches):
            monitor = self._monitor(number)
            check_request(asked.backbone, plan, part.prompt)
            piece = _stretch(asked, part.start, part.end, part.source_prompt, monitor)
            job = _job(asked, piece, part.start, part.prompt, self.config, monitor)
            frames, report = _kept(job, self.keys[number])
            laid.append(Laid(part.start, frames, ramp(len(frames), part.rise, part.fall)))
            parts.append(report | {"first_frame": part.start})
            notes += monitor.notes
        seconds = time.perf_counter() - began
        return film_result(plan, self.timeline, self.config, parts, laid, seconds, notes, asked.backbone.team)

    def _monitor(self, number: int) -> Monitor:
        """A monitor for the part `number` alone, so that its seconds and notes are of no other part."""
        return Monitor(in_part(self.progress, number), self.stop)


@dataclass(frozen=True)
class TakeJob:
    """A stretch of a film that is made again."""

    asked: Asked
    take: PromptRange
    config: EditConfig
    monitor: Monitor

    def over(self, result: EditResult) -> EditResult:
        """The result with the take laid over it; `result` itself is not changed."""
        laid, told = self.laid_over(result)
        film = lay_over(result.frames, [laid], self.asked.backbone.team)
        bounds = self.asked.bounds if self.asked.region is not None or result.bounds is not None else None
        return with_digest(replace(told, frames=film, bounds=bounds), self.asked)

    def laid_over(self, result: EditResult, key: str = "") -> tuple[Laid, EditResult]:
        """The take to lay over the film, and the result with its new report, which lacks `frames_digest`.

        `key`: the key of the take's settings, by which forecasts find in the cache whether it was made.
        """
        take, plan, start, end = self.take, self.asked.plan, self.take.start, self.take.end
        check_request(self.asked.backbone, plan, take.prompt)
        edited = edited_frame_ids(result.report, start, end, self._stride())
        begin, stop_at, segments, held = surroundings(plan.segments, start, end, edited)
        piece = _stretch(self.asked, begin, stop_at, take.source_prompt, self.monitor, segments)
        only = slice(start - begin, end - begin)
        around = None
        if len(held) or edited is not None:
            around = around_of(result, piece, only, begin, held, edited)
        job = _job(self.asked, piece, begin, take.prompt, self.config, self.monitor, around)
        new, report = _kept(job, key)
        told = with_take(plan, result, take, self.config, report, begin, self.monitor.notes)
        return laid_take(plan, result.frames, take, new), told

    def _stride(self) -> int:
        source = self.take.source_prompt
        source = self.asked.plan.config.source_prompt if source is None else source
        return self.config.stride or wording(source, self.take.prompt).stride(self.config.structure)


def _stretch(
    asked: Asked, start: int, end: int, source_prompt: str | None, monitor: Monitor, segments: Segments | None = None
) -> Plan:
    """The plan of its frames `start` to `end` alone."""
    device, team = asked.backbone.device, asked.backbone.team
    lay_out = partial(build_layout, device=device, monitor=monitor, team=team)
    return stretch_of(asked.plan, start, end, source_prompt, lay_out, segments)


def _job(
    asked: Asked,
    piece: Plan,  # of a stretch of the plan
    begin: int,  # its first frame there
    prompt: str,
    config: EditConfig,
    monitor: Monitor,
    around: Around | None = None,
) -> EditJob:
    alone = say_the_same(prompt, piece.config.source_prompt)
    over = asked.over(alone, monitor).at(slice(begin, begin + len(piece.video)))
    return EditJob.of(asked.backbone, asked.cache, piece, prompt, config, monitor, around, over)


def _kept(job: EditJob, asked: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Edited frames of a stretch, kept in the cache, and their report.

    `asked`: the key of the stretch's settings; "": none. What concerns this run alone are the notes of the job's
    monitor.
    """
    frames, told = job.kept("takes", lambda result: {"report": result.report})
    if asked:
        remember(job.cache, asked, "takes", job.key)
    return frames, told["report"] | job.over.asked


def with_digest(result: EditResult, asked: Asked) -> EditResult:
    digest = frames_digest(result.frames, asked.backbone.team)
    return replace(result, report=result.report | {"frames_digest": digest})
