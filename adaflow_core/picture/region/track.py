"""The mask of a region in every frame of a video: read, or carried from painted or found frames, then feathered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone
from adaflow_core.motion.flow import source_flow
from adaflow_core.picture.region.carry import Source, carry
from adaflow_core.picture.region.mask import Region, RegionMask, feathered, read_masks, read_painted
from adaflow_core.picture.region.window import LEAST, find_window
from adaflow_core.picture.region.words import find_words
from adaflow_core.progress import Monitor
from adaflow_core.storage.cache import Cache, cache_key
from adaflow_core.types import Plan
from adaflow_core.video.types import DARK


def check_region(region: Region) -> None:
    """Raise AdaFlowError if `region` is not a `Region`."""
    if not isinstance(region, Region):
        raise AdaFlowError(f"the region is {type(region).__name__}; give a Region, as in Region(words='red ball')")


def region_mask(backbone: Backbone, plan: Plan, region: Region, cache: Cache, monitor: Monitor) -> RegionMask:
    """Return the mask of `region` in the planned video; it is cached."""
    check_region(region)
    asked, video = region.as_json(), plan.video
    named: dict[str, Any] = {"model": backbone.fingerprint, "source": plan.config.source_prompt} if region.words else {}

    def build(folder: Path) -> dict[str, Any]:
        out = backbone.team.array(folder / "weights.npy", np.uint8, video.frames.shape[:3])
        inside, doubt = _inside(backbone, plan, region, cache, monitor)
        for t in range(len(video))[backbone.team.own(len(video))]:
            out[t] = feathered(np.asarray(inside[t]) > 0, region.feather)
        return {"doubt": doubt}

    if video.numbers:  # by which files of masks are read
        named["numbers"] = video.numbers
    key = cache_key(
        video=video.digest, cuts=plan.segments.cuts.tolist(), region=_content(asked), start=video.start, **named
    )
    folder, meta, _ = cache.get("region", key, build, monitor.note, together=True)
    doubt = meta.get("doubt", "")  # masks cached by older versions have none
    weights = np.load(folder / "weights.npy", mmap_mode="r")
    window = None
    if region.crop != "never":
        window = find_window(weights, plan.segments.cuts, int(LEAST[region.crop] * backbone.profile.size))
    return RegionMask(weights, key, asked, window, doubt)


def _content(asked: dict[str, Any]) -> dict[str, Any]:
    """Return what the mask depends on: `asked` without the names of files."""
    masks = asked["masks"] and asked["masks"]["checksum"]
    painted = [(row["frame"], row["checksum"]) for row in asked["painted"]]
    held = {"painted": painted, "masks": masks, "words": asked["words"], "feather": asked["feather"]}
    return held | {"ground": DARK}  # older versions laid transparent masks over white


def _inside(backbone: Backbone, plan: Plan, region: Region, cache: Cache, monitor: Monitor) -> tuple[np.ndarray, str]:
    """Return [T, H, W], not 0 inside, and a sentence on why it may be wrong, or ""."""
    video, cuts = plan.video, plan.segments.cuts
    if region.masks is not None:
        return read_masks(region.masks, video, monitor), ""
    painted, doubt = read_painted(region, video, monitor), ""
    if region.words:
        painted, doubt = find_words(backbone, plan, region.words, cache, monitor)
    source = Source(video.frames, source_flow(video, cache, monitor))
    with monitor.stage("carry the region", 2 * len(video)) as stage:
        return carry(source, cuts, painted, stage), doubt
