"""One plan, from the decoded video to keyframes, kept tokens and a forecast."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

from adaflow_core.config import FilledEdit, PlanConfig
from adaflow_core.engine.forecasts import Forecasts
from adaflow_core.model.backbone import Backbone
from adaflow_core.motion.flow import source_flow
from adaflow_core.planning.analysis import source_cuts, source_features, source_latents
from adaflow_core.planning.planner import Planner, drawn_layouts
from adaflow_core.progress import Monitor, beside
from adaflow_core.storage.cache import Cache
from adaflow_core.types import Features, Grid, Plan, Segments
from adaflow_core.video.types import Video


@dataclass(frozen=True)
class PlanJob:
    """What a plan is asked to be, and what it is made with."""

    backbone: Backbone
    cache: Cache
    planner: Planner
    forecasts: Forecasts
    config: PlanConfig  # with every value filled in
    wanted: FilledEdit  # what the forecast is for, as `Forecasts.settings` gives it
    monitor: Monitor

    def plan(self, video: Video) -> Plan:
        backbone, config, monitor = self.backbone, self.config, self.monitor
        with self._following(video):
            latents = source_latents(backbone, video, self.cache, monitor)
            features, key = source_features(backbone, video, latents, config, self.cache, monitor)
            cuts = source_cuts(video, self.cache, monitor)
            choose = partial(self.planner.choose, features, latents, cuts, key, config, monitor)
            choice = backbone.team.lead(choose)
            grids = backbone.grids(*video.size)
            layout = self.planner.layout(features, key, choice, grids, config, monitor)
            again = self._layout_seconds(features, choice.segments, grids)
        forecast = self.forecasts.of_plan(video, choice.segments, layout, self.wanted, monitor, again)
        of_model = backbone.notes if self.wanted.guidance != 1 else ()  # they are on guidance
        return Plan(
            video=video,
            model=backbone.name,
            config=config,
            features=features,
            layout=layout,
            forecast=forecast,
            seconds=monitor.seconds,
            **vars(choice) | {"notes": (*video.notes, *of_model, *monitor.notes, *choice.notes)},
        )

    def _following(self, video: Video) -> AbstractContextManager[None]:
        """On a GPU the processor finds cuts and follows the motion while the model looks at the frames."""
        if self.backbone.device.type == "cpu":
            return nullcontext()
        works = [partial(source_cuts, video, self.cache.beside)]
        if self.wanted.follows_motion or self.wanted.stride != 1:
            works.append(partial(source_flow, video, self.cache.beside))
        return beside(self.monitor, *works)

    def _layout_seconds(self, features: Features, segments: Segments, grids: list[Grid]) -> float:
        """What laying out anew takes, where each step does: tried, as the first time also reads the features."""
        config, wanted, device = self.config, self.wanted, self.backbone.device
        if not config.resample:
            return 0.0
        lay_out = drawn_layouts(features, segments, grids, config, wanted.seed, device, self.monitor, wanted.low_memory)
        began = time.perf_counter()
        lay_out(0)
        return time.perf_counter() - began
