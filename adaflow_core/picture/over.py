"""What is asked for over the picture, beside a prompt: where it is edited, what was changed by hand, and the crop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adaflow_core.model.backbone import Backbone
from adaflow_core.picture.by_hand import ByHand, HandFilm, changed_region, film_by_hand
from adaflow_core.picture.region import Region, RegionMask
from adaflow_core.picture.region.crops import Crop, crop_of
from adaflow_core.picture.region.track import region_mask
from adaflow_core.progress import Monitor
from adaflow_core.storage.cache import Cache
from adaflow_core.types import Plan


@dataclass(frozen=True)
class OverThePicture:
    """What is asked for beside the prompt."""

    region: RegionMask | None = None  # outside which the source stays
    by_hand: HandFilm | None = None  # edited in the source's place
    crop: Crop | None = None  # of what alone is edited

    def at(self, frames: slice | np.ndarray) -> OverThePicture:
        """That of some frames."""
        parts = (None if part is None else part.at(frames) for part in (self.region, self.by_hand, self.crop))
        return OverThePicture(*parts)  # type: ignore[arg-type]  # each is of its own kind

    @property
    def asked(self) -> dict[str, Any]:
        """What a report says of it; names of files are not part of what an edit is known by."""
        return {
            "region": None if self.region is None else self.region.asked,
            "by_hand": None if self.by_hand is None else self.by_hand.asked,
        }


NOTHING = OverThePicture()


def asked_over(region: Region | None, by_hand: ByHand | None) -> dict[str, Any]:
    """The same before anything was found; AdaFlowError where a file is gone."""
    return {"region": region and region.as_json(), "by_hand": by_hand and by_hand.as_json()}


@dataclass(frozen=True)
class Asked:
    """A region and keyframes by hand, read and carried through a plan's video once for all parts of an edit."""

    backbone: Backbone
    cache: Cache
    plan: Plan
    region: Region | None = None
    by_hand: ByHand | None = None
    _found: dict[bool, OverThePicture] = field(default_factory=dict, compare=False, repr=False)

    def over(self, alone: bool, monitor: Monitor) -> OverThePicture:
        """For all frames. `alone`: nothing but what was changed by hand is edited.

        The monitor gets a note where the region may be the wrong one.
        """
        only_changed = alone and self.region is None and self.by_hand is not None
        if only_changed not in self._found:
            self._found[only_changed] = self._find(only_changed, monitor)
        found = self._found[only_changed]
        if found.region is not None and found.region.doubt:
            monitor.note(found.region.doubt)
        return found

    def _find(self, only_changed: bool, monitor: Monitor) -> OverThePicture:
        parts, region, by_hand = (self.backbone, self.plan), self.region, self.by_hand
        film = None if by_hand is None else film_by_hand(*parts, by_hand, self.cache, monitor)
        if only_changed and by_hand is not None:
            region = changed_region(self.plan, by_hand)
        mask = None if region is None else region_mask(*parts, region, self.cache, monitor)
        crop = None
        if mask is not None and mask.window is not None:
            crop = crop_of(self.plan.video, mask.window, self.cache, monitor)
        return OverThePicture(mask, film, crop)
