"""The region and the keyframes by hand of a visitor (`webui.kept.OverState`).

They are kept in the tab's session, and on the server under an id by which a reload finds them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from adaflow_core.config import CROPS
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.project import Project
from adaflow_core.picture.by_hand import ByHand
from adaflow_core.picture.region import BEFORE_CROPS, FEATHER, Region, files
from adaflow_core.storage.digests import content_digest
from adaflow_core.video.types import parse_range
from webui.kept import AsideState, Opened, OverState, RegionState, StoredPlan
from webui.studio import Studio

_MOST_ASIDE = 8
# "No region" in the format of a project's JSON.
_NO_REGION: dict[str, Any] = {"painted": [], "words": "", "feather": FEATHER, "crop": "auto"}


def held(studio: Studio, over: OverState, over_id: str) -> OverState:
    """Return a tab's state from its session, or else from the server; AdaFlowError if it has expired there.

    Gradio deletes a session whose connection was lost long ago, although the page still shows what it had.
    """
    if not over.is_empty or not over_id:
        return over
    kept = studio.kept.find_over(over_id)
    if kept is None:
        raise AdaFlowError(
            "what was painted or given back on this page is not kept any more; reload it, and give that again or edit "
            "without it"
        )
    return kept


def of_plan(stored: StoredPlan, over: OverState) -> OverState:
    """Return the region and keyframes by hand for a plan's frames; those of an opened project are decoded here."""
    video = stored.plan.video
    if over.is_empty:
        return OverState(file=video.file_digest, video=video.digest)
    if over.opened is not None:
        region, pictures = _read(stored, over.opened)
        return replace(
            over, file=video.file_digest, video=video.digest, region=region, pictures=pictures, opened=None, shown=False
        )
    return over if over.video == video.digest else _of_other_frames(over, stored)


def _of_other_frames(over: OverState, stored: StoredPlan) -> OverState:
    """Put the masks and pictures of `over` aside, and restore those made earlier for this plan's frames.

    A region of words is not tied to frames: it stays, unless a region was painted earlier for these frames.
    """
    video, region = stored.plan.video, over.region
    aside = dict(over.aside)
    if region.masks or over.pictures:
        aside[over.video] = AsideState(region if region.masks else None, over.pictures)
    back = aside.pop(video.digest, AsideState())
    words = RegionState() if region.masks else RegionState(words=region.words, feather=region.feather, crop=region.crop)
    return OverState(
        file=video.file_digest,
        video=video.digest,
        region=back.region or words,
        pictures=back.pictures,
        shown=False,
        aside=dict(list(aside.items())[-_MOST_ASIDE:]),
        id=over.id,
    )


def without_aside(over: OverState, **gone: Any) -> OverState:
    """Remove a part from all that lies aside: `region=None`, or `pictures={}`."""
    parts = {digest: replace(part, **gone) for digest, part in over.aside.items()}
    return replace(over, aside={digest: part for digest, part in parts.items() if part.region or part.pictures})


def asked_over(stored: StoredPlan | None, over: OverState) -> tuple[Region | None, ByHand | None]:
    """Return the region and the keyframes by hand for a plan; AdaFlowError if they belong to other frames."""
    if stored is None or over.is_empty:
        return None, None
    if is_of_others(stored, over):
        raise AdaFlowError(
            "what was painted or given back is of other frames, or of another size, and is not used; give it again for "
            "these, or edit without it"
        )
    over = of_plan(stored, over)
    return region_of(over.region), ByHand(dict(over.pictures)) if over.pictures else None


def is_of_others(stored: StoredPlan, over: OverState) -> bool:
    """Whether there are masks or pictures for other frames than the plan's, and none for the plan's frames."""
    digest = stored.plan.video.digest
    if over.opened is not None or over.video == digest or digest in over.aside:
        return False
    return bool(over.region.masks or over.pictures)


def region_of(asked: RegionState) -> Region | None:
    """Return the region as the engine takes it; None for the whole picture."""
    if not asked.masks and not asked.words:
        return None
    return Region(dict(asked.masks), None, "" if asked.masks else asked.words, asked.feather, asked.crop)


def words_found_in(stored: StoredPlan, asked: RegionState) -> tuple[str, str] | None:
    """Return what a region of words depends on besides the frames: (source prompt, model); None for a painted one."""
    return (stored.plan.config.source_prompt, stored.plan.model) if asked.words and not asked.masks else None


def has_pictures(over: OverState | None) -> bool:
    """Whether there are keyframes by hand, which need no prompt."""
    return over is not None and bool(over.pictures or (over.opened and over.opened.by_hand))


def opened_from(project: Project) -> tuple[OverState, str]:
    """Return a project's region and keyframes by hand, which the next plan decodes, and a sentence about them."""
    region, by_hand = project.region, project.by_hand
    if region is None and by_hand is None:
        return OverState(), ""
    try:
        painted = region["painted"] if region else []
        rows = [*painted, *(by_hand or [])]
        # Files named in a stranger's project are never looked for on the server.
        elsewhere = bool(region and region["masks"]) or any(row.get("png") is None for row in rows)
        frames = ", ".join(str(int(row["frame"])) for row in rows)
        words = str(region["words"]) if region else ""
        int(region["feather"] if region else 0)  # checked now; the next plan reads it
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise AdaFlowError(f"the region of the project has a wrong part; take a whole one ({problem})") from problem
    if elsewhere:
        said = "Its masks or keyframes by hand lie in files beside it, which a page cannot open: give them again."
        return OverState(), said
    said = f"Its region is “{words}”." if words else f"What was painted or given back (frame {frames}) comes with it."
    opened = Opened(region, by_hand, project.frames)
    return OverState(file=content_digest(project.video), opened=opened, shown=False), said


def _bounds(frames: str | None) -> tuple[int, int | None]:
    """Return the first frame and the end of a range given as text."""
    found = parse_range(frames) if frames else slice(None)
    return found.start or 0, found.stop


def _read(stored: StoredPlan, opened: Opened) -> tuple[RegionState, dict[int, np.ndarray]]:
    """Decode the region and the keyframes by hand of a project; AdaFlowError if they do not fit the plan's frames."""
    video, region = stored.plan.video, opened.region or _NO_REGION
    if _bounds(opened.range) != _bounds(stored.request.range):
        raise AdaFlowError(
            "the project's region is of another range of frames; take the project's, or remove the region"
        )
    crop = region.get("crop", BEFORE_CROPS)
    if crop not in CROPS:
        raise AdaFlowError(f"the project's region has the crop {crop!r}; take a whole project")
    found: dict[str, dict[int, Any]] = {}
    for name, rows, what in (
        ("masks", region["painted"], "the mask"),
        ("pictures", opened.by_hand or [], "the keyframe by hand"),
    ):
        frames = [int(row["frame"]) for row in rows]
        if any(not 0 <= frame < len(video) for frame in frames):
            raise AdaFlowError(f"{what} of the project is for no frame of this video; take a whole project")
        found[name] = {frame: files.decoded(row, what, video.size) for frame, row in zip(frames, rows, strict=True)}
        if any((mask.dtype == bool) != (name == "masks") for mask in found[name].values()):
            raise AdaFlowError(f"{what} of the project is a picture of another kind; take a whole project")
    return RegionState(found["masks"], str(region["words"]), int(region["feather"]), crop), found["pictures"]
