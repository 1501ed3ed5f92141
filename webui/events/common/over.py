"""What a visitor painted and gave back, over a video's picture (`webui.kept.OverState`).

It is kept with the tab's session, and on the server under an id by which a reload finds it.
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
# As a project's JSON would have it.
_NO_REGION: dict[str, Any] = {"painted": [], "words": "", "feather": FEATHER, "crop": "auto"}


def held(studio: Studio, over: OverState, over_id: str) -> OverState:
    """What a tab has: as its session has it, or as it is kept here; AdaFlowError where it is no longer.

    Gradio forgets a session whose connection broke off long ago, while the page still shows what it had.
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
    """What was painted and given back for a plan's frames; what a project holds is read here."""
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
    """What was painted and given back for a plan's frames before, and the words of now; `over` itself goes aside."""
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
    """The same with these parts of what lies aside replaced: `region=None`, or `pictures={}`."""
    parts = {digest: replace(part, **gone) for digest, part in over.aside.items()}
    return replace(over, aside={digest: part for digest, part in parts.items() if part.region or part.pictures})


def asked_over(stored: StoredPlan | None, over: OverState) -> tuple[Region | None, ByHand | None]:
    """The region and the keyframes by hand of a plan's video; what is of other frames is refused."""
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
    """Whether what was painted or given back last is for other frames than a plan's, and nothing is for these."""
    digest = stored.plan.video.digest
    if over.opened is not None or over.video == digest or digest in over.aside:
        return False
    return bool(over.region.masks or over.pictures)


def region_of(asked: RegionState) -> Region | None:
    """The region as the engine takes it; None for the whole picture."""
    if not asked.masks and not asked.words:
        return None
    return Region(dict(asked.masks), None, "" if asked.masks else asked.words, asked.feather, asked.crop)


def words_found_in(stored: StoredPlan, asked: RegionState) -> tuple[str, str] | None:
    """What a region of words depends on beside the frames, the source prompt and the model; None for a painted one."""
    return (stored.plan.config.source_prompt, stored.plan.model) if asked.words and not asked.masks else None


def has_pictures(over: OverState | None) -> bool:
    """Whether something was changed by hand, which needs no prompt."""
    return over is not None and bool(over.pictures or (over.opened and over.opened.by_hand))


def opened_from(project: Project) -> tuple[OverState, str]:
    """What a project holds over the picture, to be taken up by the next plan; and a sentence on it."""
    region, by_hand = project.region, project.by_hand
    if region is None and by_hand is None:
        return OverState(), ""
    try:
        painted = region["painted"] if region else []
        rows = [*painted, *(by_hand or [])]
        # A file that a stranger names is not looked for on the server.
        elsewhere = bool(region and region["masks"]) or any(row.get("png") is None for row in rows)
        frames = ", ".join(str(int(row["frame"])) for row in rows)
        words = str(region["words"]) if region else ""
        int(region["feather"] if region else 0)  # which the next plan reads
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise AdaFlowError(f"the region of the project has a wrong part; take a whole one ({problem})") from problem
    if elsewhere:
        said = "Its masks or keyframes by hand lie in files beside it, which a page cannot open: give them again."
        return OverState(), said
    said = f"Its region is “{words}”." if words else f"What was painted or given back (frame {frames}) comes with it."
    opened = Opened(region, by_hand, project.frames)
    return OverState(file=content_digest(project.video), opened=opened, shown=False), said


def _bounds(frames: str | None) -> tuple[int, int | None]:
    """First frame and end of a range as it was written."""
    found = parse_range(frames) if frames else slice(None)
    return found.start or 0, found.stop


def _read(stored: StoredPlan, opened: Opened) -> tuple[RegionState, dict[int, np.ndarray]]:
    """The region and the keyframes by hand of a project's rows, which must fit the plan's frames."""
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
