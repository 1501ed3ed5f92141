"""What a visitor painted and gave back, over a video's picture.

It is kept with the tab's session, and on the server under an id by which a reload finds it: {"file": checksum of the
video's file, "video": digest of its frames at the working size, "masks": {frame: [H, W]}, "pictures": {frame: [H, W,
3]}, "words", "feather", "crop": of the region, "job": that of the region in all frames, "found_in": see
`words_found_in`, "before": of these, `OF_REGION`, what counts again if the search for the region that was asked for
finds nothing, "opened": what a project holds and no plan has taken up yet, "shown": whether the page shows it, "aside":
{digest of other frames: what was painted and given back for these}, "id"}. Words are of any frames; all else counts for
its own alone, and stays aside while there is a plan of others.
"""

from __future__ import annotations

from typing import Any

from adaflow_core.config import CROPS
from adaflow_core.errors import AdaFlowError
from adaflow_core.film.project import Project
from adaflow_core.picture.by_hand import ByHand
from adaflow_core.picture.region import BEFORE_CROPS, FEATHER, Region, files
from adaflow_core.storage.digests import content_digest
from adaflow_core.video.types import parse_range
from webui.kept import StoredPlan
from webui.studio import Studio

Over = dict[str, Any]
OF_REGION = ("masks", "words", "feather", "crop", "job", "found_in")
_MOST_ASIDE = 8
_NO_REGION: Over = {"painted": [], "words": "", "feather": FEATHER, "crop": "auto"}


def nothing(**known: Any) -> Over:
    """Nothing painted and nothing given back."""
    parts = {"file": "", "video": "", "masks": {}, "pictures": {}, "words": "", "feather": FEATHER, "crop": "auto"}
    parts |= {"job": "", "found_in": None, "before": None, "opened": None, "shown": True, "aside": {}, "id": ""}
    return parts | known


def held(studio: Studio, over: Over | None, over_id: str) -> Over:
    """What a tab has: as its session has it, or as it is kept here; AdaFlowError where it is no longer.

    Gradio forgets a session whose connection broke off long ago, while the page still shows what it had.
    """
    if over or not over_id:
        return over or {}
    kept = studio.kept.find_over(over_id)
    if kept is None:
        raise AdaFlowError(
            "what was painted or given back on this page is not kept any more; reload it, and give that again or edit "
            "without it"
        )
    return kept


def of_plan(stored: StoredPlan, over: Over | None) -> Over:
    """What was painted and given back for a plan's frames; what a project holds is read here."""
    video = stored.plan.video
    known = {"file": video.file_digest, "video": video.digest}
    if not over:
        return nothing(**known)
    if opened := over["opened"]:
        return over | known | _read(stored, opened) | {"opened": None, "shown": False}
    return over if over["video"] == video.digest else _of_other_frames(over, known)


def _of_other_frames(over: Over, known: dict[str, str]) -> Over:
    """What was painted and given back for these frames before, and the words of now; `over` itself goes aside."""
    aside = over["aside"] | ({over["video"]: _of_frames(over)} if over["masks"] or over["pictures"] else {})
    back = aside.pop(known["video"], {})
    words = {} if over["masks"] else {name: over[name] for name in ("words", "feather", "crop")}
    last = dict(list(aside.items())[-_MOST_ASIDE:])
    return nothing(**known, id=over["id"], shown=False, aside=last) | words | back


def _of_frames(over: Over) -> Over:
    """Of this the region only where it was painted: words stay."""
    names = ("pictures", *((*OF_REGION, "before") if over["masks"] else ()))
    return {name: over[name] for name in names}


def without_aside(over: Over, names: tuple[str, ...]) -> Over:
    """The same without these parts of what was painted and given back for other frames."""
    parts = {digest: {n: part[n] for n in part if n not in names} for digest, part in over["aside"].items()}
    left = {digest: part for digest, part in parts.items() if part.get("masks") or part.get("pictures")}
    return over | {"aside": left}


