"""What an edit is given beside its prompt: a region, keyframes edited by hand, and the crop around the region."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaflow_core.errors import AdaFlowError
from adaflow_core.model.backbone import Backbone
from adaflow_core.picture.by_hand import (
    ByHand,
    HandFilm,
    changed_region,
    check_by_hand,
    film_by_hand,
    read_pictures,
)
from adaflow_core.picture.region import BEFORE_CROPS, Region, RegionMask
from adaflow_core.picture.region.crops import Crop, crop_of
from adaflow_core.picture.region.track import check_region, region_mask
from adaflow_core.progress import Monitor
from adaflow_core.storage.cache import Cache
from adaflow_core.types import Plan


@dataclass(frozen=True)
class OverThePicture:
    """A region, the film by hand and the crop of an edit; each may be None."""

    region: RegionMask | None = None  # the source stays outside it
    by_hand: HandFilm | None = None  # edited in place of the source
    crop: Crop | None = None  # only this part of the frames is edited

    def at(self, frames: slice | np.ndarray) -> OverThePicture:
        """Return the same for some frames only."""
        parts = (None if part is None else part.at(frames) for part in (self.region, self.by_hand, self.crop))
        return OverThePicture(*parts)  # type: ignore[arg-type]  # each is of its own kind

    @property
    def asked(self) -> dict[str, Any]:
        """What a report says of the region and the keyframes by hand."""
        return {
            "region": None if self.region is None else self.region.asked,
            "by_hand": None if self.by_hand is None else self.by_hand.asked,
        }


NOTHING = OverThePicture()


def asked_over(region: Region | None, by_hand: ByHand | None) -> dict[str, Any]:
    """Return `OverThePicture.asked` before anything is found; raises AdaFlowError if a file is gone."""
    return {"region": region and region.as_json(), "by_hand": by_hand and by_hand.as_json()}


def _content(asked: Any) -> Any:
    """Return what of `asked_over` an edit depends on: without the names of files and pictures held by a project."""
    if isinstance(asked, Mapping):
        return {name: _content(value) for name, value in asked.items() if name not in ("file", "png")}
    return [_content(value) for value in asked] if isinstance(asked, list) else asked


@dataclass(frozen=True)
class Asked:
    """A region and keyframes by hand, read and carried through a plan's video once, for all parts of an edit.

    Keyframes by hand that are alone, without a region or a prompt, are an edit of the region that was changed in them.
    """

    backbone: Backbone
    cache: Cache
    plan: Plan
    region: Region | None = None
    by_hand: ByHand | None = None
    # By whether only what was changed by hand is edited: the parts of a timeline with a prompt and without one differ.
    _found: dict[bool, OverThePicture] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.region is not None:
            check_region(self.region)
        if self.by_hand is not None:
            check_by_hand(self.by_hand)

    @cached_property
    def _pictures(self) -> tuple[dict[int, NDArray[np.uint8]], tuple[str, ...]]:
        """The pictures by hand as `read_pictures` returns them, with its notes."""
        if self.by_hand is None:
            return {}, ()
        monitor = Monitor()
        return read_pictures(self.by_hand, self.plan.video, monitor), tuple(monitor.notes)

    def _only_changed(self, alone: bool) -> bool:
        """Whether nothing but what was changed by hand is edited; `alone`: no prompt says what else."""
        return alone and self.region is None and self.by_hand is not None

    def region_for(self, alone: bool) -> Region | None:
        """Return the region that was asked for, or else, if the changes by hand are `alone`, their region."""
        return changed_region(self.plan, self._pictures[0]) if self._only_changed(alone) else self.region

    def check_film(self, report: Mapping[str, Any]) -> None:
        """Raise AdaFlowError if a report's film was made with another region or other keyframes by hand.

        Files may have been moved since. What a report of an older version does not say is not compared.
        """
        made = {name: report.get(name) for name in ("region", "by_hand")}
        if made["region"]:
            made["region"] = {"crop": BEFORE_CROPS} | made["region"]
        given = asked_over(self.region_for(alone=bool(made["region"])), self.by_hand)
        for name, one, other in (
            ("region", "a region", "another region"),
            ("by_hand", "keyframes by hand", "other keyframes by hand"),
        ):
            if name not in report or _content(made[name]) == _content(given[name]):
                continue
            if not made[name]:
                raise AdaFlowError(f"the film was made without {one}; make the take so too, or the film again with it")
            raise AdaFlowError(f"the film was made with {other if given[name] else one}; give the take the same")

    def over(self, alone: bool, monitor: Monitor) -> OverThePicture:
        """Return the region, the film by hand and the crop for all frames, found once.

        `alone`: without a region, only what was changed by hand is edited. The monitor gets a note if the region may be
        the wrong one, and `read_pictures`' notes.
        """
        only_changed = self._only_changed(alone)
        if only_changed not in self._found:
            self._found[only_changed] = self._find(self.region_for(alone), monitor)
        found = self._found[only_changed]
        doubts = (found.region.doubt,) if found.region is not None and found.region.doubt else ()
        for note in (*self._pictures[1], *doubts):
            monitor.note(note)
        return found

    @property
    def bounds(self) -> np.ndarray | None:
        """[T, H, W] uint8, 0 where all parts of the edit so far keep the source; None: they do not share one region."""
        regions = [over.region for over in self._found.values()]
        return regions[0].weights if len(regions) == 1 and regions[0] is not None else None

    def _find(self, region: Region | None, monitor: Monitor) -> OverThePicture:
        parts, film, mask, crop = (self.backbone, self.plan), None, None, None
        if self.by_hand is not None:
            film = film_by_hand(*parts, self.by_hand, self._pictures[0], self.cache, monitor)
        if region is not None:
            mask = region_mask(*parts, region, self.cache, monitor)
        if mask is not None and mask.window is not None:
            crop = crop_of(self.plan.video, mask.window, self.cache, monitor)
        return OverThePicture(mask, film, crop)
