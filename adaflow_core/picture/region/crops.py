"""Crops: the window around a region, as a film with a plan of its own, so that only the window is edited.

The keyframes are those of the whole frames. Latents, features, kept tokens and correspondences are computed from the
crop, as from any other film, and have their own keys in the cache. Cut out of those of the whole frames they would cost
nothing, but the window would have to lie on the features' coarser grid, and they would not match the latents that the
model sees.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from adaflow_core.model.backbone import Backbone
from adaflow_core.picture.region.window import Window
from adaflow_core.planning.analysis import source_features, source_latents
from adaflow_core.planning.planner import build_layout
from adaflow_core.progress import Monitor
from adaflow_core.storage.arrays import allocated
from adaflow_core.storage.cache import Cache, cache_key
from adaflow_core.types import Plan
from adaflow_core.video.types import Video


@dataclass(frozen=True)
class Crop:
    """A window, the film that it shows, and the video it is cut from."""

    window: Window
    film: Video  # [T, h, w, 3]
    source: Video  # [T, H, W, 3]

    def at(self, frames: slice | np.ndarray) -> Crop:
        """Return the crop of some frames only."""
        if isinstance(frames, slice):
            start, end, _ = frames.indices(len(self.film))
            return Crop(self.window.at(frames), self.film.part(start, end), self.source.part(start, end))
        film, source = (replace(video, frames=video.frames[frames], times=None) for video in (self.film, self.source))
        return Crop(self.window.at(frames), film, source)


def crop_of(video: Video, window: Window, cache: Cache, monitor: Monitor) -> Crop:
    """Cut the window out of a whole video; its film is cached."""

    def build(folder: Path) -> dict[str, Any]:
        cut = window.cut(video.frames)
        allocated(folder / "frames.npy", np.uint8, cut.shape)[:] = cut
        return {}

    key = cache_key(video=video.digest, size=window.size, corners=window.corners.tolist())
    folder, _, _ = cache.get("crops", key, build, monitor.note)
    film = replace(video, frames=np.load(folder / "frames.npy", mmap_mode="r"), digest=key, part_of=None)
    return Crop(window, film, video)


def cropped_plan(backbone: Backbone, plan: Plan, crop: Crop, cache: Cache, monitor: Monitor) -> Plan:
    """Return the plan of the crop's film, which has the frames and keyframes of `plan`."""
    whole, first = crop.film.part_of or (crop.film, 0)
    latents = source_latents(backbone, whole, cache, monitor)
    features, _ = source_features(backbone, whole, latents, plan.config, cache, monitor)
    features = features.part(first, first + len(crop.film))
    grids = backbone.grids(*crop.window.size)
    layout = build_layout(features, plan.segments, grids, plan.config, backbone.device, monitor, backbone.team)
    return replace(plan, video=crop.film, features=features, layout=layout)
