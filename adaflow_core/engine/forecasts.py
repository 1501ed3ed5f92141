"""What plans, edits, drafts, timelines and takes of one engine will take, with nothing in the cache but the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from adaflow_core.config import EditConfig, FilledEdit, PlanConfig, resolve_edit
from adaflow_core.editing.forecasting.forecast import Forecaster, Passing, of_draft
from adaflow_core.film.draft import keyframes_alone
from adaflow_core.film.retake import stretch_frames, surroundings
from adaflow_core.film.stretch import stretch_of, together
from adaflow_core.film.thinned import Thinned
from adaflow_core.film.timeline import Timeline, stretches
from adaflow_core.model.backbone import Backbone
from adaflow_core.motion.carrying import NEAR, about_to_edit
from adaflow_core.motion.flow import flow_is_known
from adaflow_core.planning.planner import counted_layout
from adaflow_core.progress import Monitor
from adaflow_core.storage.cache import Cache
from adaflow_core.types import EditLayout, Forecast, Plan, Segments
from adaflow_core.video.types import Video


class Forecasts:
    """Forecasts from measurements of this machine, which finished edits correct."""

    def __init__(self, backbone: Backbone, cache: Cache) -> None:
        self.backbone, self.cache = backbone, cache
        self._forecaster = Forecaster(backbone, cache)

    def settings(self, edit: EditConfig | None, config: PlanConfig) -> FilledEdit:
        """The settings that a forecast is for. Its prompt is not known yet; the shorter stride is assumed."""
        wanted = resolve_edit(edit or EditConfig(), self.backbone.profile, config)
        return replace(wanted, stride=wanted.stride or NEAR)

    def of_plan(
        self,
        video: Video,
        segments: Segments,
        layout: EditLayout,
        wanted: FilledEdit,  # as `settings` gives them
        monitor: Monitor,
        layout_seconds: float,  # that laying out anew takes, where each step does
    ) -> Forecast:
        """The forecast of an edit of the plan that is being made."""
        passing = Passing.of(len(self._edited(video, segments, wanted, monitor)), len(video))
        return self._forecaster.predict(video, layout, passing, wanted, monitor, layout_seconds)

    def of_edit(
        self, plan: Plan, config: EditConfig | None, monitor: Monitor, passing: Passing | None = None
    ) -> Forecast:
        wanted = self.settings(config, plan.config)
        if passing is None:
            edited = self._edited(plan.video, plan.segments, wanted, monitor)
            passing = Passing.of(len(edited), len(plan.video))
        return self._forecaster.predict(plan.video, plan.layout, passing, wanted, monitor)

    def of_draft(self, plan: Plan, config: EditConfig | None, monitor: Monitor) -> Forecast:
        return self.of_edit(keyframes_alone(plan), of_draft(config or EditConfig()), monitor)

    def of_timeline(self, plan: Plan, timeline: Timeline, config: EditConfig | None, monitor: Monitor) -> Forecast:
        found = []
        for part in stretches(timeline.on(plan.video), plan.segments.cuts, len(plan.video)):
            piece = stretch_of(plan, part.start, part.end, part.source_prompt, counted_layout)
            found.append(self.of_edit(piece, config, monitor))
        return together(found)

    def of_retake(self, plan: Plan, frames: tuple[int, int], config: EditConfig | None, monitor: Monitor) -> Forecast:
        """AdaFlowError where the plan has no such frames."""
        start, end = stretch_frames(plan, frames)
        config = self.settings(config, plan.config)
        edited = self._edited(plan.video, plan.segments, config, monitor)
        begin, stop, segments, held = surroundings(plan.segments, start, end, edited)
        edited = np.union1d(edited, begin + segments.keyframes)
        inside = int(((edited >= start) & (edited < end)).sum())
        passing = Passing(inside + len(held), end - start - inside)
        piece = stretch_of(plan, begin, stop, None, counted_layout, segments)
        return self.of_edit(piece, config, monitor, passing)

    def learn(self, plan: Plan, config: FilledEdit, seconds: Mapping[str, float], edited: int) -> None:
        """After an edit of `edited` frames from its first step to its last: the next forecast knows what it took."""
        self._forecaster.learn(plan, config, seconds, edited)

    def _edited(self, video: Video, segments: Segments, wanted: FilledEdit, monitor: Monitor) -> np.ndarray:
        """[F] the frames that the model will edit; an estimate if the source's motion is not known yet."""
        assert wanted.stride
        frames = len(video), segments.cuts, segments.keyframes, wanted.stride
        if wanted.stride == 1 or (self.backbone.device.type == "cpu" and not flow_is_known(video, self.cache)):
            return about_to_edit(*frames)
        return Thinned.of(video, *frames[1:], self.backbone, self.cache, monitor).frame_ids