def asked_over(stored: StoredPlan | None, over: Over | None) -> tuple[Region | None, ByHand | None]:
    """The region and the keyframes by hand of a plan's video; what is of other frames is refused."""
    if stored is None or not over:
        return None, None
    if is_of_others(stored, over):
        raise AdaFlowError(
            "what was painted or given back is of other frames, or of another size, and is not used; give it again for "
            "these, or edit without it"
        )
    over = of_plan(stored, over)
    return region_of(over), ByHand(dict(over["pictures"])) if over["pictures"] else None


def is_of_others(stored: StoredPlan, over: Over) -> bool:
    """Whether what was painted or given back last is for other frames than a plan's, and nothing is for these."""
    digest = stored.plan.video.digest
    here = over["aside"].get(digest, {})
    if over["opened"] or over["video"] == digest or here.get("masks") or here.get("pictures"):
        return False
    return bool(over["masks"] or over["pictures"])


def region_of(over: Over) -> Region | None:
    masks, words = over["masks"], over["words"]
    if not masks and not words:
        return None
    return Region(dict(masks), None, "" if masks else words, over["feather"], over["crop"])


def words_found_in(stored: StoredPlan, over: Over) -> tuple[str, str] | None:
    """What a region of words depends on beside the frames, the source prompt and the model; None for a painted one."""
    return (stored.plan.config.source_prompt, stored.plan.model) if over["words"] and not over["masks"] else None


def has_pictures(over: Over | None) -> bool:
    """Whether something was changed by hand, which needs no prompt."""
    return bool(over and (over["pictures"] or (over["opened"] or {}).get("by_hand")))


def opened_from(project: Project) -> tuple[Over, str]:
    """What a project holds over the picture, to be taken up by the next plan; and a sentence on it."""
    region, by_hand = project.region, project.by_hand
    if region is None and by_hand is None:
        return {}, ""
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
        return {}, "Its masks or keyframes by hand lie in files beside it, which a page cannot open: give them again."
    opened = {"region": region, "by_hand": by_hand, "range": project.frames}
    said = f"Its region is “{words}”." if words else f"What was painted or given back (frame {frames}) comes with it."
    return nothing(file=content_digest(project.video), opened=opened, shown=False), said


def _bounds(frames: str | None) -> tuple[int, int | None]:
    """First frame and end of a range as it was written."""
    found = parse_range(frames) if frames else slice(None)
    return found.start or 0, found.stop


def _read(stored: StoredPlan, opened: dict[str, Any]) -> Over:
    """The masks and pictures of a project's rows, which must fit the plan's frames."""
    video, region = stored.plan.video, opened["region"] or _NO_REGION
    if _bounds(opened["range"]) != _bounds(stored.request.range):
        raise AdaFlowError(
            "the project's region is of another range of frames; take the project's, or remove the region"
        )
    crop = region.get("crop", BEFORE_CROPS)
    if crop not in CROPS:
        raise AdaFlowError(f"the project's region has the crop {crop!r}; take a whole project")
    found: dict[str, dict[int, Any]] = {}
    for name, rows, what in (
        ("masks", region["painted"], "the mask"),
        ("pictures", opened["by_hand"] or [], "the keyframe by hand"),
    ):
        frames = [int(row["frame"]) for row in rows]
        if any(not 0 <= frame < len(video) for frame in frames):
            raise AdaFlowError(f"{what} of the project is for no frame of this video; take a whole project")
        found[name] = {frame: files.decoded(row, what, video.size) for frame, row in zip(frames, rows, strict=True)}
        if any((mask.dtype == bool) != (name == "masks") for mask in found[name].values()):
            raise AdaFlowError(f"{what} of the project is a picture of another kind; take a whole project")
    return {**found, "words": str(region["words"]), "feather": int(region["feather"]), "crop": crop}
